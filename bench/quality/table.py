"""Markdown tables of stored results."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bench.quality import protocol
from bench.quality.inner import OUTER
from jobs.report import words
from jobs.report.words import NETWORK_NAMES

NAMES = {
    "majority": "always the largest class",
    "file-only": "random forest on file size, width, height, aspect ratio and border",
    "nearest-pixels": "1-NN on pixels",
    "phantoms": "phantoms alone: {} before any image",
    "hog": "histograms of oriented gradients (128 px), logistic regression",
    "permuted": "labels permuted by group",
    "leaky": "split that ignores groups, on the {} images that share a group",
}
SHOWN = ("accuracy", "balanced_accuracy", "roc_auc")
DRAWN = ("kid", "precision", "recall", "density", "coverage")
Json = dict[str, Any]


def short(result: Json) -> str:
    """Return the accuracies of a result's first network, of phantoms alone and of file properties as a table."""
    rows = [
        [name, *(_estimate(found.get(metric), metric) for metric in ("accuracy", "roc_auc"))]
        for name, found in _first_network(result).items()
    ]
    return render(["trained on", "accuracy", "ROC-AUC"], rows)


def answer(result: Json) -> str:
    """Return the accuracies of `short` as a list."""
    accuracies = ((name, found["accuracy"]) for name, found in _first_network(result).items())
    return "\n".join(f"- {name}: {_estimate(one, 'accuracy')}" for name, one in accuracies)


def _first_network(result: Json) -> dict[str, dict[str, Json]]:
    network = result["settings"]["networks"][0]
    rows: dict[str, dict[str, Json]] = {}
    for entry in result["results"]:
        if entry["network"] == network:
            name = f"{NETWORK_NAMES[network]}, {words.REGIMES[entry['regime']]} images"
            rows.setdefault(name, {})[entry["metric"]] = entry
    for entry in result["controls"]["results"] + result["baselines"]:
        if entry["control"] in ("phantoms", "file-only"):
            name = f"*control*: {NAMES[entry['control']].format(NETWORK_NAMES[network])}"
            rows.setdefault(name, {})[entry["metric"]] = entry
    return rows


def markdown(*results: Json) -> str:
    """Return the accuracies of results on the same folds as a Markdown table. See docs/report.md for their parts."""
    rows: dict[tuple[str, str], dict[str, Json]] = {}
    for entry in _all(results, "results"):
        key = (NETWORK_NAMES[entry["network"]], words.REGIMES[entry["regime"]])
        rows.setdefault(key, {})[entry["metric"]] = entry
    for result in results:
        network = NETWORK_NAMES[result["settings"]["networks"][0]]
        for entry in result["controls"]["results"] + result["baselines"]:
            key = ("*control*", NAMES[entry["control"]].format(network))
            rows.setdefault(key, {})[entry["metric"]] = entry
    for entry in _all((result["controls"] for result in results), "checks"):
        key = (f"{NETWORK_NAMES[entry['network']]}, *control*", NAMES[entry["check"]].format(entry["n"]))
        rows.setdefault(key, {})[entry["metric"]] = entry
    head = ["network", "trained on", "accuracy", "balanced accuracy", "ROC-AUC"]
    return render(
        head, ([*key, *(_estimate(row.get(metric), metric) for metric in SHOWN)] for key, row in rows.items())
    )


def differences(*results: Json) -> str:
    """Return the differences in accuracy between the regimes of each network, one per line."""
    lines = []
    for entry in _all(results, "comparisons"):
        first, second = entry["first"], entry["second"]
        if entry["metric"] == "accuracy" and first["network"] == second["network"]:
            regimes = " minus ".join(words.REGIMES[one["regime"]] for one in (second, first))
            lines.append(f"- {NETWORK_NAMES[first['network']]}, {regimes}: {_beyond(entry, 'accuracy')}")
    return "\n".join(lines)


def closer(*results: Json) -> str:
    """Return the details of the results of each recipe as a Markdown table."""
    lines = []
    for found in (result["closer"] for result in results):
        untouched = {_recipe(x): x for x in found["untouched"] if x["metric"] == "accuracy"}
        beyond = {_recipe(x): x for x in found["beyond"]}
        for entry in found["seeds"]:
            recipe = network, regime = _recipe(entry)
            line = [NETWORK_NAMES[network], words.REGIMES[regime], _estimate(untouched[recipe], "accuracy")]
            line.append(", ".join(_number(x, "accuracy") for x in entry["accuracy"]))
            lines.append([*line, _beyond(beyond[recipe], beyond[recipe]["metric"])])
    head = [
        "network",
        "trained on",
        f"accuracy on fold {OUTER} alone, {results[0]['closer']['untouched'][0]['n']} images",
        "on all, seed by seed",
        "balanced accuracy beyond histograms of gradients, points",
    ]
    return render(head, lines)


def generators(result: Json) -> str:
    """Return the quality of the synthetic images of each class, means over the folds, as a Markdown table.

    The 95 % interval of KID assumes independent folds.
    """
    figures = [f"{words.QUALITY[metric]} (*real*)" for metric in DRAWN]
    head = ["class", "held-out images of a fold", *figures, "copies (*real*)", "near-duplicates", "distance"]
    lines = []
    for label in dict.fromkeys(one["label"] for one in result["quality"]):
        parts = [one for one in result["quality"] if one["label"] == label]
        counts = [one["images"]["held_out"] for one in parts]
        line = [label, f"{min(counts)} to {max(counts)}"]
        for metric in DRAWN:
            found = [figure for one in parts for figure in one["figures"] if figure["metric"] == metric]
            values = (_mean_figure(found, whose) for whose in ("generated", "real"))
            line.append("{} (*{}*)".format(*values))
        copies, distance = ([one["memorization"][name] for one in parts] for name in ("copies", "distance"))
        line.append("{} (*{}*)".format(*(_mean(one[whose] for one in copies) for whose in ("generated", "real"))))
        line.append(_mean(one["memorization"]["near_duplicates"]["generated"] for one in parts))
        line.append(_mean(one["generated"] / one["real"] for one in distance))
        lines.append(line)
    return render(head, lines)


def ablations(found: Json) -> str:
    """Return the accuracies of variants, and their differences to the reference, as a Markdown table."""
    than = f"more than {protocol.REFERENCE}"
    head = ["variant", "trained on", "accuracy", f"points {than}", "ROC-AUC", than]
    lines = []
    for name, one in found.items():
        rows: dict[tuple[str, str], list[str]] = {}
        for entry in one["results"]:
            row = rows.setdefault(_recipe(entry), [name, words.REGIMES[entry["regime"]]])
            row += [_estimate(entry, entry["metric"]), _beyond(entry.get("beyond"), entry["metric"])]
        lines += rows.values()
    return render(head, lines)


def ablated_images(found: Json) -> str:
    """Return the quality of variants' synthetic images as a Markdown table, those of the same generators once."""
    head = ["variant", "KID", "coverage", "recall", "copies", "distance"]
    lines, seen = [], [{}]
    for name, quality in ((name, one["quality"]) for name, one in found.items()):
        if quality not in seen:
            seen.append(quality)
            figures = [_estimate(quality[metric], metric) for metric in ("kid", "coverage", "recall")]
            lines.append([name, *figures, *(words.figure(quality[metric]) for metric in ("copies", "distance"))])
    return render(head, lines)


def render(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return cells as a Markdown table."""
    first, *rest = ("| " + " | ".join(line) + " |" for line in [head, *lines])
    return "\n".join([first, "|" + "---|" * len(head), *rest])


def margin(errors: Sequence[float | None]) -> float | None:
    """Return half the width of the 95 % interval of the mean of independent values, from their standard errors.

    None if one is not known (for classes of fewer than four images).
    """
    if None in errors:
        return None
    return 1.96 * float(np.sqrt(np.sum(np.square(errors)))) / len(errors)


def _recipe(entry: Json) -> tuple[str, str]:
    return entry["network"], entry["regime"]


def _all(results: Iterable[Json], part: str) -> list[Json]:
    return [entry for result in results for entry in result[part]]


def _mean_figure(found: list[Json], whose: str) -> str:
    mean = _mean(figure[whose]["value"] for figure in found)
    half = margin([figure[whose]["error"] for figure in found]) if found[0]["metric"] == "kid" else None
    return mean if half is None else f"{mean} ± {words.figure(half)}"


def _mean(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return words.figure(float(np.mean(known))) if known else words.DASH


def _number(value: float, metric: str) -> str:
    # A plain space, since Markdown files are read as text too.
    return words.value(value, metric).replace(words.SPACE, " ")


def _estimate(entry: Json | None, metric: str) -> str:
    if entry is None or entry["value"] is None:
        return ""
    value = _number(entry["value"], metric)
    # Resamples that are all equal, such as those without errors, give no interval.
    if entry["low"] is None or entry["low"] == entry["high"]:
        return value
    return f"{value} [{words.bounds(entry['low'], entry['high'], metric)}]"


def _beyond(entry: Json | None, metric: str) -> str:
    if entry is None:
        return ""
    value = words.signed(entry["difference"], metric)
    if entry["low"] == entry["high"]:
        return value
    return f"{value} [{words.signed_bounds(entry['low'], entry['high'], metric)}]"

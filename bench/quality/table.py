"""Tables in Markdown, from a stored result."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bench.quality import protocol
from bench.quality.inner import OUTER
from jobs.report import words
from jobs.report.words import NETWORKS

NAMES = {
    "majority": "always the larger class",
    "file-only": "a forest that sees only file size, width, height, aspect and border",
    "nearest-pixels": "1-NN on pixels",
    "phantoms": "phantoms alone: {} before it saw any image",
    "hog": "histograms of oriented gradients (128 px), logistic regression",
    "permuted": "labels permuted by group",
    "leaky": "a split that ignores groups, on the {} images that share one",
}
SHOWN = ("accuracy", "balanced_accuracy", "roc_auc")
DRAWN = ("kid", "precision", "recall", "density", "coverage")
Json = dict[str, Any]


def markdown(*results: Json) -> str:
    """Return the accuracies of results on the same folds (see docs/report.md for their parts) as a Markdown table."""
    lines = ["| network | trained on | accuracy | balanced accuracy | ROC-AUC |", "|---|---|---|---|---|"]
    rows: dict[tuple[str, str], dict[str, Json]] = {}
    for entry in _all(results, "results"):
        key = (NETWORKS[entry["network"]], words.REGIMES[entry["regime"]])
        rows.setdefault(key, {})[entry["metric"]] = entry
    for result in results:
        network = NETWORKS[result["settings"]["networks"][0]]
        for entry in result["controls"]["results"] + result["baselines"]:
            key = ("*control*", NAMES[entry["control"]].format(network))
            rows.setdefault(key, {})[entry["metric"]] = entry
    for entry in (entry for result in results for entry in result["controls"]["checks"]):
        key = (f"{NETWORKS[entry['network']]}, *control*", NAMES[entry["check"]].format(entry["n"]))
        rows.setdefault(key, {})[entry["metric"]] = entry
    for (network, regime), metrics in rows.items():
        shown = [_estimate(metrics.get(metric), metric) for metric in SHOWN]
        lines.append("| " + " | ".join([network, regime, *shown]) + " |")
    return "\n".join(lines)


def differences(*results: Json) -> str:
    """Return how accuracy differs between regimes of one network, a line for each pair."""
    lines = []
    for entry in _all(results, "comparisons"):
        first, second = entry["first"], entry["second"]
        if entry["metric"] == "accuracy" and first["network"] == second["network"]:
            regimes = " minus ".join(words.REGIMES[one["regime"]] for one in (second, first))
            lines.append(f"- {NETWORKS[first['network']]}, {regimes}: {_beyond(entry, 'accuracy')}")
    return "\n".join(lines)


def closer(*results: Json) -> str:
    """Return what bench.quality.closer found, as a Markdown table."""
    lines = []
    for found in (result["closer"] for result in results):
        for entry in found["seeds"]:
            one = {name: entry[name] for name in ("network", "regime")}
            [apart] = [x for x in found["untouched"] if one.items() <= x.items() and x["metric"] == "accuracy"]
            [beyond] = [x for x in found["beyond"] if one.items() <= x.items()]
            by_seed = ", ".join(words.number(x, "accuracy").replace(words.SPACE, " ") for x in entry["accuracy"])
            names = NETWORKS[one["network"]], words.REGIMES[one["regime"]]
            lines.append([*names, _estimate(apart, "accuracy"), by_seed, _beyond(beyond, beyond["metric"])])
    head = [
        "network",
        "trained on",
        f"accuracy on fold {OUTER} alone, {results[0]['closer']['untouched'][0]['n']} images",
        "on all, seed by seed",
        "balanced accuracy beyond histograms of gradients, points",
    ]
    return render(head, lines)


def generators(result: Json) -> str:
    """Return how good the synthetic images of each class are, means over the folds, as a Markdown table.

    KID has its 95 % interval, folds taken for independent.
    """
    head = [
        "class",
        "held-out images of a fold",
        *(f"{words.QUALITY[metric]} (*real*)" for metric in DRAWN),
        "copies (*real*)",
        "near-duplicates",
        "distance",
    ]
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
    """Return the accuracies of what bench.quality.ablate found, each beside the reference's, as a Markdown table."""
    than = f"more than {protocol.REFERENCE}"
    head = ["variant", "trained on", "accuracy", f"points {than}", "ROC-AUC", than]
    lines = []
    for name, one in found.items():
        for network, regime in dict.fromkeys((x["network"], x["regime"]) for x in one["results"]):
            line = [name, words.REGIMES[regime]]
            for entry in (x for x in one["results"] if (x["network"], x["regime"]) == (network, regime)):
                line += [_estimate(entry, entry["metric"]), _beyond(entry.get("beyond"), entry["metric"])]
            lines.append(line)
    return render(head, lines)


def ablated_images(found: Json) -> str:
    """Return how good each variant's synthetic images are, as a Markdown table; those of the same generators once."""
    head = ["variant", "KID", "coverage", "recall", "copies", "distance"]
    lines, seen = [], []
    for name, one in found.items():
        quality = one["quality"]
        if quality and quality not in seen:
            seen.append(quality)
            figures = [_estimate(quality[metric], metric) for metric in ("kid", "coverage", "recall")]
            lines.append([name, *figures, *(words.figure(quality[metric]) for metric in ("copies", "distance"))])
    return render(head, lines)


def render(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return cells as a Markdown table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])


def margin(errors: Sequence[float | None]) -> float | None:
    """Return half the 95 % interval of the mean of independent values; None if a standard error is not known."""
    known = [error for error in errors if error is not None]
    # With fewer than four images of a class there is none.
    return 1.96 * float(np.sqrt(np.sum(np.square(known)))) / len(known) if len(known) == len(errors) else None


def _all(results: Iterable[Json], part: str) -> list[Json]:
    return [entry for result in results for entry in result[part]]


def _mean_figure(found: list[Json], whose: str) -> str:
    mean = _mean(figure[whose]["value"] for figure in found)
    half = margin([figure[whose]["error"] for figure in found]) if found[0]["metric"] == "kid" else None
    return mean if half is None else f"{mean} ± {words.figure(half)}"


def _mean(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return words.figure(float(np.mean(known))) if known else words.DASH


def _estimate(entry: Json | None, metric: str) -> str:
    if entry is None or entry["value"] is None:
        return ""
    # A Markdown file is read as text too: a plain space there.
    value = words.number(entry["value"], metric).replace(words.SPACE, " ")
    # Draws that are all alike, as where nothing was read wrong, say nothing of the error.
    if entry["low"] is None or entry["low"] == entry["high"]:
        return value
    return f"{value} [{words.bounds(entry['low'], entry['high'], metric)}]"


def _beyond(entry: Json | None, metric: str) -> str:
    if entry is None:
        return ""
    if entry["low"] == entry["high"]:
        return words.signed(entry["difference"], metric)
    bounds = words.signed_bounds(entry["low"], entry["high"], metric)
    return f"{words.signed(entry['difference'], metric)} [{bounds}]"

"""report.html: one self-contained file without scripts and external resources."""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import jinja2
from markupsafe import Markup, escape

from jobs.report import words
from jobs.report.exhibits import Exhibits

Json = dict[str, Any]
SMALL_CLASS = 10  # groups; with fewer, intervals are unreliable


def render(report: Json, exhibits: Exhibits, metrics: Mapping[str, Any], bins: int) -> str:
    """Return the HTML page for the content of report.json; the same content gives the same bytes.

    metrics: title, higher_is_better and meaning of each metric; bins: number of bins of the calibration error.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jobs.report", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["svg"] = Markup
    environment.filters["keep"] = _kept_together
    return environment.get_template("report.html").render(
        report=report,
        exhibits=exhibits,
        words=words,
        metrics=metrics,
        bins=bins,
        headline=headline(report),
        phantoms=learns_phantoms(report),
        tables=[_table(report, network) for network in report["settings"]["networks"]],
        comparisons=_comparisons(report),
        controls=_controls(report),
        confusion=_confusion(report),
        quality=_quality(report),
        cost=_cost(report),
        caveats=caveats(report),
        classes=_listed([row["label"] for row in report["dataset"]["labels"]]),
    )


def headline(report: Json) -> list[str]:
    """The result in sentences: one for each network, and the accuracy of the majority-class control."""
    found = {(row["network"], row["regime"], row["metric"]): row for row in report["results"]}
    phantoms = "phantoms and " * learns_phantoms(report)
    sentences = []
    for network in report["settings"]["networks"]:
        clauses: list[str] = []
        for regime in report["settings"]["regimes"]:
            row = found[network, regime, "accuracy"]
            value, interval = words.value(row["value"], "accuracy"), words.bounds(row["low"], row["high"], "accuracy")
            result = f"{value} [{interval}]"
            if not clauses:
                result = f"accuracy {result} on {row['n']} held-out real images"
            clauses.append(f"trained on {phantoms}{words.TRAINED_ON[regime]}: {result}")
        sentences.append(f"{words.NETWORK_NAMES[network]}, {'; '.join(clauses)}.")
    larger = "larger" if len(report["dataset"]["labels"]) == 2 else "largest"
    majority = next(
        row for row in report["controls"]["results"] if (row["control"], row["metric"]) == ("majority", "accuracy")
    )
    sentences.append(
        f"Always predicting the {larger} class gives an accuracy of {words.value(majority['value'], 'accuracy')}."
    )
    if report["selected"]["candidates"] > 1:
        sentences.append(choice(report["selected"]))
    return sentences


def choice(selected: Json) -> str:
    """The network and regime that promotion selects, and their metric with and without selection bias."""
    metric = selected["metric"]
    plain, corrected = (words.value(selected[name], metric) for name in ("value", "corrected"))
    change = None if selected["luck"] is None else -selected["luck"]
    return (
        f"Selected for promotion: {words.NETWORK_NAMES[selected['network']]}, trained on "
        f"{words.TRAINED_ON[selected['regime']]}. It has the highest balanced accuracy of {selected['candidates']} "
        f"classifiers, {plain}. This value is optimistic, since it is the highest of several on the same images. "
        f"Corrected for this selection bias, it is {corrected} "
        f"[{words.bounds(selected['low'], selected['high'], metric)}], a change of {words.signed(change, metric)} "
        "points."
    )


def learns_phantoms(report: Json) -> bool:
    """Whether the classifiers were trained on phantoms in addition to their images."""
    return bool(report["recipe"]["train-classifier"].get("healthy"))


def caveats(report: Json) -> list[str]:
    """The limitations of the results."""
    about, settings = report["dataset"], report["settings"]
    found = []
    patients = about.get("patients", "none")
    if patients != "all":
        found.append(
            f"{'Some' if patients == 'some' else 'The'} files do not identify the patient. Near-duplicates were kept "
            "in one fold, but other slices of one head may be both in the training images and in the held-out images. "
            "All results are then too high."
        )
    if about.get("large_groups"):
        found.append(
            f"The largest group has {about['largest_group']} of {about['images']} images. If these do not show one "
            "person, the grouping was too loose."
        )
    small = [row["label"] for row in about["labels"] if row["groups"] < SMALL_CLASS]
    if small:
        found.append(
            f"Few independent groups (under {SMALL_CLASS}) in {_listed(small)}: intervals based on them are too narrow."
        )
    several = settings["seeds"] > 1
    pretrained = any(row["job"] == "pretrain" for row in report["cost"])
    another = ["seed"] * (not several) + ["generator"] * bool(report["quality"]) + ["pretraining"] * pretrained
    another += ["split", "hospital", "scanner"]
    found.append(
        "An interval shows how much the value varies with other held-out images of the same kind"
        + " and other seeds" * several
        + f". It does not cover the variation with another {', '.join(another)} or disease."
    )
    constant = [x for x in report["confusion"] if sum(any(column) for column in zip(*x["matrix"], strict=True)) == 1]
    if constant:
        names = [f"{words.NETWORK_NAMES[x['network']]} ({words.REGIMES[x['regime']]})" for x in constant]
        found.append(
            f"{_listed(names)} predicted the same class for every image, as an untrained network does. Some intervals "
            "therefore have zero width."
        )
    if any(row["metric"] == "accuracy" and row["low"] == row["high"] == 1 for row in report["results"]):
        found.append(
            "Without any error, all bootstrap samples agree and the interval has zero width. With "
            f"{about['groups']} groups the true error rate may still be "
            f"{words.value(3 / about['groups'], 'accuracy')} (rule of three)."
        )
    lost = max((row["undefined"] for row in report["results"]), default=0)
    if lost:
        found.append(
            f"Up to {lost} of {settings['resamples']} bootstrap samples did not contain all classes and were excluded "
            "from an interval."
        )
    found.extend(report["selection"])
    features = {quality["features"]["name"] for quality in report["quality"] if "features" in quality}
    if any("random" in name for name in features):
        found.append(
            "The quality of synthetic images is measured with features of random, untrained networks. Compare the "
            "values only with the values of real images in the same table, not with published values."
        )
    found.append(
        "The calibration error is never negative, so its interval tends to lie above the value when images are few."
    )
    found.append(
        "All comparisons use the same held-out images: the best of many results is optimistic (selection bias)."
    )
    return found


def _table(report: Json, network: str) -> Json:
    rows: dict[str, Json] = defaultdict(dict)
    for row in report["results"]:
        if row["network"] == network:
            rows[row["metric"]][row["regime"]] = row
    return {"network": network, "rows": dict(rows)}


def _comparisons(report: Json) -> list[Json]:
    """Comparisons by pair, each with its metrics."""
    pairs: dict[tuple[str, ...], Json] = {}
    for row in report["comparisons"]:
        first, second = row["first"], row["second"]
        same_network = first["network"] == second["network"]
        names = [
            words.REGIMES[x["regime"]] if same_network else words.NETWORK_NAMES[x["network"]] for x in (second, first)
        ]
        within = (
            words.NETWORK_NAMES[first["network"]] if same_network else f"trained on {words.REGIMES[first['regime']]}"
        )
        networks = report["settings"]["networks"]
        place = networks.index(first["network"]) if same_network else len(networks)
        pair = pairs.setdefault((*names, within), {"names": names, "within": within, "place": place, "metrics": {}})
        pair["metrics"][row["metric"]] = row
    # Those of one network first, in the order of the networks.
    return sorted(pairs.values(), key=lambda pair: pair["place"])


def _controls(report: Json) -> list[Json]:
    """Controls with their metrics, and the difference of each recipe to them."""
    found: dict[str, Json] = {}
    for row in report["controls"]["results"]:
        found.setdefault(row["control"], {"control": row["control"], "metrics": {}, "beyond": []})
        found[row["control"]]["metrics"][row["metric"]] = row
    for row in report["controls"]["beyond"]:
        found[row["control"]]["beyond"].append(row)
    return list(found.values())


def _confusion(report: Json) -> list[Json]:
    """Confusion matrices with the share of each row, 0 to 1, beside the counts."""
    found = []
    for entry in report["confusion"]:
        rows = [[(count, count / max(1, sum(row))) for count in row] for row in entry["matrix"]]
        found.append(
            {"title": f"{words.NETWORK_NAMES[entry['network']]}, {words.REGIMES[entry['regime']]}", "rows": rows}
        )
    return found


def _quality(report: Json) -> list[Json]:
    """For each class the quality figures and the share of copies, averaged over folds."""
    by_label: dict[str, list[Json]] = defaultdict(list)
    for entry in report["quality"]:
        by_label[entry["label"]].append(entry)
    found = []
    for label, entries in by_label.items():
        figures: dict[str, Json] = {}
        for entry in entries:
            for row in entry.get("figures", []):
                values = figures.setdefault(row["metric"], {"better": row.get("better"), "generated": [], "real": []})
                for which in ("generated", "real"):
                    if row.get(which):
                        values[which].append(row[which]["value"])
        means = {
            metric: {"better": x["better"], "generated": _mean(x["generated"]), "real": _mean(x["real"])}
            for metric, x in figures.items()
        }
        memories = [entry["memorization"] for entry in entries if entry.get("memorization")]
        memory = {
            name: {which: _mean([m.get(name, {}).get(which) for m in memories]) for which in ("generated", "real")}
            for name in ("copies", "near_duplicates", "distance")
        }
        suspicious = sum(bool(m.get("suspicious")) for m in memories)
        found.append(
            {"label": label, "folds": len(entries), "figures": means, "memory": memory, "suspicious": suspicious}
        )
    return found


def _cost(report: Json) -> list[Json]:
    """Jobs by kind (and network): how many, seconds each, seconds in all."""
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in report["cost"]:
        groups[row["job"], words.NETWORK_NAMES.get(row.get("network", ""), "")].append(row["seconds"])
    return [
        {"job": job, "detail": detail, "count": len(x), "mean": sum(x) / len(x), "total": sum(x)}
        for (job, detail), x in sorted(groups.items(), key=lambda item: list(words.JOB_NAMES).index(item[0][0]))
    ]


def _kept_together(text: str) -> Markup:
    """Text whose intervals are not broken over two lines."""
    return Markup(re.sub(r"(\[[^\]]*\])", r'<span class="keep">\1</span>', str(escape(text))))


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

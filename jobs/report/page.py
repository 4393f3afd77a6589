"""report.html: one file that asks for nothing from outside and needs no script."""

import re
from collections import defaultdict
from typing import Any

import jinja2
from markupsafe import Markup, escape

from jobs.classifier.controls import FILE_FEATURES
from jobs.classifier.metrics import BINS, METRICS
from jobs.report import words
from jobs.report.exhibits import Exhibits

Json = dict[str, Any]
SMALL_CLASS = 10  # groups; an interval from fewer is a guess


def render(report: Json, exhibits: Exhibits) -> str:
    """Return the page of report.json's content; the same content gives the same bytes."""
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
        metrics=METRICS,
        bins=BINS,
        file_features=FILE_FEATURES,
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
    """The result in sentences: one for each network, and what always answering the largest class gives."""
    found = {(row["network"], row["regime"], row["metric"]): row for row in report["results"]}
    phantoms = "phantoms and " * learns_phantoms(report)
    sentences = []
    for network in report["settings"]["networks"]:
        clauses: list[str] = []
        for regime in report["settings"]["regimes"]:
            row = found[network, regime, "accuracy"]
            value, interval = words.number(row["value"], "accuracy"), words.bounds(row["low"], row["high"], "accuracy")
            what = f"of {row['n']} held-out real images right" if not clauses else ""
            reads = f"reads {value} [{interval}] {what}" if not clauses else f"{value} [{interval}]"
            clauses.append(f"trained on {phantoms}{words.TRAINED_ON[regime]}, {reads}")
        sentences.append(f"{words.NETWORKS[network]}, {'; '.join(clauses)}.")
    larger = "larger" if len(report["dataset"]["labels"]) == 2 else "largest"
    majority = next(
        row for row in report["controls"]["results"] if (row["control"], row["metric"]) == ("majority", "accuracy")
    )
    sentences.append(
        f"Always answering the {larger} class is right for {words.number(majority['value'], 'accuracy')} of them."
    )
    if report["selected"]["candidates"] > 1:
        sentences.append(choice(report["selected"]))
    return sentences


def choice(selected: Json) -> str:
    """Which network and regime promotion takes, and their figure with and without the luck of the choice."""
    metric = selected["metric"]
    plain, corrected = (words.number(selected[name], metric) for name in ("value", "corrected"))
    change = None if selected["luck"] is None else -selected["luck"]
    return (
        f"Promotion takes {words.NETWORKS[selected['network']]}, trained on {words.TRAINED_ON[selected['regime']]}: of "
        f"{selected['candidates']} classifiers it has the highest balanced accuracy, {plain}. The highest of several "
        f"on the same images is partly luck. Corrected for that it is {corrected} "
        f"[{words.bounds(selected['low'], selected['high'], metric)}], a change of {words.signed(change, metric)} "
        "points."
    )


def learns_phantoms(report: Json) -> bool:
    """Whether the classifiers learned drawn heads beside their images."""
    return bool(report["recipe"]["train-classifier"].get("healthy"))


def starts_from_phantoms(report: Json) -> bool:
    """Whether the classifiers learned drawn heads before they saw an image."""
    recipe = report["recipe"]["train-classifier"]
    return learns_phantoms(report) and recipe["phantom_epochs"] > 0 and recipe["classifier_weights"] == "none"


def caveats(report: Json) -> list[str]:
    """What a reader must know before believing the numbers."""
    about, settings = report["dataset"], report["settings"]
    found = []
    patients = about.get("patients", "none")
    if patients != "all":
        found.append(
            f"Independence of patients cannot be shown: {'not all' if patients == 'some' else 'none'} of the images "
            "say whose they are. Near-duplicates were kept together, but two different slices of one head may stand "
            "on both sides of a split, and would make every figure here too good."
        )
    if about.get("large_groups"):
        found.append(
            f"The largest group has {about['largest_group']} of {about['images']} images. If these are not one person, "
            "the grouping was too loose."
        )
    small = [row["label"] for row in about["labels"] if row["groups"] < SMALL_CLASS]
    if small:
        found.append(
            f"Few independent groups (under {SMALL_CLASS}) in {_listed(small)}: intervals that rest on them are too "
            "narrow."
        )
    several = settings["seeds"] > 1
    another = ["seed"] * (not several) + ["generator"] * bool(report["quality"])
    another += ["pretraining"] * starts_from_phantoms(report) + ["split", "hospital", "scanner"]
    found.append(
        "An interval says how far the value would move with other held-out images of the same kind"
        + " and other seeds" * several
        + f"; what another {', '.join(another)} or disease would change is not in it."
    )
    constant = [x for x in report["confusion"] if sum(any(column) for column in zip(*x["matrix"], strict=True)) == 1]
    if constant:
        names = [f"{words.NETWORKS[x['network']]} ({words.REGIMES[x['regime']]})" for x in constant]
        found.append(
            f"{_listed(names)} gave one and the same answer to every image, as an untrained network does: some of the "
            "intervals have no width for that reason."
        )
    if any(row["metric"] == "accuracy" and row["low"] == row["high"] == 1 for row in report["results"]):
        found.append(
            "Where no error was made every draw agrees and the interval has no width; with "
            f"{about['groups']} groups the true error may still be {words.number(3 / about['groups'], 'accuracy')} "
            "(rule of three)."
        )
    lost = max((row["undefined"] for row in report["results"]), default=0)
    if lost:
        found.append(f"Up to {lost} of {settings['resamples']} draws lost a class and were left out of an interval.")
    found.extend(report["selection"])
    features = {quality["features"]["name"] for quality in report["quality"] if "features" in quality}
    if any("random" in name for name in features):
        found.append(
            "The quality of synthetic images is measured with features of random, untrained networks: good for "
            "comparing with the real-against-real value beside it, not with numbers published elsewhere."
        )
    found.append(
        "The calibration error is never negative, so its interval tends to lie above the value when images are few."
    )
    found.append("The same held-out images served every comparison here; choosing the best of many favours luck.")
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
        names = [words.REGIMES[x["regime"]] if same_network else words.NETWORKS[x["network"]] for x in (second, first)]
        within = words.NETWORKS[first["network"]] if same_network else f"trained on {words.REGIMES[first['regime']]}"
        networks = report["settings"]["networks"]
        place = networks.index(first["network"]) if same_network else len(networks)
        pair = pairs.setdefault((*names, within), {"names": names, "within": within, "place": place, "metrics": {}})
        pair["metrics"][row["metric"]] = row
    # Those of one network first, in the order of the networks.
    return sorted(pairs.values(), key=lambda pair: pair["place"])


def _controls(report: Json) -> list[Json]:
    """Controls with their metrics, and what each recipe has beyond them."""
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
        found.append({"title": f"{words.NETWORKS[entry['network']]}, {words.REGIMES[entry['regime']]}", "rows": rows})
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
        groups[row["job"], words.NETWORKS.get(row.get("network", ""), "")].append(row["seconds"])
    return [
        {"job": job, "detail": detail, "count": len(x), "mean": sum(x) / len(x), "total": sum(x)}
        for (job, detail), x in sorted(groups.items(), key=lambda item: list(words.JOBS).index(item[0][0]))
    ]


def _kept_together(text: str) -> Markup:
    """Text whose intervals are not broken over two lines."""
    return Markup(re.sub(r"(\[[^\]]*\])", r'<span class="keep">\1</span>', str(escape(text))))


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

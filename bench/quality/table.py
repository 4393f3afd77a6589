"""The README's table, from a stored result."""

from typing import Any

from jobs.report import words
from jobs.report.words import NETWORKS

NAMES = {
    "majority": "always the larger class",
    "file-only": "a forest that sees only file size, aspect and border",
    "nearest-pixels": "1-NN on pixels",
    "hog": "histograms of oriented gradients, logistic regression",
    "permuted": "labels permuted by group",
    "leaky": "a split that ignores groups",
}
SHOWN = ("accuracy", "balanced_accuracy", "roc_auc")
Json = dict[str, Any]


def markdown(result: Json) -> str:
    """Return the accuracies of a result (see jobs' docs/report.md for its parts) as a Markdown table."""
    lines = ["| network | trained on | accuracy | balanced accuracy | ROC-AUC |", "|---|---|---|---|---|"]
    rows: dict[tuple[str, str], dict[str, Json]] = {}
    for entry in result["results"]:
        key = (NETWORKS[entry["network"]], words.REGIMES[entry["regime"]])
        rows.setdefault(key, {})[entry["metric"]] = entry
    for entry in result["controls"]["results"] + result["baselines"]:
        rows.setdefault(("*control*", NAMES[entry["control"]]), {})[entry["metric"]] = entry
    for entry in result["controls"]["checks"]:
        rows[f"{NETWORKS[entry['network']]}, *control*", NAMES[entry["check"]]] = {"balanced_accuracy": entry}
    for (network, regime), metrics in rows.items():
        shown = [_estimate(metrics.get(metric), metric) for metric in SHOWN]
        lines.append("| " + " | ".join([network, regime, *shown]) + " |")
    return "\n".join(lines)


def differences(result: Json) -> str:
    """Return how accuracy differs between regimes of one network, a line for each pair."""
    lines = []
    for entry in result["comparisons"]:
        first, second = entry["first"], entry["second"]
        if entry["metric"] == "accuracy" and first["network"] == second["network"]:
            lines.append(
                f"{NETWORKS[first['network']]}: {second['regime']} minus {first['regime']}: "
                f"{words.signed(entry['difference'], 'accuracy')} points "
                f"[{words.signed_bounds(entry['low'], entry['high'], 'accuracy')}]"
            )
    return "\n".join(lines)


def _estimate(entry: Json | None, metric: str) -> str:
    if entry is None or entry["value"] is None:
        return ""
    # A Markdown file is read as text too: a plain space there.
    value = words.number(entry["value"], metric).replace(words.SPACE, " ")
    return value if entry["low"] is None else f"{value} [{words.bounds(entry['low'], entry['high'], metric)}]"

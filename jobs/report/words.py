"""Names of networks, regimes and metrics on the page, and number formats."""

import re
from collections.abc import Iterable
from typing import NamedTuple

DASH, MINUS, SPACE = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"
NETWORK_NAMES = {"mobilenetv2": "MobileNetV2", "resnet152v2": "ResNet152V2"}
REGIMES = {"synthetic": "synthetic", "real": "real", "real+synthetic": "real + synthetic"}
TRAINED_ON = {
    "synthetic": "synthetic images alone",
    "real": "real images",
    "real+synthetic": "real and synthetic images",
}


class Baseline(NamedTuple):
    """A control's short name, and its description."""

    short: str
    does: str


BASELINES = {
    "majority": Baseline("always the largest class", "predicts the most frequent class of the training images"),
    "file-only": Baseline(
        "file properties only",
        "is a random forest on file size, width, height, aspect ratio and border brightness, without other pixels",
    ),
    "nearest-pixels": Baseline(
        "nearest training image",
        "predicts the class of the training image with the highest pixel correlation (1-nearest neighbour)",
    ),
    "phantoms": Baseline("phantoms alone", "is the first network after pretraining on phantoms alone"),
}
QUALITY = {
    "kid": "KID",
    "precision": "Precision",
    "recall": "Recall",
    "density": "Density",
    "coverage": "Coverage",
    "fid": "FID",
}
JOB_NAMES = {
    "train-gan": "train a generator",
    "generate": "generate and evaluate synthetic images",
    "pretrain": "pretrain on phantoms",
    "train-classifier": "train a classifier",
}
# Metrics between 0 and 1 that are shown as percentages.
_PERCENT = {"accuracy", "balanced_accuracy", "sensitivity", "specificity", "f1"}


def value(number: float | None, metric: str) -> str:
    """A metric's value: a percentage with one decimal, or three decimals."""
    if number is None:
        return DASH
    return f"{100 * number:.1f}{SPACE}%" if metric in _PERCENT else f"{number:.3f}"


def bounds(low: float | None, high: float | None, metric: str) -> str:
    """An interval without a unit, which is shown with the value."""
    if low is None or high is None:
        return "no interval"
    if metric in _PERCENT:
        return f"{100 * low:.1f}{DASH}{100 * high:.1f}"
    # A dash beside a minus sign is hard to read.
    return f"{low:.3f}{DASH if low >= 0 else ' to '}{high:.3f}".replace("-", MINUS)


def signed(value: float | None, metric: str) -> str:
    """A difference, with its sign; percentages become points."""
    if value is None:
        return DASH
    # Adding zero turns a rounded -0.0 into 0.0.
    text = f"{round(100 * value, 1) + 0.0:+.1f}" if metric in _PERCENT else f"{round(value, 3) + 0.0:+.3f}"
    return text.replace("-", MINUS)


def signed_bounds(low: float | None, high: float | None, metric: str) -> str:
    """The interval of a difference."""
    return "no interval" if low is None or high is None else f"{signed(low, metric)} to {signed(high, metric)}"


def reading(low: float | None, high: float | None) -> str:
    """The conclusion from the interval of a difference."""
    if low is None or high is None or low <= 0 <= high:
        return "no clear difference"
    return "higher" if low > 0 else "lower"


def duration(seconds: float) -> str:
    """A readable duration: 4.2 s, 12 min 5 s, 3 h 20 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def figure(value: float | None) -> str:
    """A quality figure with three significant digits."""
    if value is None:
        return DASH
    return (f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}").replace("-", MINUS)


def merged(texts: Iterable[str]) -> list[str]:
    """Return texts without repetitions.

    Texts that differ only in their numbers are merged into one, with the smallest and the largest number. A text that
    is the beginning of another text is omitted.
    """
    alike: dict[str, list[list[int]]] = {}
    for text in texts:
        alike.setdefault(re.sub(r"\d+", "{}", text), []).append([int(number) for number in re.findall(r"\d+", text)])
    found = [
        template.format(*(f"{min(x)} to {max(x)}" if min(x) < max(x) else x[0] for x in zip(*numbers, strict=True)))
        for template, numbers in sorted(alike.items())
    ]
    return [one for one in found if sum(other.startswith(one) for other in found) == 1]

"""What things are called on the page, and how numbers are written there."""

import re
from collections.abc import Iterable
from typing import NamedTuple

DASH, MINUS, SPACE = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"
NETWORKS = {"mobilenetv2": "MobileNetV2", "resnet152v2": "ResNet152V2"}
REGIMES = {"synthetic": "synthetic", "real": "real", "real+synthetic": "real + synthetic"}
TRAINED_ON = {
    "synthetic": "synthetic images alone",
    "real": "real images",
    "real+synthetic": "real and synthetic images",
}


class Control(NamedTuple):
    """A control's short name, and what it does."""

    short: str
    does: str


CONTROLS = {
    "majority": Control("always the largest class", "answers the most frequent class of the training images"),
    "file-only": Control(
        "file facts only",
        "is a random forest that sees file size, width, height, aspect and border brightness, no image",
    ),
    "nearest-pixels": Control(
        "nearest training image", "answers the class of the training image whose pixels correlate most (1-NN)"
    ),
    "phantoms": Control("phantoms alone", "is the first network as drawn heads taught it, before it saw any image"),
}
QUALITY = {
    "kid": "KID",
    "precision": "Precision",
    "recall": "Recall",
    "density": "Density",
    "coverage": "Coverage",
    "fid": "FID",
}
JOBS = {
    "train-gan": "train a generator",
    "generate": "draw and judge synthetic images",
    "pretrain": "learn phantoms before any image",
    "train-classifier": "train a classifier",
}
# Of values between 0 and 1, those read as shares.
_PERCENT = {"accuracy", "balanced_accuracy", "sensitivity", "specificity", "f1"}


def number(value: float | None, metric: str) -> str:
    """A metric's value: a percentage with one decimal, or three decimals."""
    if value is None:
        return DASH
    return f"{100 * value:.1f}{SPACE}%" if metric in _PERCENT else f"{value:.3f}"


def bounds(low: float | None, high: float | None, metric: str) -> str:
    """An interval, without the unit that its value already has."""
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
    """What an interval of a difference shows."""
    if low is None or high is None or low <= 0 <= high:
        return "no clear difference"
    return "higher" if low > 0 else "lower"


def duration(seconds: float) -> str:
    """Seconds for people: 4.2 s, 12 min 5 s, 3 h 20 min."""
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

    Those that differ only in their numbers become one, with the smallest and the largest number; one that begins
    another is left out.
    """
    alike: dict[str, list[list[int]]] = {}
    for text in texts:
        alike.setdefault(re.sub(r"\d+", "{}", text), []).append([int(number) for number in re.findall(r"\d+", text)])
    found = [
        template.format(*(f"{min(x)} to {max(x)}" if min(x) < max(x) else x[0] for x in zip(*numbers, strict=True)))
        for template, numbers in sorted(alike.items())
    ]
    return [one for one in found if sum(other.startswith(one) for other in found) == 1]

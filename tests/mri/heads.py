"""A drawn head, and whether a picture that was read shows it."""

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from PIL import Image

from jobs.mri.read import read
from jobs.mri.slices import Slice, Unusable

HEIGHT, WIDTH = 96, 80
# A head's tint, as luminance keeps it: each channel is the head times a number.
TINT = (1.0, 0.9, 0.8)


def a_head(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Return a drawn head, float [height, width]: 0 around it, 0.05 to 1 inside it, without any symmetry."""
    rng = np.random.default_rng(seed)
    y, x = coordinates(height, width)
    tilt, long, short = rng.uniform(-0.3, 0.3), rng.uniform(0.85, 0.95), rng.uniform(0.7, 0.8)
    u, v = x * np.cos(tilt) + y * np.sin(tilt), y * np.cos(tilt) - x * np.sin(tilt)
    radius = np.hypot(u / short, v / long)
    values = np.where(radius > 0.88, 0.85, 0.45)
    for _ in range(9):
        place = np.hypot(x - rng.uniform(-0.4, 0.4), y - rng.uniform(-0.5, 0.5))
        values += rng.uniform(-0.35, 0.4) * np.exp(-((place / rng.uniform(0.06, 0.2)) ** 2) / 2) * (radius < 0.88)
    # One bright place to the lower left, so that no turned or flipped picture passes for this one.
    values += 0.5 * np.exp(-(np.hypot(x + 0.3, y - 0.35) ** 2) / 0.02) * (radius < 0.88)
    values += rng.normal(0, 0.02, values.shape)
    inside = radius < 1
    low, high = np.percentile(values[inside], (0.5, 99.5))
    return np.where(inside, np.clip(0.05 + 0.95 * (values - low) / (high - low), 0.05, 1), 0)


def a_volume(shape: tuple[int, int, int] = (32, 40, 9)) -> np.ndarray:
    """Return a drawn head, float [x, y, z]: of similar size in each slice, and all slices differ."""
    return np.stack([a_head(level, *shape[:2]) for level in range(shape[2])], axis=2)


def coordinates(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates of each pixel, -1 to 1 from edge to edge: down, and to the right."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    return y, x


def outside(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Return bool: the pixels outside the ellipse that touches all four edges, where scanners put padding."""
    return np.hypot(*coordinates(height, width)) > 1


def check(shown: np.ndarray, head: np.ndarray, least: float = 0.99, shape: tuple[int, int] | None = None) -> None:
    """Assert that a picture is the drawn head: with the same position, brightness and contrast.

    `least` is the correlation that it must have. The picture must have the `shape` given, or else the head's.
    """
    shape = shape or head.shape
    assert (shown.dtype, shown.shape) == (np.uint8, shape)
    if shape != head.shape:
        small = Image.fromarray(head.astype(np.float32))
        head = np.asarray(small.resize(shape[::-1], Image.Resampling.BICUBIC))
    low, high = np.percentile(shown, (1, 99))
    assert high - low >= 100, f"hardly any contrast: {low} to {high}"
    assert np.corrcoef(shown.ravel(), head.ravel())[0, 1] >= least


def slices(data: bytes, name: str = "a", rejected: tuple[str, ...] = ()) -> list[Slice]:
    """Return the slices read from `data`; none if it is rejected for a reason in `rejected`."""
    try:
        return read(data, name).slices
    except Unusable as finding:
        if finding.reason in rejected:
            return []
        raise


def examples(count: int) -> settings:
    """Return the settings of a property test: `count` examples, the same in every run, without a time limit."""
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),  # what explains a failure takes longer than all the rest
        suppress_health_check=list(HealthCheck),
    )

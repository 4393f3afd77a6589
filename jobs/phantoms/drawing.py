"""Draws axial slices of heads that resemble brain MRI, without data of any person."""

import numpy as np
from scipy import ndimage

# The kinds of heads; the first ones are the classes of a drawn data set.
KINDS = ("healthy", "lesion", "ring-lesion", "cyst", "border-lesion", "many-lesions")

# Gray values (0 black, 1 white) of scalp, skull, fluid, gray matter, white matter and lesion, by MRI sequence.
SEQUENCES = (
    (0.85, 0.06, 0.10, 0.46, 0.66, 0.95),  # T1 with contrast agent
    (0.60, 0.05, 0.92, 0.55, 0.36, 0.85),  # T2
    (0.66, 0.05, 0.08, 0.56, 0.45, 0.95),  # FLAIR
)


def draw_head(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Return uint8 [height, width], 150 to 260 pixels: a head of one of KINDS, each drawn differently."""
    x, y, radius = coordinates(rng)
    values = SEQUENCES[rng.integers(len(SEQUENCES))]
    scalp, skull, fluid, gray, white, bright = np.array(values) * rng.uniform(0.9, 1.1, 6)

    # From the outside to the inside: each layer is painted over the previous ones.
    image = np.zeros(x.shape)
    edge = 0.98 - rng.uniform(0.02, 0.06)
    skull_edge = edge - rng.uniform(0.025, 0.045)
    image = paint(image, scalp * (1 + 0.15 * noise(image.shape, 6, rng)), 1 - radius)
    image = paint(image, skull, edge - radius)
    image = paint(image, fluid, skull_edge - radius)
    brain = skull_edge - rng.uniform(0.012, 0.03) - radius
    image = paint(image, gray, brain)

    # Folds: white matter extends into gray matter along smooth random lines, with fluid between the folds.
    lines = np.abs(noise(image.shape, rng.uniform(4.0, 5.5), rng))
    fade = np.maximum(brain - rng.uniform(0.10, 0.16), 0)
    image = paint(image, white, np.minimum(brain - 0.035, 0.16 * lines - 0.07 + 0.6 * fade))
    image = paint(image, fluid, np.where(brain > -0.01, 0.022 - 0.16 * lines - 0.25 * fade, -1))
    fissure = 0.008 + 0.012 * np.abs(y) ** 3 - np.abs(x + 0.012 * np.sin(5 * y + rng.uniform(0, 6)))
    image = paint(image, fluid, np.where((brain > 0) & (np.abs(y) > 0.32), fissure, -1))

    # Deep gray matter, then the ventricles: a front and a back horn on each side.
    size, tilt, shift = rng.uniform(0.75, 1.35), rng.uniform(0.2, 0.45), rng.uniform(-0.06, 0.06)
    for side in (-1, 1):
        own = size * rng.uniform(0.9, 1.1)
        image = paint(image, 0.5 * (gray + white), ellipse(x, y, side * 0.20, 0.02 + shift, 0.10, 0.16, -side * 0.4))
        front = ellipse(x, y, side * 0.095, -0.20 + shift, 0.050 * own, 0.16 * own, side * tilt)
        back = ellipse(x, y, side * 0.16, 0.24 + shift, 0.048 * own, 0.19 * own, -side * (tilt + 0.15))
        image = paint(image, fluid, np.maximum(front, back))
    image = paint(image, fluid, ellipse(x, y, 0, 0.04 + shift, 0.018 * size, 0.10, 0))

    image = _with_lesion(image, kind, x, y, brain, fluid, bright, rng)
    return scanned(image, x, y, rng)


def _with_lesion(
    image: np.ndarray,
    kind: str,
    x: np.ndarray,
    y: np.ndarray,
    brain: np.ndarray,
    fluid: float,
    bright: float,
    rng: np.random.Generator,
) -> np.ndarray:
    if kind == "healthy":
        return image
    for _ in range(int(rng.integers(4, 7)) if kind == "many-lesions" else 1):
        size = rng.uniform(0.05, 0.08) if kind == "many-lesions" else rng.uniform(0.13, 0.22)
        angle = rng.uniform(-0.9, 0.9) + (0 if rng.random() < 0.5 else np.pi)
        distance = 0.80 - 0.4 * size if kind == "border-lesion" else rng.uniform(0.36, 0.56)
        centre_x, centre_y = 0.8 * distance * np.cos(angle), distance * np.sin(angle)
        outline = 0.03 * noise(image.shape, 12, rng)
        lesion = ellipse(x, y, centre_x, centre_y, size, size * rng.uniform(0.75, 1.3), rng.uniform(0, 3)) + outline
        inside = brain > -0.02
        if kind in ("lesion", "ring-lesion", "many-lesions"):
            # Swelling around the lesion, soft at its rim and larger toward one side.
            swelling = np.clip((lesion + 0.14 + 0.10 * noise(image.shape, 14, rng)) / 0.14, 0, 1) * inside
            image = image + swelling * 0.45 * (0.7 * bright - image)
        value = fluid * 0.8 if kind == "cyst" else bright * (1 + 0.08 * noise(image.shape, 5, rng))
        image = paint(image, value, np.where(inside, lesion, -1))
        if kind == "ring-lesion":
            image = paint(image, 0.25 * bright, np.where(inside, lesion - 0.45 * size, -1))
    return image


def coordinates(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x and y in a turned and shifted head, and the distance from its centre (1 at the skin).

    Each is float64 [height, width], 150 to 260 pixels.
    """
    height, width = (int(side) for side in rng.integers(190, 261, 2) * (1.0, 0.85))
    rows, columns = np.mgrid[:height, :width]
    turn = rng.normal(0, 0.06)
    length = height * rng.uniform(0.42, 0.47)
    breadth = min(width * 0.47, length * rng.uniform(0.74, 0.88))
    row = rows - height * (0.5 + rng.uniform(-0.02, 0.02))
    column = columns - width * (0.5 + rng.uniform(-0.02, 0.02))
    y = (np.cos(turn) * row - np.sin(turn) * column) / length
    x = (np.sin(turn) * row + np.cos(turn) * column) / breadth
    angle = np.arctan2(y, x)
    outline = 1 + 0.03 * np.sin(angle) * rng.uniform(0, 1)  # the back of the head is wider
    for wave in (2, 3, 4, 5):
        outline = outline + rng.normal(0, 0.022 / wave) * np.cos(wave * angle + rng.uniform(0, 6.3))
    return x, y, np.hypot(x, y) / outline


def ellipse(
    x: np.ndarray, y: np.ndarray, centre_x: float, centre_y: float, half_x: float, half_y: float, turn: float
) -> np.ndarray:
    """Return the approximate distance from the edge of a turned ellipse, positive inside, negative outside."""
    dx, dy = x - centre_x, y - centre_y
    u, v = np.cos(turn) * dx + np.sin(turn) * dy, np.cos(turn) * dy - np.sin(turn) * dx
    return (1 - np.hypot(u / half_x, v / half_y)) * min(half_x, half_y)


def paint(image: np.ndarray, value: float | np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return `image` with `value` where `inside` (a distance) is positive; the soft edge is about two pixels wide."""
    cover = np.clip(inside / 0.016 + 0.5, 0, 1)
    return image + cover * (value - image)


def noise(shape: tuple[int, ...], grain: float, rng: np.random.Generator) -> np.ndarray:
    """Return smooth noise of unit variance, with structures about `grain` pixels wide."""
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), grain, mode="wrap")
    return smooth / smooth.std()


def scanned(image: np.ndarray, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return uint8 `image` with the effects of a scanner: blur, a brightness gradient and Rician noise."""
    image = ndimage.gaussian_filter(image, rng.uniform(0.5, 0.8))
    slope_x, slope_y = rng.normal(0, 0.06, 2)
    image = image * (1 + slope_x * x + slope_y * y) * rng.uniform(0.8, 1.0)
    level = rng.uniform(0.012, 0.03)
    real, imaginary = rng.normal(0, level, (2, *image.shape))
    return np.rint(255 * np.clip(np.hypot(image + real, imaginary), 0, 1)).astype(np.uint8)

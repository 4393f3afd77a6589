"""Draws axial slices of heads that resemble brain MRI, without data of any person."""

import math

import numpy as np

from jobs.phantoms.painting import Plane, coordinates, ellipse, noise, paint, paint_ellipses, paint_fissure, scanned

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
    plane, radius = coordinates(rng)
    values = SEQUENCES[rng.integers(len(SEQUENCES))]
    scalp, skull, fluid, gray, white, bright = (np.array(values) * rng.uniform(0.9, 1.1, 6)).tolist()

    # From the outside to the inside: each layer is painted over the previous ones.
    image = np.zeros_like(radius)
    edge = 0.98 - rng.uniform(0.02, 0.06)
    skull_edge = edge - rng.uniform(0.025, 0.045)
    paint(image, scalp * (1 + 0.15 * noise(image.shape, 6, rng)), 1 - radius)
    paint(image, skull, edge - radius)
    paint(image, fluid, skull_edge - radius)
    brain = skull_edge - rng.uniform(0.012, 0.03) - radius
    paint(image, gray, brain)

    # Folds: white matter extends into gray matter along smooth random lines, with fluid between the folds.
    lines = np.abs(noise(image.shape, rng.uniform(4.0, 5.5), rng))
    fade = np.maximum(brain - rng.uniform(0.10, 0.16), 0)
    paint(image, white, np.minimum(brain - 0.035, 0.16 * lines - 0.07 + 0.6 * fade))
    paint(image, fluid, np.where(brain > -0.01, 0.022 - 0.16 * lines - 0.25 * fade, -1))
    paint_fissure(image, fluid, plane, brain, 0.008, rng.uniform(0, 6), 0.32)

    # Deep gray matter, then the ventricles: a front and a back horn on each side.
    size, tilt, shift = rng.uniform(0.75, 1.35), rng.uniform(0.2, 0.45), rng.uniform(-0.06, 0.06)
    for side in (-1, 1):
        own = size * rng.uniform(0.9, 1.1)
        paint_ellipses(image, 0.5 * (gray + white), plane, [(side * 0.20, 0.02 + shift, 0.10, 0.16, -side * 0.4)])
        front = (side * 0.095, -0.20 + shift, 0.050 * own, 0.16 * own, side * tilt)
        back = (side * 0.16, 0.24 + shift, 0.048 * own, 0.19 * own, -side * (tilt + 0.15))
        paint_ellipses(image, fluid, plane, [front, back])
    paint_ellipses(image, fluid, plane, [(0, 0.04 + shift, 0.018 * size, 0.10, 0)])

    _paint_lesions(image, kind, plane, brain, fluid, bright, rng)
    return scanned(image, plane, rng)


def _paint_lesions(
    image: np.ndarray,
    kind: str,
    plane: Plane,
    brain: np.ndarray,
    fluid: float,
    bright: float,
    rng: np.random.Generator,
) -> None:
    if kind == "healthy":
        return
    for _ in range(int(rng.integers(4, 7)) if kind == "many-lesions" else 1):
        size = rng.uniform(0.05, 0.08) if kind == "many-lesions" else rng.uniform(0.13, 0.22)
        angle = rng.uniform(-0.9, 0.9) + (0 if rng.random() < 0.5 else np.pi)
        distance = 0.80 - 0.4 * size if kind == "border-lesion" else rng.uniform(0.36, 0.56)
        centre = 0.8 * distance * math.cos(angle), distance * math.sin(angle)
        outline = 0.03 * noise(image.shape, 12, rng)
        lesion = ellipse(plane.x, plane.y, *centre, size, size * rng.uniform(0.75, 1.3), rng.uniform(0, 3)) + outline
        inside = brain > -0.02
        if kind in ("lesion", "ring-lesion", "many-lesions"):
            # Swelling around the lesion, soft at its rim and larger toward one side.
            swelling = np.clip((lesion + 0.14 + 0.10 * noise(image.shape, 14, rng)) / 0.14, 0, 1) * inside
            image += swelling * 0.45 * (0.7 * bright - image)
        value = fluid * 0.8 if kind == "cyst" else bright * (1 + 0.08 * noise(image.shape, 5, rng))
        paint(image, value, np.where(inside, lesion, -1))
        if kind == "ring-lesion":
            paint(image, 0.25 * bright, np.where(inside, lesion - 0.45 * size, -1))

"""Draws heads with highly variable tissues, anatomy and lesions for training; they need not be realistic.

A network trained on many contrasts and shapes generalizes to new ones (domain randomization: Billot et al.,
"SynthSeg", Medical Image Analysis 2023, https://arxiv.org/abs/2107.09559).
"""

import math
from typing import NamedTuple

import numpy as np

from jobs.phantoms.drawing import SEQUENCES
from jobs.phantoms.painting import (
    Ellipse,
    Plane,
    blurred,
    coordinates,
    ellipse,
    noise,
    paint,
    paint_ellipses,
    paint_fissure,
    scanned,
)

LESIONS = {"solid": 0.4, "ring": 0.3, "mixed": 0.2, "cyst": 0.1}  # probability of each kind


class Tissues(NamedTuple):
    """Gray values of a head's tissues, 0 black, 1 white."""

    scalp: float
    skull: float
    fluid: float
    gray: float
    white: float


def draw_randomized(lesion: bool, rng: np.random.Generator) -> np.ndarray:
    """Return uint8 [height, width], 150 to 260 pixels: a head without lesions, or the same with one or a few."""
    for_lesions = rng.spawn(1)[0]
    plane, radius = coordinates(rng)
    tissues = _tissues(rng)
    image = np.full_like(radius, rng.uniform(0, 0.12) if rng.random() < 0.2 else 0.0)

    edge = 0.98 - rng.uniform(0.01, 0.09)
    skull_edge = edge - rng.uniform(0.01, 0.05)
    brain = skull_edge - rng.uniform(0.005, 0.04) - radius
    if rng.random() < 0.9:
        paint(image, tissues.scalp * (1 + 0.2 * noise(image.shape, 6, rng)), 1 - radius)
    paint(image, tissues.skull, edge - radius)
    paint(image, tissues.fluid, skull_edge - radius)
    _paint_matter(image, plane, brain, tissues, rng)
    # Inner structures are slightly warped.
    amount = rng.uniform(0, 0.04)
    warped = Plane(*(axis + amount * noise(image.shape, rng.uniform(15, 40), rng) for axis in (plane.x, plane.y)))
    _paint_structures(image, warped, brain > -0.02, tissues, rng)
    _paint_outer_structures(image, plane, brain > -0.02, tissues, rng)
    if rng.random() < 0.5:
        _paint_spots(image, plane, brain, rng)
    for _ in range(for_lesions.geometric(0.8) if lesion else 0):
        _paint_lesion(image, plane, brain, for_lesions)
    return scanned(image, plane, rng, rng.uniform(0, 1.2))


def _tissues(rng: np.random.Generator) -> Tissues:
    """Return the gray values of an MRI sequence, or random gray values that are distinguishable."""
    if rng.random() < 0.4:
        values = SEQUENCES[rng.integers(len(SEQUENCES))][:5]
        return Tissues(*(np.array(values) * rng.uniform(0.85, 1.15, 5)).tolist())
    while True:
        scalp, fluid, gray, white = rng.uniform(0.05, 0.95, 4).tolist()
        if 0.04 < abs(gray - white) < 0.4 and abs(fluid - gray) > 0.12:
            return Tissues(scalp, rng.uniform(0.02, 0.3), fluid, gray, white)


def _grainy(value: float, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    return value * (1 + rng.uniform(0, 0.1) * noise(shape, rng.uniform(2, 10), rng))


def _paint_matter(
    image: np.ndarray, plane: Plane, brain: np.ndarray, tissues: Tissues, rng: np.random.Generator
) -> None:
    """Paint gray matter, folded white matter, and fluid between the folds and the hemispheres."""
    _, _, fluid, gray, white = tissues
    paint(image, _grainy(gray, image.shape, rng), brain)
    lines = np.abs(noise(image.shape, rng.uniform(3.5, 7), rng))
    fade = np.maximum(brain - rng.uniform(0.05, 0.25), 0)
    paint(image, _grainy(white, image.shape, rng), np.minimum(brain - 0.035, 0.16 * lines - 0.07 + 0.6 * fade))
    furrows = rng.uniform(0, 0.03) - 0.16 * lines - rng.uniform(0.1, 0.4) * fade
    paint(image, fluid, np.where(brain > -0.01, furrows, -1))
    if rng.random() < 0.85:
        phase, half, gap = rng.uniform(0, 6), rng.uniform(0.002, 0.012), rng.uniform(0, 0.45)
        paint_fissure(image, fluid, plane, brain, half, phase, gap)


def _paint_structures(
    image: np.ndarray, plane: Plane, inside: np.ndarray, tissues: Tissues, rng: np.random.Generator
) -> None:
    """Paint inner structures of a healthy brain: in pairs or on the midline, mostly ventricles."""
    _, _, fluid, gray, white = tissues

    def some_value() -> float:
        values = [fluid, gray, white, (gray + white) / 2, rng.uniform(0.05, 0.95)]
        return float(rng.choice(values)) * rng.uniform(0.85, 1.15)

    def add(value: float, *shape: float) -> None:
        paint_ellipses(image, value, plane, [shape], inside)

    for _ in range(rng.integers(0, 6)):
        value, turn = some_value(), rng.uniform(0, 3)
        centre_x, centre_y = rng.uniform(0.1, 0.7), rng.uniform(-0.75, 0.75)
        halves = rng.uniform(0.03, 0.2, 2)
        for side in (-1, 1):
            shift_x, shift_y = rng.normal(0, 0.015, 2).tolist()
            own = (halves * rng.uniform(0.85, 1.15, 2)).tolist()
            shape = (side * centre_x + shift_x, centre_y + shift_y, *own, side * turn)
            add(value * rng.uniform(0.93, 1.07), *shape)
    for _ in range(rng.integers(0, 3)):
        centre_x, centre_y = rng.normal(0, 0.01), rng.uniform(-0.7, 0.8)
        shape = (centre_x, centre_y, rng.uniform(0.02, 0.15), rng.uniform(0.02, 0.2), 0.0)
        add(some_value(), *shape)
    if rng.random() < 0.75:
        size, tilt, shift = rng.uniform(0.6, 1.6), rng.uniform(-0.1, 0.5), rng.uniform(-0.15, 0.15)
        for side in (-1, 1):
            own = size * rng.uniform(0.85, 1.15)
            add((gray + white) / 2, side * 0.2, 0.02 + shift, 0.1, 0.16, -side * 0.4)
            distance = rng.uniform(0.07, 0.12)
            add(fluid, side * distance, -0.2 + shift, 0.05 * own, 0.16 * own, side * tilt)
            if rng.random() < 0.8:
                add(fluid, side * 0.16, 0.24 + shift, 0.048 * own, 0.19 * own, -side * (tilt + 0.15))
        if rng.random() < 0.7:
            add(fluid, 0, 0.04 + shift, 0.018 * size, 0.1, 0)


def _paint_outer_structures(
    image: np.ndarray, plane: Plane, inside: np.ndarray, tissues: Tissues, rng: np.random.Generator
) -> None:
    """Paint structures of lower slices, each with a small probability: eyes, a cerebellum, the base of the skull."""
    _, skull, fluid, gray, white = tissues
    if rng.random() < 0.2:
        value, size = float(rng.choice([fluid, 0.9, 0.3])), rng.uniform(0.1, 0.18)
        centre = rng.uniform(0.35, 0.5), rng.uniform(-0.95, -0.7)
        paint_ellipses(image, skull, plane, _pair(*centre, 1.25 * size, 1.35 * size, 0))
        paint_ellipses(image, value, plane, _pair(*centre, size, size, 0))
    if rng.random() < 0.2:
        leaves = np.where(noise(image.shape, 2.5, rng) > 0, np.float32(white), np.float32(gray))
        shape = (0, rng.uniform(0.5, 0.7), rng.uniform(0.45, 0.7), rng.uniform(0.25, 0.4), 0)
        paint_ellipses(image, leaves, plane, [shape], inside)
    if rng.random() < 0.15:
        value, turn = float(rng.choice([0.02, 0.9, skull])), rng.uniform(0, 3)
        centre = rng.uniform(0.4, 0.8), rng.uniform(-0.3, 0.5)
        paint_ellipses(image, value, plane, _pair(*centre, rng.uniform(0.08, 0.2), rng.uniform(0.08, 0.25), turn))


def _pair(centre_x: float, centre_y: float, half_x: float, half_y: float, turn: float) -> list[Ellipse]:
    """Return an ellipse and its mirror image on the other side of the head."""
    return [(side * centre_x, centre_y, half_x, half_y, side * turn) for side in (-1, 1)]


def _paint_spots(image: np.ndarray, plane: Plane, brain: np.ndarray, rng: np.random.Generator) -> None:
    """Paint small structures that are not lesions: vessels, calcifications, age-related spots in white matter."""
    value = rng.uniform(0.0, 0.3) if rng.random() < 0.3 else rng.uniform(0.5, 1.0)
    places = np.flatnonzero(brain > 0)
    for place in rng.choice(places, rng.integers(1, 9)):
        half_x = rng.uniform(0.01, 0.05)
        half_y = half_x * rng.uniform(0.5, 1)
        shape = (*plane.at(place), half_x, half_y, rng.uniform(0, 3))
        paint_ellipses(image, value * rng.uniform(0.8, 1.2), plane, [shape])


def _paint_lesion(image: np.ndarray, plane: Plane, brain: np.ndarray, rng: np.random.Generator) -> None:
    """Paint a lesion of random size, anywhere in the brain, with gray values that differ from the surroundings."""
    pixels = 1 / float(plane.y[1, 0] - plane.y[0, 0])  # half the length of the head
    radius = math.exp(rng.uniform(math.log(0.12), math.log(0.4)))
    deep = brain > 0.06
    places = np.flatnonzero(deep)
    place = places[rng.integers(len(places))]
    stretch = math.exp(rng.uniform(-0.35, 0.35))
    turn = rng.uniform(0, np.pi)
    outline = radius * rng.uniform(0.1, 0.35) * noise(image.shape, max(4.0, 0.35 * radius * pixels), rng)
    lesion = ellipse(plane.x, plane.y, *plane.at(place), radius / stretch, radius * stretch, turn) + outline
    lesion = np.minimum(lesion, brain)

    usual, bright = np.percentile(image[deep], (50, 97)).tolist()
    if rng.random() < 0.6:
        # Swelling around the lesion, brighter or darker, with a soft rim.
        reach = rng.uniform(0.07, 0.27)
        swelling = np.clip(lesion / reach + 1 + 0.5 * noise(image.shape, 10, rng), 0, 1) * (brain > 0)
        swelling = blurred(swelling, 2)
        up = rng.random() < 0.6
        value = usual + rng.uniform(0.3, 0.9) * (bright - usual) if up else usual * rng.uniform(0.3, 0.8)
        image += swelling * rng.uniform(0.3, 0.8) * (value - image)

    kind = rng.choice(list(LESIONS), p=list(LESIONS.values()))
    texture = 1 + rng.uniform(0.05, 0.25) * noise(image.shape, rng.uniform(2.7, 6.5), rng)
    values = min(max(bright * rng.uniform(0.85, 1.4), 1.2 * usual), 1) * texture
    if kind == "cyst":
        values = usual * rng.uniform(0.1, 0.6) * texture
    elif kind == "mixed":
        values = usual + (bright - usual) * (1.2 + 0.9 * noise(image.shape, 0.3 * radius * pixels + 1.5, rng))
    elif kind == "ring":
        paint(values, usual * rng.uniform(0.15, 0.9), lesion - rng.uniform(0.15, 0.4) * radius)
    paint(image, np.clip(values, 0, 1), lesion)

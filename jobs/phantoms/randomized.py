"""Draws heads with highly variable tissues, anatomy and lesions for training; they need not be realistic.

A network trained on many contrasts and shapes generalizes to new ones (domain randomization: Billot et al.,
"SynthSeg", Medical Image Analysis 2023, https://arxiv.org/abs/2107.09559).
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from jobs.phantoms.drawing import SEQUENCES, coordinates, ellipse, noise, paint, scanned

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
    x, y, radius = coordinates(rng)
    tissues = _tissues(rng)
    image = np.full(x.shape, rng.uniform(0, 0.12) if rng.random() < 0.2 else 0.0)

    edge = 0.98 - rng.uniform(0.01, 0.09)
    skull_edge = edge - rng.uniform(0.01, 0.05)
    brain = skull_edge - rng.uniform(0.005, 0.04) - radius
    if rng.random() < 0.9:
        image = paint(image, tissues.scalp * (1 + 0.2 * noise(image.shape, 6, rng)), 1 - radius)
    image = paint(image, tissues.skull, edge - radius)
    image = paint(image, tissues.fluid, skull_edge - radius)
    image = _with_matter(image, x, y, brain, tissues, rng)
    # Inner structures are slightly warped.
    amount = rng.uniform(0, 0.04)
    warped_x, warped_y = (axis + amount * noise(image.shape, rng.uniform(15, 40), rng) for axis in (x, y))
    image = _with_structures(image, warped_x, warped_y, brain, tissues, rng)
    image = _with_outer_structures(image, x, y, brain, tissues, rng)
    if rng.random() < 0.5:
        image = _with_spots(image, x, y, brain, rng)
    for _ in range(for_lesions.geometric(0.8) if lesion else 0):
        image = _with_lesion(image, x, y, brain, for_lesions)
    return scanned(ndimage.gaussian_filter(image, rng.uniform(0, 1.2)), x, y, rng)


def _tissues(rng: np.random.Generator) -> Tissues:
    """Return the gray values of an MRI sequence, or random gray values that are distinguishable."""
    if rng.random() < 0.4:
        return Tissues(*np.array(SEQUENCES[rng.integers(len(SEQUENCES))][:5]) * rng.uniform(0.85, 1.15, 5))
    while True:
        scalp, fluid, gray, white = rng.uniform(0.05, 0.95, 4)
        if 0.04 < abs(gray - white) < 0.4 and abs(fluid - gray) > 0.12:
            return Tissues(scalp, rng.uniform(0.02, 0.3), fluid, gray, white)


def _grainy(value: float, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    return value * (1 + rng.uniform(0, 0.1) * noise(shape, rng.uniform(2, 10), rng))


def _with_matter(
    image: np.ndarray, x: np.ndarray, y: np.ndarray, brain: np.ndarray, tissues: Tissues, rng: np.random.Generator
) -> np.ndarray:
    """Paint gray matter, folded white matter, and fluid between the folds and the hemispheres."""
    _, _, fluid, gray, white = tissues
    image = paint(image, _grainy(gray, image.shape, rng), brain)
    lines = np.abs(noise(image.shape, rng.uniform(3.5, 7), rng))
    fade = np.maximum(brain - rng.uniform(0.05, 0.25), 0)
    image = paint(image, _grainy(white, image.shape, rng), np.minimum(brain - 0.035, 0.16 * lines - 0.07 + 0.6 * fade))
    furrows = rng.uniform(0, 0.03) - 0.16 * lines - rng.uniform(0.1, 0.4) * fade
    image = paint(image, fluid, np.where(brain > -0.01, furrows, -1))
    if rng.random() < 0.85:
        middle = np.abs(x + 0.012 * np.sin(5 * y + rng.uniform(0, 6)))
        fissure = rng.uniform(0.002, 0.012) + 0.012 * np.abs(y) ** 3 - middle
        image = paint(image, fluid, np.where((brain > 0) & (np.abs(y) > rng.uniform(0, 0.45)), fissure, -1))
    return image


def _with_structures(
    image: np.ndarray, x: np.ndarray, y: np.ndarray, brain: np.ndarray, tissues: Tissues, rng: np.random.Generator
) -> np.ndarray:
    """Paint inner structures of a healthy brain: in pairs or on the midline, mostly ventricles."""
    _, _, fluid, gray, white = tissues

    def some_value() -> float:
        return rng.choice([fluid, gray, white, (gray + white) / 2, rng.uniform(0.05, 0.95)]) * rng.uniform(0.85, 1.15)

    def inside(*shape: float) -> np.ndarray:
        return np.where(brain > -0.02, ellipse(x, y, *shape), -1)

    for _ in range(rng.integers(0, 6)):
        value, turn = some_value(), rng.uniform(0, 3)
        centre_x, centre_y = rng.uniform(0.1, 0.7), rng.uniform(-0.75, 0.75)
        half_x, half_y = rng.uniform(0.03, 0.2, 2)
        for side in (-1, 1):
            shift_x, shift_y = rng.normal(0, 0.015, 2)
            sizes = np.array([half_x, half_y]) * rng.uniform(0.85, 1.15, 2)
            where = inside(side * centre_x + shift_x, centre_y + shift_y, *sizes, side * turn)
            image = paint(image, value * rng.uniform(0.93, 1.07), where)
    for _ in range(rng.integers(0, 3)):
        centre_x, centre_y = rng.normal(0, 0.01), rng.uniform(-0.7, 0.8)
        where = inside(centre_x, centre_y, rng.uniform(0.02, 0.15), rng.uniform(0.02, 0.2), 0.0)
        image = paint(image, some_value(), where)
    if rng.random() < 0.75:
        size, tilt, shift = rng.uniform(0.6, 1.6), rng.uniform(-0.1, 0.5), rng.uniform(-0.15, 0.15)
        for side in (-1, 1):
            own = size * rng.uniform(0.85, 1.15)
            image = paint(image, (gray + white) / 2, inside(side * 0.2, 0.02 + shift, 0.1, 0.16, -side * 0.4))
            distance = rng.uniform(0.07, 0.12)
            image = paint(image, fluid, inside(side * distance, -0.2 + shift, 0.05 * own, 0.16 * own, side * tilt))
            if rng.random() < 0.8:
                back = inside(side * 0.16, 0.24 + shift, 0.048 * own, 0.19 * own, -side * (tilt + 0.15))
                image = paint(image, fluid, back)
        if rng.random() < 0.7:
            image = paint(image, fluid, inside(0, 0.04 + shift, 0.018 * size, 0.1, 0))
    return image


def _with_outer_structures(
    image: np.ndarray, x: np.ndarray, y: np.ndarray, brain: np.ndarray, tissues: Tissues, rng: np.random.Generator
) -> np.ndarray:
    """Paint structures of lower slices, each with a small probability: eyes, a cerebellum, the base of the skull."""
    _, skull, fluid, gray, white = tissues
    mirrored = np.abs(x)
    if rng.random() < 0.2:
        value, size = rng.choice([fluid, 0.9, 0.3]), rng.uniform(0.1, 0.18)
        centre_x, centre_y = rng.uniform(0.35, 0.5), rng.uniform(-0.95, -0.7)
        image = paint(image, skull, ellipse(mirrored, y, centre_x, centre_y, 1.25 * size, 1.35 * size, 0))
        image = paint(image, value, ellipse(mirrored, y, centre_x, centre_y, size, size, 0))
    if rng.random() < 0.2:
        leaves = np.where(noise(image.shape, 2.5, rng) > 0, white, gray)
        where = ellipse(x, y, 0, rng.uniform(0.5, 0.7), rng.uniform(0.45, 0.7), rng.uniform(0.25, 0.4), 0)
        image = paint(image, leaves, np.where(brain > -0.02, where, -1))
    if rng.random() < 0.15:
        value, turn = rng.choice([0.02, 0.9, skull]), rng.uniform(0, 3)
        centre_x, centre_y = rng.uniform(0.4, 0.8), rng.uniform(-0.3, 0.5)
        half_x, half_y = rng.uniform(0.08, 0.2), rng.uniform(0.08, 0.25)
        image = paint(image, value, ellipse(mirrored, y, centre_x, centre_y, half_x, half_y, turn))
    return image


def _with_spots(
    image: np.ndarray, x: np.ndarray, y: np.ndarray, brain: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Paint small structures that are not lesions: vessels, calcifications, age-related spots in white matter."""
    value = rng.uniform(0.0, 0.3) if rng.random() < 0.3 else rng.uniform(0.5, 1.0)
    places = np.flatnonzero(brain > 0)
    for place in rng.choice(places, rng.integers(1, 9)):
        half_x = rng.uniform(0.01, 0.05)
        half_y = half_x * rng.uniform(0.5, 1)
        where = ellipse(x, y, x.flat[place], y.flat[place], half_x, half_y, rng.uniform(0, 3))
        image = paint(image, value * rng.uniform(0.8, 1.2), where)
    return image


def _with_lesion(
    image: np.ndarray, x: np.ndarray, y: np.ndarray, brain: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Paint a lesion of random size, anywhere in the brain, with gray values that differ from the surroundings."""
    pixels = 1 / (y[1, 0] - y[0, 0])  # half the length of the head
    radius = np.exp(rng.uniform(np.log(0.12), np.log(0.4)))
    places = np.flatnonzero(brain > 0.06)
    place = places[rng.integers(len(places))]
    stretch = np.exp(rng.uniform(-0.35, 0.35))
    turn = rng.uniform(0, np.pi)
    outline = radius * rng.uniform(0.1, 0.35) * noise(image.shape, max(4.0, 0.35 * radius * pixels), rng)
    lesion = ellipse(x, y, x.flat[place], y.flat[place], radius / stretch, radius * stretch, turn) + outline
    lesion = np.minimum(lesion, brain)

    seen = image[brain > 0.06]
    usual, bright = np.median(seen), np.percentile(seen, 97)
    if rng.random() < 0.6:
        # Swelling around the lesion, brighter or darker, with a soft rim.
        reach = rng.uniform(0.07, 0.27)
        swelling = np.clip(lesion / reach + 1 + 0.5 * noise(image.shape, 10, rng), 0, 1) * (brain > 0)
        swelling = ndimage.gaussian_filter(swelling, 2)
        up = rng.random() < 0.6
        value = usual + rng.uniform(0.3, 0.9) * (bright - usual) if up else usual * rng.uniform(0.3, 0.8)
        image = image + swelling * rng.uniform(0.3, 0.8) * (value - image)

    kind = rng.choice(list(LESIONS), p=list(LESIONS.values()))
    texture = 1 + rng.uniform(0.05, 0.25) * noise(image.shape, rng.uniform(2.7, 6.5), rng)
    value = np.clip(bright * rng.uniform(0.85, 1.4), 1.2 * usual, 1) * texture
    if kind == "cyst":
        value = usual * rng.uniform(0.1, 0.6) * texture
    elif kind == "mixed":
        value = usual + (bright - usual) * (1.2 + 0.9 * noise(image.shape, 0.3 * radius * pixels + 1.5, rng))
    elif kind == "ring":
        value = paint(value, usual * rng.uniform(0.15, 0.9), lesion - rng.uniform(0.15, 0.4) * radius)
    return paint(image, np.clip(value, 0, 1), lesion)

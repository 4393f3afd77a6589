"""What drawn heads consist of: coordinates, soft shapes, smooth noise, and the effects of a scanner.

All pictures are float32 [height, width], 0 black, 1 white; shapes are painted onto them in place.
"""

import functools
import math

import numpy as np
from scipy import ndimage
from threadpoolctl import ThreadpoolController

SOFT = 0.016  # the width of a shape's soft edge: about two pixels
# Frequencies whose share in the noise is smaller are left out.
LEAST_GAIN = 1e-4
BLAS = ThreadpoolController()

Ellipse = tuple[float, ...]  # centre x and y, half axes in x and y, turn in radians


class Plane:
    """The coordinates `x` and `y` of all pixels, float32 [height, width], 0 at the head's centre, about 1 at its skin.

    They increase from left to right and from top to bottom, apart from smooth distortions.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = x, y
        self._columns = x.min(axis=0), x.max(axis=0)
        self._rows = y.min(axis=1), y.max(axis=1)

    def box(self, x: tuple[float, float], y: tuple[float, float]) -> tuple[slice, slice]:
        """Return rows and columns that contain all pixels with coordinates in the ranges `x` and `y`."""
        return _between(*self._rows, *y), _between(*self._columns, *x)

    def at(self, pixel: int) -> tuple[float, float]:
        """Return x and y of a pixel, counted row by row."""
        return float(self.x.flat[pixel]), float(self.y.flat[pixel])


def _between(lowest: np.ndarray, highest: np.ndarray, low: float, high: float) -> slice:
    found = np.flatnonzero((highest >= low) & (lowest <= high))
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0)


def coordinates(rng: np.random.Generator) -> tuple[Plane, np.ndarray]:
    """Return the plane of a turned and shifted head, 150 to 260 pixels on a side, and the distance from its centre.

    The distance, float32 [height, width], is 1 at the skin.
    """
    height, width = (int(side) for side in rng.integers(190, 261, 2) * (1.0, 0.85))
    turn = rng.normal(0, 0.06)
    length = height * rng.uniform(0.42, 0.47)
    breadth = min(width * 0.47, length * rng.uniform(0.74, 0.88))
    row = np.arange(height)[:, None] - height * (0.5 + rng.uniform(-0.02, 0.02))
    column = np.arange(width) - width * (0.5 + rng.uniform(-0.02, 0.02))
    y = ((math.cos(turn) / length) * row - (math.sin(turn) / length) * column).astype(np.float32)
    x = ((math.sin(turn) / breadth) * row + (math.cos(turn) / breadth) * column).astype(np.float32)
    # The outline is a sum of waves, a cos(n angle + phase), which are the real parts of a exp(i phase) direction ** n.
    waves = [-0.03j * rng.uniform(0, 1)]  # the back of the head is wider
    for number in (2, 3, 4, 5):
        size, phase = rng.normal(0, 0.022 / number), rng.uniform(0, 6.3)
        waves.append(size * complex(math.cos(phase), math.sin(phase)))
    distance = np.sqrt(x * x + y * y)
    direction = (x + 1j * y) / np.maximum(distance, np.float32(1e-9))
    outline: np.ndarray = np.zeros_like(direction)
    for wave in reversed(waves):
        outline = (outline + wave) * direction
    return Plane(x, y), distance / (1 + outline.real)


def ellipse(
    x: np.ndarray, y: np.ndarray, centre_x: float, centre_y: float, half_x: float, half_y: float, turn: float
) -> np.ndarray:
    """Return the approximate distance from the edge of a turned ellipse, positive inside, negative outside."""
    cos, sin = math.cos(turn), math.sin(turn)
    u = (cos / half_x) * x + ((sin / half_x) * y - (cos * centre_x + sin * centre_y) / half_x)
    v = (cos / half_y) * y - ((sin / half_y) * x + (cos * centre_y - sin * centre_x) / half_y)
    u *= u
    v *= v
    u += v
    least = min(half_x, half_y)
    return least - least * np.sqrt(u, out=u)


def paint(image: np.ndarray, value: float | np.ndarray, inside: np.ndarray) -> None:
    """Paint `value` onto `image` where `inside` (a distance) is positive; the soft edge is about two pixels wide."""
    cover = inside * (1 / SOFT)
    cover += 0.5
    np.clip(cover, 0, 1, out=cover)
    cover *= value - image
    image += cover


def paint_ellipses(
    image: np.ndarray,
    value: float | np.ndarray,
    plane: Plane,
    shapes: list[Ellipse],
    within: np.ndarray | None = None,
) -> None:
    """Paint `value` onto `image` in the union of `shapes`, if given only `within` a mask, bool [height, width]."""
    reach = []
    for x, y, half_x, half_y, turn in shapes:
        cos, sin, edge = math.cos(turn), math.sin(turn), 1 + SOFT / min(half_x, half_y)
        wide, high = edge * math.hypot(half_x * cos, half_y * sin), edge * math.hypot(half_x * sin, half_y * cos)
        reach.append((x - wide, x + wide, y - high, y + high))
    left, right, top, bottom = zip(*reach, strict=True)
    box = plane.box((min(left), max(right)), (min(top), max(bottom)))
    inside = functools.reduce(np.maximum, (ellipse(plane.x[box], plane.y[box], *shape) for shape in shapes))
    if within is not None:
        inside = np.where(within[box], inside, np.float32(-1))
    paint(image[box], value[box] if isinstance(value, np.ndarray) else value, inside)


def paint_fissure(
    image: np.ndarray, fluid: float, plane: Plane, brain: np.ndarray, half: float, phase: float, gap: float
) -> None:
    """Paint the fluid between the hemispheres: a wave around x = 0 with this `phase`, in radians.

    It is at least twice `half` wide, and painted where the distance `brain` is positive and |y| is more than `gap`.
    """
    box = plane.box((-half - 0.05, half + 0.05), (-1.2, 1.2))
    x, y = plane.x[box], plane.y[box]
    far = np.abs(y)
    inside = half + 0.012 * far * far * far - np.abs(x + 0.012 * np.sin(5 * y + phase))
    paint(image[box], fluid, np.where((brain[box] > 0) & (far > gap), inside, -1))


def noise(shape: tuple[int, int], grain: float, rng: np.random.Generator) -> np.ndarray:
    """Return smooth noise, float32, of unit variance, with structures about `grain` pixels wide.

    White noise is filtered with a Gaussian in the frequency domain, by discrete Hartley transforms of the frequencies
    that pass the filter.
    """
    white = rng.standard_normal(shape).astype(np.float32)
    (rows, row_gain), (columns, column_gain) = (_passed(length, grain) for length in shape)
    # In one thread: for products this small, starting others takes longer than the product.
    with BLAS.limit(limits=1, user_api="blas"):
        waves = rows @ white @ columns.T
        waves *= row_gain[:, None] * column_gain
        power = float(np.vdot(waves, waves)) - float(waves[0, 0]) ** 2
        waves *= math.sqrt(white.size / power)
        return rows.T @ (waves @ columns)


def _passed(length: int, grain: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the waves, float32 [number, length], that pass a Gaussian filter of `grain` pixels, and their gains."""
    cycles, waves = _hartley(length)
    gain = np.exp(-2 * (np.pi * grain * cycles) ** 2)
    number = int(np.searchsorted(-gain, -LEAST_GAIN))
    return waves[:number], gain[:number].astype(np.float32)


@functools.cache
def _hartley(length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the waves of the orthonormal discrete Hartley transform, float32 [length, length], slow ones first.

    The first array is their number of cycles per pixel (Bracewell, "Discrete Hartley transform", Journal of the Optical
    Society of America 73, 1983).
    """
    numbers = np.arange(length)
    order = np.argsort(np.minimum(numbers, length - numbers), kind="stable")
    angles = 2 * np.pi / length * np.outer(order, numbers)
    waves = ((np.cos(angles) + np.sin(angles)) / np.sqrt(length)).astype(np.float32)
    return np.minimum(order, length - order) / length, waves


def blurred(image: np.ndarray, *sigmas: float) -> np.ndarray:
    """Return float32 `image` after Gaussian filters of these `sigmas`, in pixels, one after the other."""
    reach = sum(int(4 * sigma + 0.5) for sigma in sigmas)
    kernel = np.zeros(2 * reach + 1)
    kernel[reach] = 1
    for sigma in sigmas:
        kernel = ndimage.gaussian_filter1d(kernel, sigma, mode="constant")
    return ndimage.correlate1d(ndimage.correlate1d(image, kernel, 0), kernel, 1)


def scanned(image: np.ndarray, plane: Plane, rng: np.random.Generator, *blurs: float) -> np.ndarray:
    """Return uint8 `image` with the effects of a scanner: blur, a brightness gradient and Rician noise.

    `blurs` are the sigmas, in pixels, of Gaussian filters before that of the scanner.
    """
    image = blurred(image, *blurs, rng.uniform(0.5, 0.8))
    slope_x, slope_y = rng.normal(0, 0.06, 2).tolist()
    brightness = rng.uniform(0.8, 1.0)
    image *= brightness + (brightness * slope_x) * plane.x + (brightness * slope_y) * plane.y
    level = rng.uniform(0.012, 0.03)
    real, imaginary = rng.standard_normal((2, *image.shape)).astype(np.float32) * level
    image += real
    image *= image
    imaginary *= imaginary
    image += imaginary
    gray = np.sqrt(image, out=image)
    gray *= 255
    return np.rint(np.minimum(gray, 255)).astype(np.uint8)

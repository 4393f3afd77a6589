"""The outline of a head in a square picture that it fills, and circles around the head."""

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from jobs.mri.morphology import closed, filled, opened
from jobs.mri.structure import blurring

HEAD_SIZE = 128  # pixels: heads are compared in pictures of HEAD_SIZE x HEAD_SIZE
ELLIPSE_RIM = 2  # pixels beside the bounding box that do not show the outline if it is cut off


def outline(image: np.ndarray) -> np.ndarray:
    """Return bool [128, 128], True in the convex hull of the head in `image` (uint8 [128, 128]).

    The hull is convex because a threshold alone cuts off parts of a dark brain beside a bright tumour.
    """
    smooth = blurring(HEAD_SIZE, 1.0, "reflect", 4.0)
    root = np.sqrt(smooth @ image.astype(np.float32) @ smooth.T * 255).astype(np.uint8)
    counts = np.bincount(root.ravel(), minlength=256)
    below, total = np.cumsum(counts) / root.size, np.cumsum(counts * np.arange(256)) / root.size
    # Otsu (1979): the gray value that best splits the histogram into two classes.
    split = int(np.argmax((total[-1] * below - total) ** 2 / np.maximum(below * (1 - below), 1e-9)))
    dark = total[split] / max(below[split], 1e-9)  # mean gray value of the darker class
    head = np.zeros((HEAD_SIZE + 6, HEAD_SIZE + 6), bool)
    head[3:-3, 3:-3] = root > (dark + split) / 2
    head = filled(closed(head, 2))[3:-3, 3:-3]
    parts, count = ndimage.label(opened(head, 2))
    if count == 0:
        return np.ones(image.shape, bool)
    largest = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    left, right = np.split(_row_ends(largest)[:, ::-1], 2)
    hull = Image.new("1", image.shape)
    corners = _convex(left.tolist(), 1) + _convex(right.tolist(), -1)[::-1]
    ImageDraw.Draw(hull).polygon(list(map(tuple, corners)), fill=1, outline=1)
    return np.asarray(hull)


def center_and_radius(inside: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the centroid (y, x) of bool [128, 128] and the radius, in pixels, of the disk of its area."""
    rows, columns = np.count_nonzero(inside, axis=1), np.count_nonzero(inside, axis=0)
    area, places = rows.sum(), np.arange(HEAD_SIZE)
    return np.array([rows @ places, columns @ places]) / area, float(np.sqrt(area / np.pi))


def ellipse(inside: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the centre (y, x) of the ellipse around bool [128, 128], and the radius of the disk of its area.

    What touches the bounding box is left out: a part may be cut off there, which moves the centroid, but not the
    ellipse. Without a plausible ellipse, the result is that of `center_and_radius`.
    """
    center, radius = center_and_radius(inside)
    points = np.concatenate([_row_ends(inside), _row_ends(inside.T)[:, ::-1]])
    low, high = points.min(axis=0) + ELLIPSE_RIM, points.max(axis=0) - ELLIPSE_RIM
    y, x = ((points[((points >= low) & (points <= high)).all(axis=1)] - center) / radius).T
    if len(y) < 60:
        return center, radius
    # The least squares of a y^2 + b y x + c x^2 + d y + e x = 1.
    terms = np.stack([y * y, y * x, x * x, y, x], axis=1)
    a, b, c, d, e = np.linalg.solve(terms.T @ terms + 1e-9 * np.eye(5), terms.sum(axis=0))
    curvature = 4 * a * c - b * b
    if curvature <= 0.1:
        return center, radius
    moved = np.array([b * e - 2 * c * d, b * d - 2 * a * e]) / curvature
    level = 1 + a * moved[0] ** 2 + b * moved[0] * moved[1] + c * moved[1] ** 2
    larger = float(np.sqrt(2 * level / np.sqrt(curvature)))
    if np.hypot(*moved) > 0.4 or not 0.7 < larger < 1.4:
        return center, radius
    return center + radius * moved, radius * larger


def _convex(points: list[list[int]], side: int) -> list[list[int]]:
    """Return those of `points` (x, y), from top to bottom, that are corners of their convex hull's left or right side.

    `side` is 1 for the left side and -1 for the right one. This is half of Andrew's (1979) monotone chain.
    """
    corners: list[list[int]] = []
    for x, y in points:
        while len(corners) > 1:
            (x1, y1), (x2, y2) = corners[-2:]
            if side * ((x2 - x1) * (y - y1) - (x - x1) * (y2 - y1)) < 0:
                break
            corners.pop()
        corners.append([x, y])
    return corners


def _row_ends(marked: np.ndarray) -> np.ndarray:
    """Return int [n, 2]: (y, x) of the first and then of the last pixels of each row of bool `marked` [128, 128]."""
    rows = np.flatnonzero(marked.any(axis=1))
    first, last = marked.argmax(axis=1)[rows], HEAD_SIZE - 1 - marked[:, ::-1].argmax(axis=1)[rows]
    return np.stack([np.tile(rows, 2), np.concatenate([first, last])], axis=1)

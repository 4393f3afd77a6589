"""Many small images in one PNG."""

import numpy as np

from jobs.common import png

GAP = 1


def grid_png(images: np.ndarray, columns: int) -> bytes:
    """Return uint8 [n, size, size] as one grayscale PNG, row by row, `columns` images wide, a black line between."""
    count, size, _ = images.shape
    rows = -(-count // columns)
    cell = size + GAP
    canvas = np.zeros((rows * cell - GAP, columns * cell - GAP), np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * cell, index % columns * cell
        canvas[top : top + size, left : left + size] = image
    return png.encode(canvas)

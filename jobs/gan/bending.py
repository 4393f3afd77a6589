"""Smooth random deformation of generated heads, so that outlines and folds differ from those of training images.

A generator trained on few images blends them: its images are nearer to the training images than those of another
person. Heads of different people also differ by smooth deformations, of which few images show only a small part.
"""

import functools

import numpy as np
from scipy import ndimage

NODES = 3  # grid points per side of the displacement field: few, so that the deformation is smooth over the whole head


def bend(image: np.ndarray, displacements: np.ndarray) -> np.ndarray:
    """Return `image`, uint8 [size, size], deformed by a smooth field; pixels from outside repeat the border.

    `displacements`, float [2, NODES, NODES], are the offsets down and to the right at each node, relative to the side.
    Nodes and pixels are interpolated with cubic splines (free-form deformation: Rueckert et al., "Nonrigid registration
    using free-form deformations", IEEE Transactions on Medical Imaging, 1999). Gray values stay in the image's range.
    """
    size = len(image)
    spread = _spread(size)
    field = spread @ displacements @ spread.T
    where = np.indices(image.shape) + size * field
    bent = ndimage.map_coordinates(image, where, output=np.float64, order=3, mode="nearest")
    return np.clip(np.rint(bent), image.min(), image.max()).astype(np.uint8)


@functools.lru_cache
def _spread(size: int) -> np.ndarray:
    """Return the matrix, float64 [size, NODES], that interpolates the values at the nodes of a line."""
    # Six times as fast as an interpolation for each image, which is linear in its values.
    return ndimage.zoom(np.eye(NODES), (size / NODES, 1), order=3, mode="nearest", grid_mode=True)

"""Generated heads bent out of shape, so that they keep no outline and no place of a fold of the heads they come from.

A generator that learned few images blends what it has seen: what it draws lies nearer to the training images than a new
head does. People differ by smooth deformations too, of which those few show hardly any.
"""

import numpy as np
from scipy import ndimage

NODES = 3  # of the grid that is displaced, along each side: few, so that a head bends as a whole


def bend(image: np.ndarray, displacements: np.ndarray) -> np.ndarray:
    """Return `image`, uint8 [size, size], displaced by a smooth field; what comes from outside repeats the border.

    `displacements`, float [2, NODES, NODES], say how far down and to the right each node looks, as a share of the side;
    between nodes and between pixels runs a cubic spline (free-form deformation: Rueckert et al., "Nonrigid registration
    using free-form deformations", IEEE Transactions on Medical Imaging, 1999). No gray value leaves the image's range.
    """
    size = len(image)
    spread = (1, size / NODES, size / NODES)
    field = ndimage.zoom(displacements, spread, order=3, mode="nearest", grid_mode=True)
    where = np.indices(image.shape) + size * field
    bent = ndimage.map_coordinates(image, where, output=np.float64, order=3, mode="nearest")
    return np.clip(np.rint(bent), image.min(), image.max()).astype(np.uint8)

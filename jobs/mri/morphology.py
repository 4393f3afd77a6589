"""Growing and shrinking of marked regions; what is outside a picture is not marked.

The functions give the results of scipy.ndimage, with whole-array operations, which are about 20 times as fast on small
pictures.
"""

import numpy as np
from scipy import ndimage


def opened_by_square(marked: np.ndarray, reach: int) -> np.ndarray:
    """Return bool [height, width]: `marked` without what is narrower than squares of 2 * `reach` + 1 pixels."""
    shrunk = ~_grown_by_square(~np.pad(marked, reach), reach)
    return _grown_by_square(shrunk, reach)[reach:-reach, reach:-reach]


def opened(marked: np.ndarray, steps: int) -> np.ndarray:
    """Return bool [height, width]: `marked`, shrunk and grown by `steps` pixels along rows and columns."""
    return grown(shrunk(marked, steps), steps)


def closed(marked: np.ndarray, steps: int) -> np.ndarray:
    """Return bool [height, width]: `marked`, grown and shrunk by `steps` pixels along rows and columns."""
    return shrunk(grown(marked, steps), steps)


def grown(marked: np.ndarray, steps: int) -> np.ndarray:
    """Return bool [height, width]: `marked` and, `steps` times, the neighbours in rows and columns."""
    for _ in range(steps):
        before, marked = marked, marked.copy()
        marked[1:] |= before[:-1]
        marked[:-1] |= before[1:]
        marked[:, 1:] |= before[:, :-1]
        marked[:, :-1] |= before[:, 1:]
    return marked


def shrunk(marked: np.ndarray, steps: int) -> np.ndarray:
    """Return bool [height, width]: `marked` without, `steps` times, what touches the outside in rows and columns."""
    return ~grown(~np.pad(marked, steps), steps)[steps:-steps, steps:-steps]


def filled(marked: np.ndarray) -> np.ndarray:
    """Return bool [height, width]: `marked` and the holes in it, which do not touch the edge of the picture."""
    return ~touching_edge(~marked)


def touching_edge(marked: np.ndarray) -> np.ndarray:
    """Return bool [height, width]: the connected parts of `marked`, of that shape, that touch its edge."""
    parts, count = ndimage.label(marked)
    outside = np.zeros(count + 1, bool)
    for edge in (parts[0], parts[-1], parts[:, 0], parts[:, -1]):
        outside[edge] = True
    outside[0] = False
    return outside[parts]


def _grown_by_square(marked: np.ndarray, reach: int) -> np.ndarray:
    for _ in range(2):
        before, marked = marked, marked.copy()
        for step in range(1, reach + 1):
            marked[step:] |= before[:-step]
            marked[:-step] |= before[step:]
        marked = marked.T
    return marked

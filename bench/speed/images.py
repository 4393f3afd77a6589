"""Images for all sides, which have no package but NumPy in common."""

import numpy as np


def discs(count: int, size: int) -> np.ndarray:
    """Return noisy bright discs on black, uint8 [count, size, size]."""
    rng = np.random.default_rng(0)
    distance = np.hypot(*np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j])
    radius = rng.uniform(0.6, 0.9, (count, 1, 1))
    noise = rng.normal(0, 8, (count, size, size))
    return np.clip(120 * (distance < radius) + noise, 0, 255).astype(np.uint8)

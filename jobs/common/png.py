"""Gray images as PNG files."""

import io

import numpy as np
from PIL import Image


def encode(image: np.ndarray) -> bytes:
    """Return uint8 [height, width] as a grayscale PNG file; the same pixels give the same bytes."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def decode(data: bytes) -> np.ndarray:
    """Return the pixels of a PNG file: uint8 [height, width] if it is 8-bit gray."""
    return np.asarray(Image.open(io.BytesIO(data), formats=("PNG",)))

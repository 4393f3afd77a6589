"""Decode one file of any supported format into 2-D gray pictures."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

from jobs.mri import dicom, nifti
from jobs.mri.slices import (
    MAX_PIXELS,
    MAX_VOXELS,
    Picture,
    Slice,
    Unusable,
    check_size,
    one_line,
    robust_range,
    stretch,
)

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
# How a file of FORMATS starts: one that starts so and cannot be opened is damaged rather than something else.
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"RIFF")
MIN_IS_WHITE, PHOTOMETRIC, SUBFILE_TYPE, REDUCED = 0, 262, 254, 1  # TIFF tags and values


def read(data: bytes, name: str) -> Picture:
    """Return the picture in `data`, uint8 with black 0 and white 255, as a radiologist would see it.

    JPEG, PNG, BMP, TIFF, WebP, DICOM and NIfTI are told apart by content; `name` only helps with DICOM files that
    lack their preamble. EXIF orientation is applied, transparency is laid on black, colour becomes luminance
    (ITU-R 601), values deeper than 8 bits are scaled by the depth they use, by their DICOM window, or between their
    0.5 and 99.5 percentiles. A file of several pictures (NIfTI, multi-frame DICOM, TIFF of several pages) is a volume.

    Raises Unusable: not-an-image, truncated, unsupported, decompression-bomb or blank.
    """
    if not data:
        raise Unusable("not-an-image", "the file is empty")
    with _quiet():
        try:
            if dicom.is_dicom(data, name):
                return dicom.read(data)
            if nifti.is_nifti(data):
                return nifti.read(data)
            return _read_with_pillow(data)
        except Image.DecompressionBombError:
            raise Unusable("decompression-bomb", f"would unpack to more than {MAX_PIXELS} pixels") from None
        except MemoryError:
            raise Unusable("decompression-bomb", "does not fit into memory") from None


def _read_with_pillow(data: bytes) -> Picture:
    known = data.startswith(SIGNATURES)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise
    except Exception:
        if known:
            raise Unusable("truncated", "damaged at its start") from None
        raise Unusable("not-an-image", f"no {', '.join(FORMATS)}, DICOM or NIfTI") from None
    with image:
        try:
            slices = list(_pages(image))
            if not slices:
                raise Unusable("unsupported", "holds nothing but reduced copies of another image")
        except (Unusable, Image.DecompressionBombError, MemoryError):
            raise
        # Decoders of damaged data raise nearly anything: OSError, SyntaxError, struct.error, ValueError, zlib.error.
        except Exception as error:
            raise Unusable("truncated", one_line(error)) from None
        name = {"MPO": "JPEG", "WEBP": "WebP"}.get(image.format or "", image.format or "")
    return Picture(slices, name)


def _pages(image: Image.Image) -> Iterator[Slice]:
    """Yield each page of a TIFF that is not a thumbnail; the first picture of any other format."""
    count = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    total = 0
    for number in range(count):
        if count > 1:
            image.seek(number)
            if image.tag_v2.get(SUBFILE_TYPE, 0) & REDUCED:  # type: ignore[attr-defined]
                continue
        check_size(image.width * image.height, MAX_PIXELS, "pixels")
        total += image.width * image.height
        check_size(total, MAX_VOXELS, "pixels")
        yield Slice(_gray(image), number if count > 1 else None)


def _gray(image: Image.Image) -> np.ndarray:
    image.load()
    inverted = image.format == "TIFF" and image.tag_v2.get(PHOTOMETRIC) == MIN_IS_WHITE  # type: ignore[attr-defined]
    # A broken EXIF block turns nothing, and the picture is still good.
    with contextlib.suppress(Exception):
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return _deep(np.asarray(image), inverted)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")
    if image.mode in ("LAB", "HSV", "YCbCr", "CMYK"):
        image = image.convert("RGB")
    return np.array(image.convert("L"))


def _deep(values: np.ndarray, inverted: bool) -> np.ndarray:
    """Return uint8 from integers deeper than 8 bits, by the number of bits in use, or from real numbers."""
    if values.dtype.kind == "f" or values.min() < 0:
        finite = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        low, high = robust_range(finite)
        gray = stretch(finite, low, high)
    else:
        bits = max(8, int(values.max()).bit_length())
        gray = stretch(values, 0, 2**bits - 1)
    return 255 - gray if inverted else gray


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' remarks about odd files from the user, who gets a reason for each file instead."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "nibabel", "nibabel.global", "PIL")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

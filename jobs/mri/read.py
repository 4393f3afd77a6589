"""Decodes one file of any supported format into 2-D gray pictures."""

import contextlib
import gzip
import io
import logging
import warnings
import zlib
from collections.abc import Iterator

from PIL import Image

from jobs.mri import dicom, foreign, masks, nifti, raster
from jobs.mri.slices import BUDGET, Picture, Unusable, check_size, decoder_error

GZIP = b"\x1f\x8b"
PART = 2**20  # bytes that are unpacked at a time


def read(data: bytes, name: str, volume: int = 0) -> Picture:
    """Return the picture in `data`, uint8 with black 0 and white 255, as a radiologist would see it.

    The format, JPEG, PNG, BMP, TIFF, WebP, DICOM or NIfTI, plain or gzipped, is recognized by content. `name`, the path
    below the class folder, shows whether it is a mask. A file of several pictures (NIfTI, multi-frame DICOM, TIFF of
    several pages) is a volume; of a NIfTI with several volumes, number `volume` is taken, counted from 0.

    Raises Unusable and no other exception.
    """
    with _quiet():
        try:
            return _read(data, name, volume)
        except Unusable:
            raise
        except Image.DecompressionBombError:
            raise Unusable("decompression-bomb", f"would unpack to more than {BUDGET.pixels} pixels") from None
        except MemoryError:
            raise Unusable("decompression-bomb", f"needs more than {BUDGET.memory_bytes} bytes of memory") from None
        except Exception as error:
            raise decoder_error(error, "the file") from None


def _read(data: bytes, name: str, volume: int) -> Picture:
    if not data:
        raise Unusable("not-an-image", "the file is empty")
    check_size(len(data), BUDGET.file_bytes, "bytes")
    if data.startswith(GZIP):
        data, whole = _unpacked(data, volume)
        if not whole and not nifti.is_nifti(data):
            raise Unusable("truncated", "the gzip stream ends early or is damaged")
        name = name[:-3] if name.lower().endswith(".gz") else name
    if dicom.is_dicom(data):
        return dicom.read(data)
    kind = raster.kind_of(data)
    if not kind and not nifti.is_nifti(data):
        raise foreign.identify(data, name)
    if masks.named(name):
        raise Unusable("not-a-picture", "its name is that of a mask or a label map")
    return raster.read(data, kind) if kind else nifti.read(data, volume)


def _unpacked(data: bytes, volume: int) -> tuple[bytes, bool]:
    """Return the unpacked gzipped `data` and whether they are complete; of NIfTI only the bytes that are needed.

    Raises Unusable: decompression-bomb.
    """
    start, _ = _inflate(data, nifti.HEADER_BYTES)
    needed = nifti.bytes_needed(start, volume) if nifti.is_nifti(start) else 0
    if needed:
        check_size(needed, BUDGET.file_bytes, "bytes")
        return _inflate(data, needed)
    unpacked, whole = _inflate(data, BUDGET.file_bytes + 1)
    check_size(len(unpacked), BUDGET.file_bytes, "bytes")
    return unpacked, whole


def _inflate(data: bytes, length: int) -> tuple[bytes, bool]:
    """Return at most `length` bytes of the unpacked gzipped `data`, and whether they could be unpacked."""
    unpacked = io.BytesIO()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            while part := file.read1(min(PART, length - unpacked.tell())):
                unpacked.write(part)
    # What follows the last gzip stream is no part of the file.
    except gzip.BadGzipFile as error:
        return unpacked.getvalue(), "Not a gzipped file" in str(error)
    except (EOFError, zlib.error):
        return unpacked.getvalue(), False
    return unpacked.getvalue(), True


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the libraries' messages about damaged files; the user gets a reason for each file instead."""
    disabled = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)

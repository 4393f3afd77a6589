"""NIfTI volumes: their axial slices."""

import gzip
import io
import zlib

import nibabel
import numpy as np

from jobs.mri.slices import (
    MAX_VOXELS,
    Picture,
    Slice,
    Unusable,
    check_size,
    one_line,
    robust_range,
    square_pixels,
    stretch,
)

GZIP = b"\x1f\x8b"
HEADER_BYTES = 540  # of NIfTI-2, the longer one
# A slice with less of the head in it than this share of the fullest slice's is the neck, the crown or air.
MIN_SHARE_OF_FULLEST = 0.25


def is_nifti(data: bytes) -> bool:
    """Return whether `data` is a NIfTI-1 or NIfTI-2 file, gzipped or not."""
    return _kind(_start(data, HEADER_BYTES)) is not None


def read(data: bytes) -> Picture:
    """Return the axial slices of a NIfTI file from the feet up, the nose up and the patient's right on the left.

    The first of several volumes is taken. Gray values reach from the 0.5 to the 99.5 percentile of the volume; slices
    near the ends that hold little or nothing of the head are left out. Nothing is unpacked beyond the size
    that the header states, and that has a limit.

    Raises Unusable: truncated, unsupported, decompression-bomb or blank.
    """
    kind = _kind(_start(data, HEADER_BYTES))
    assert kind is not None
    try:
        header = kind.header_class.from_fileobj(io.BytesIO(_start(data, HEADER_BYTES)), check=False)
        shape = [int(length) for length in header["dim"][1 : 1 + int(header["dim"][0])]]
        offset = int(header.get_data_offset())
        dtype = header.get_data_dtype()
    except Exception as error:
        raise Unusable("truncated", f"damaged header: {one_line(error)}") from None
    if dtype.kind not in "iuf":
        raise Unusable("unsupported", f"NIfTI with values of type {dtype}")
    if len(shape) < 2 or min(shape) < 1:
        raise Unusable("truncated", f"damaged header: dimensions {shape}")
    spatial = [*shape, 1][:3]
    count = int(np.prod(spatial, dtype=object))
    check_size(count, MAX_VOXELS, "voxels")
    end = offset + count * dtype.itemsize
    unpacked = _start(data, end)
    if len(unpacked) < end:
        raise Unusable("truncated", f"{len(unpacked)} bytes instead of {end}")
    try:
        affine = header.get_best_affine()
        values = np.frombuffer(unpacked, dtype, count, offset).reshape(spatial, order="F").astype(np.float32)
        slope, intercept = header.get_slope_inter()
        if slope is not None:
            values = values * np.float32(slope) + np.float32(intercept or 0)
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        volume = nibabel.as_closest_canonical(nibabel.Nifti1Image(values, affine))
        values, spacing = np.asarray(volume.dataobj), volume.header.get_zooms()
    except Exception as error:
        raise Unusable("truncated", f"damaged header: {one_line(error)}") from None

    low, high = robust_range(values)
    if not high > low:
        raise Unusable("blank", "every voxel has the same value")
    # The canonical axes run to the right, to the front and up.
    head = (values > low + 0.1 * (high - low)).mean(axis=(0, 1))
    slices = []
    for level in np.flatnonzero(head >= MIN_SHARE_OF_FULLEST * head.max()):
        pixels = stretch(values[::-1, ::-1, level].T, low, high)
        slices.append(Slice(square_pixels(pixels, float(spacing[1]), float(spacing[0])), int(level)))
    return Picture(slices, "NIfTI")


def _start(data: bytes, length: int) -> bytes:
    """Return the first `length` bytes of `data`, unpacked if it is gzipped; fewer if there are not so many."""
    if not data.startswith(GZIP):
        return data[:length]
    # The stream object reads ahead by its buffer only, whatever the file would unpack to.
    stream = gzip.GzipFile(fileobj=io.BytesIO(data))
    parts, left = [], length
    try:
        while left > 0 and (part := stream.read(min(left, 1 << 20))):
            parts.append(part)
            left -= len(part)
    except (EOFError, OSError, zlib.error):
        pass
    return b"".join(parts)


def _kind(start: bytes) -> type[nibabel.Nifti1Image] | None:
    if start[344:348] == b"n+1\0":
        return nibabel.Nifti1Image
    if start[4:8] == b"n+2\0":
        return nibabel.Nifti2Image
    return None

"""Reads the axial slices of NIfTI volumes."""

import io

import nibabel
import numpy as np

from jobs.mri import masks
from jobs.mri.gray import to_gray
from jobs.mri.slices import BUDGET, Picture, Slice, Unusable, check_size, decoder_error, square_pixels

HEADER_BYTES = 540  # of NIfTI-2, the longer one
# A slice shows neck, crown or air if its number of tissue pixels is below this share of the largest number of a slice.
MIN_SHARE_OF_FULLEST = 0.25
TISSUE = 26  # gray value, a tenth of the range: pixels below are air
# Intent codes (nifti1.h) of volumes that are not pictures.
INTENTS = {
    1002: "a label map",
    1004: "matrices",
    1005: "matrices",
    1006: "displacements",
    1007: "vectors",
    1011: "a mesh",
}
CONVERT = "convert it to one .nii file, for example with `nibabel` or `mri_convert`"


def is_nifti(data: bytes) -> bool:
    """Return whether `data` starts like a NIfTI-1 or NIfTI-2 file with header and values in one file."""
    return _kind(data) is not None


def read(data: bytes, volume: int = 0) -> Picture:
    """Return the axial slices of an unpacked NIfTI file, lowest first, nose up, the patient's right on the left.

    Of several volumes (a fourth dimension), number `volume` is taken, counted from 0. Slices with little or nothing of
    the head are omitted. Orientation and spacing come from the sform; if it is absent or singular, from the qform;
    otherwise from the voxel size.

    Raises Unusable: truncated, unsupported, decompression-bomb, not-a-picture, too-small or blank.
    """
    kind = _kind(data)
    assert kind is not None
    try:
        header = kind.header_class.from_fileobj(io.BytesIO(data[:HEADER_BYTES]), check=False)
        shape = [int(length) for length in header["dim"][1 : 1 + int(header["dim"][0])]]
        offset = int(header["vox_offset"])
        code = int(header["datatype"])
    except Exception:
        raise Unusable("truncated", "the NIfTI header is damaged") from None
    try:
        dtype = header.get_data_dtype()
    except Exception:
        raise Unusable("unsupported", f"NIfTI with the data type code {code}: {CONVERT}") from None
    if int(header["intent_code"]) in INTENTS:
        raise Unusable("not-a-picture", f"NIfTI whose intent code says {INTENTS[int(header['intent_code'])]}")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        what = "colours" if dtype.kind == "V" else f"values of type {dtype.name}"
        raise Unusable("unsupported", f"NIfTI with {what}: {CONVERT} with real values of 32 or 64 bits")
    if len(shape) < 2 or min(shape) < 1 or offset < 0:
        raise Unusable("truncated", "the NIfTI header declares impossible dimensions")
    volumes = int(np.prod(shape[3:], dtype=object))
    volume = volume if volumes > 1 else 0
    if volume >= volumes:
        raise Unusable("unsupported", f"NIfTI with {volumes} volumes: --volume names number {volume}, counted from 0")
    spatial = [*shape, 1][:3]
    count = int(np.prod(spatial, dtype=object))
    check_size(count, BUDGET.voxels, "voxels")
    check_size(spatial[2], BUDGET.slices, "slices")
    begin = max(offset, 352 if kind is nibabel.Nifti1Image else 544) + volume * count * dtype.itemsize
    end = begin + count * dtype.itemsize
    check_size(end, BUDGET.file_bytes, "bytes")
    if len(data) < end:
        raise Unusable("truncated", f"{len(data)} bytes of {end} that its header declares")

    values = np.frombuffer(data, dtype, count, begin).reshape(spatial, order="F").astype(np.float32)
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if np.isfinite(slope) and slope != 0:
        values *= np.float32(slope)
        values += np.float32(intercept if np.isfinite(intercept) else 0)
    try:
        # The canonical axes point to the patient's right, front and top.
        canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image(values, _affine(header, spatial)))
        values, spacing = np.asarray(canonical.dataobj), canonical.header.get_zooms()
    except Exception as error:
        raise decoder_error(error, "the NIfTI orientation") from None

    masks.reject_label_volume(values)
    gray = to_gray(values[::-1, ::-1].transpose(2, 1, 0))
    masks.reject_label_maps(gray)
    head = (gray >= TISSUE).mean(axis=(1, 2))
    slices = [
        Slice(square_pixels(gray[level], float(spacing[1]), float(spacing[0])), int(level))
        for level in np.flatnonzero(head >= MIN_SHARE_OF_FULLEST * head.max())
    ]
    remarks = (f"NIfTI with several volumes: number {volume} was taken (--volume)",) if volumes > 1 else ()
    return Picture(slices, "NIfTI", remarks=remarks)


def bytes_needed(data: bytes, volume: int = 0) -> int:
    """Return the number of bytes of an unpacked NIfTI file that `read` needs; 0 if unknown.

    `data` are the first HEADER_BYTES of the file.
    """
    kind = _kind(data)
    try:
        header = kind.header_class.from_fileobj(io.BytesIO(data), check=False)  # type: ignore[union-attr]
        spatial = [int(length) for length in header["dim"][1:4]][: int(header["dim"][0])]
        count = int(np.prod(spatial, dtype=object))
        return max(0, int(header["vox_offset"])) + (volume + 1) * count * header.get_data_dtype().itemsize
    except Exception:
        return 0


def _affine(header: nibabel.Nifti1Header, shape: list[int]) -> np.ndarray:
    """Return the orientation as float64 [4, 4]: the first valid one of sform, qform and plain voxel sizes."""
    sform, qform = int(header["sform_code"]) > 0, int(header["qform_code"]) > 0
    candidates = ((sform, header.get_sform), (qform, header.get_qform), (True, header.get_base_affine))
    for candidate in (candidate for present, candidate in candidates if present):
        try:
            affine = np.asarray(candidate(), np.float64)
            lengths = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
            # The determinant is small, relative to the lengths of the columns, if axes are zero or parallel.
            if np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-3 * lengths.prod() > 0:
                return affine
        # An invalid quaternion counts as absent.
        except Exception:
            continue
    return np.eye(4)


def _kind(start: bytes) -> type[nibabel.Nifti1Image] | None:
    if start[344:348] == b"n+1\0":
        return nibabel.Nifti1Image
    if start[4:8] == b"n+2\0":
        return nibabel.Nifti2Image
    return None

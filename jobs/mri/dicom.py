"""DICOM images: values as the scanner meant them, shown through their window."""

import io

import numpy as np
import pydicom
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, get_decoder, pixel_array
from pydicom.uid import ImplicitVRLittleEndian

from jobs.mri.slices import (
    MAX_PIXELS,
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

SUFFIXES = (".dcm", ".dicom", ".ima")
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
# The UID of data sets that are deflated as a whole: they would be inflated before any size could be checked.
DEFLATED = b"1.2.840.10008.1.2.1.99"
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601, as Pillow computes it for other formats


def is_dicom(data: bytes, name: str) -> bool:
    """Return whether `data` is a DICOM file; without the preamble that marks one, its `name` must say so."""
    return data[128:132] == b"DICM" or name.lower().endswith(SUFFIXES)


def read(data: bytes) -> Picture:
    """Return the frames of a DICOM file; several are a volume.

    Values are rescaled (or looked up in the modality table) and shown through the first VOI table or window (PS3.3
    C.11.2); without one, between the 0.5 and 99.5 percentiles of the file. MONOCHROME1 is inverted, colour becomes
    luminance.

    Raises Unusable: not-an-image, truncated, unsupported or decompression-bomb.
    """
    marked = data[128:132] == b"DICM"
    if DEFLATED in data[:1024]:
        raise Unusable("unsupported", "DICOM with a deflated data set")
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        patient, study = (str(dataset.get(name) or "").strip() for name in ("PatientID", "StudyInstanceUID"))
        rows, columns = (int(dataset.get(name) or 0) for name in ("Rows", "Columns"))
        frames, samples = (int(dataset.get(name) or 1) for name in ("NumberOfFrames", "SamplesPerPixel"))
        syntax = dataset.file_meta.setdefault("TransferSyntaxUID", ImplicitVRLittleEndian).value
    except Exception as error:
        raise Unusable("truncated" if marked else "not-an-image", one_line(error)) from None
    if not any(name in dataset for name in PIXELS):
        raise Unusable("truncated" if rows else "not-an-image", "DICOM without pixels")
    check_size(rows * columns, MAX_PIXELS, "pixels")
    check_size(rows * columns * frames * samples, MAX_VOXELS, "values")
    try:
        if not _has_decoder(syntax):
            raise Unusable("unsupported", f"DICOM compressed as {syntax.name}")
        values = np.asarray(pixel_array(dataset))
        shown = _shown(values if frames > 1 else values[np.newaxis], dataset)
        spacing = _group(dataset, 0, "PixelMeasuresSequence").get("PixelSpacing") or (1, 1)
        row_mm, column_mm = (float(length) for length in spacing)
    except (Unusable, MemoryError):
        raise
    # pydicom and its decoders raise nearly anything on damaged data.
    except Exception as error:
        raise Unusable("truncated", one_line(error)) from None
    slices = [
        Slice(square_pixels(frame, row_mm, column_mm), number if frames > 1 else None)
        for number, frame in enumerate(shown)
    ]
    return Picture(slices, "DICOM", patient, study)


def _has_decoder(syntax: pydicom.uid.UID) -> bool:
    """Return whether pixels in this transfer syntax can be read here. Raises ValueError if it is none."""
    try:
        return not syntax.is_compressed or get_decoder(syntax).is_available
    except NotImplementedError:
        return False


def _shown(values: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Return uint8 [frames, rows, columns] as a viewer would show the stored `values`."""
    photometric = dataset.PhotometricInterpretation
    if photometric == "PALETTE COLOR":
        values = apply_color_lut(values, dataset)
    if values.ndim == 4:
        return stretch(values[..., :3].astype(np.float32) @ LUMINANCE, 0, np.iinfo(values.dtype).max)
    real = [
        apply_modality_lut(frame, _group(dataset, number, "PixelValueTransformationSequence"))
        for number, frame in enumerate(values)
    ]
    windows = [_group(dataset, number, "FrameVOILUTSequence") for number in range(len(real))]
    whole = (0.0, 0.0) if all(map(_has_window, windows)) else robust_range(np.stack(real))
    gray = np.stack([_windowed(frame, window, whole) for frame, window in zip(real, windows, strict=True)])
    return 255 - gray if photometric == "MONOCHROME1" else gray


def _group(dataset: pydicom.Dataset, frame: int, sequence: str) -> pydicom.Dataset:
    """Return what holds a frame's attributes of `sequence`: a functional group (PS3.3 C.7.6.16) or `dataset`."""
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    for group in (*per_frame[frame : frame + 1], *shared[:1]):
        if group.get(sequence):
            return group.get(sequence)[0]
    return dataset


def _has_window(dataset: pydicom.Dataset) -> bool:
    return bool(dataset.get("VOILUTSequence")) or _window(dataset) is not None


def _window(dataset: pydicom.Dataset) -> tuple[float, float] | None:
    """Return the first window's centre and width, None where there is none or one that shows nothing."""
    found = []
    for name in ("WindowCenter", "WindowWidth"):
        value = dataset.get(name)
        if value is None or value == "":
            return None
        found.append(float(value[0] if isinstance(value, pydicom.multival.MultiValue) else value))
    centre, width = found
    return (centre, width) if width > 0 else None


def _windowed(real: np.ndarray, dataset: pydicom.Dataset, whole: tuple[float, float]) -> np.ndarray:
    """Return uint8 from rescaled values, through the VOI table or window of `dataset`, or else between `whole`."""
    if dataset.get("VOILUTSequence"):
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        return stretch(apply_voi_lut(np.rint(real).astype(np.int64), dataset), 0, 2**bits - 1)
    window = _window(dataset)
    if window is None:
        return stretch(real, *whole)
    centre, width = window
    function = str(dataset.get("VOILUTFunction") or "LINEAR")
    if function == "SIGMOID":
        return stretch(1 / (1 + np.exp(-4 * (real - centre) / width)), 0, 1)
    if function == "LINEAR":
        centre, width = centre - 0.5, max(width - 1, 1e-3)
    return stretch(real, centre - width / 2, centre + width / 2)

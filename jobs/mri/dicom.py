"""Reads DICOM images: rescaled values, shown with their window."""

import io
import zlib
from typing import NamedTuple

import numpy as np
import pydicom
from pydicom import filereader
from pydicom.pixels import apply_color_lut, get_decoder, iter_pixels
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    UID_dictionary,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, STANDARD_VR

from jobs.mri import attributes, damage, masks, modality, window
from jobs.mri.gray import luminance, to_gray
from jobs.mri.slices import BUDGET, Picture, Slice, Unusable, check_size, decoder_error, square_pixels

PALETTE = "PALETTE COLOR"
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
# Bytes of the length of an element, by value representation; without one (implicit VR) the length has 4 bytes.
LENGTH_BYTES = {vr.encode(): 4 if vr in EXPLICIT_VR_LENGTH_32 else 2 for vr in STANDARD_VR}


def is_dicom(data: bytes) -> bool:
    """Return whether `data` is a DICOM file, by its signature or, without a preamble, by its first two elements."""
    if data[128:132] == b"DICM":
        return True
    first = _element(data, 0)
    return first is not None and _element(data, first) is not None


def _element(data: bytes, place: int) -> int | None:
    """Return the end of the element at `place`; None if it is not of group 2 or 8, with which a data set begins."""
    for order in ("little", "big"):
        group, element = (int.from_bytes(data[at : at + 2], order) for at in (place, place + 2))  # type: ignore[arg-type]
        if group not in (0x0002, 0x0008) or (group, element) == (0x0008, 0xFFFF):
            continue
        explicit = LENGTH_BYTES.get(data[place + 4 : place + 6])
        size = explicit or 4
        begin = place + (12 if explicit == 4 else 8)
        length = int.from_bytes(data[begin - size : begin], order)  # type: ignore[arg-type]
        if length < 2**16 and begin + length <= len(data):
            return begin + length
    return None


def read(data: bytes) -> Picture:
    """Return the frames of a DICOM file; several frames are a volume, regardless of NumberOfFrames.

    Values are rescaled (or looked up in the modality table) and shown with the first VOI table or window (PS3.3
    C.11.2); without one, or if almost all pixels would be black or white, with the scale of `to_gray`. Padding becomes
    black, MONOCHROME1 is inverted, colour becomes luminance. An empty or invalid optional attribute counts as absent.

    Raises Unusable: not-an-image, not-a-picture, not-mr, truncated, unsupported, decoder-error, decompression-bomb or
    blank.
    """
    dataset = _parsed(data)
    modality.require_mr(dataset)
    kind = next((name for name in PIXELS if name in dataset), None)
    if kind is None:
        promised = attributes.whole(dataset, "Rows", 0)
        raise Unusable("truncated" if promised else "not-a-picture", "DICOM without pixel data")
    layout = _layout(dataset, kind)
    values = _values(dataset, layout)
    remarks: list[str] = []
    try:
        if layout.photometric.startswith("MONOCHROME"):
            gray = window.shown(values, window.padding(values, dataset), dataset, remarks)
        else:
            gray = values if values.dtype == np.uint8 else to_gray(values)
            masks.reject_label_maps(gray)
    except (Unusable, MemoryError):
        raise
    except Exception as error:
        raise decoder_error(error, "the gray scale of a DICOM file") from None
    slices = []
    for number, frame in enumerate(gray):
        spacing = attributes.numbers(attributes.group(dataset, number, "PixelMeasuresSequence"), "PixelSpacing")
        ratio = attributes.numbers(dataset, "PixelAspectRatio")
        row_mm, column_mm = next((found for found in (spacing, ratio) if len(found) == 2), (1.0, 1.0))
        slices.append(Slice(square_pixels(frame, row_mm, column_mm), number if len(gray) > 1 else None))
    patient, study = (attributes.text(dataset, name) for name in ("PatientID", "StudyInstanceUID"))
    return Picture(slices, "DICOM", patient, study, tuple(remarks))


# -- the data set --------------------------------------------------------------------------------------------------


def _parsed(data: bytes) -> pydicom.Dataset:
    """Return the data set in `data`, unpacked within the budget if it is deflated."""
    marked = data[128:132] == b"DICM"
    try:
        file = io.BytesIO(data)
        filereader.read_preamble(file, force=True)
        meta = filereader._read_file_meta_info(file)
        if str(meta.get("TransferSyntaxUID", "")).strip(" \0") == DeflatedExplicitVRLittleEndian:
            stream = zlib.decompressobj(-zlib.MAX_WBITS)
            inflated = stream.decompress(file.read(), BUDGET.file_bytes + 1)
            check_size(len(inflated), BUDGET.file_bytes, "bytes")
            if not stream.eof:
                raise Unusable("truncated", "the deflated data set ends early")
            dataset: pydicom.Dataset = filereader.read_dataset(io.BytesIO(inflated), False, True)
            dataset.file_meta = meta
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
            dataset.set_original_encoding(False, True)
            return dataset
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        if not dataset.file_meta.get("TransferSyntaxUID"):
            implicit, little = dataset.original_encoding
            explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    except (Unusable, MemoryError):
        raise
    except (EOFError, zlib.error):
        raise Unusable("truncated", "the DICOM data set ends early") from None
    except Exception as error:
        if not marked:
            raise Unusable("not-an-image", "neither an image nor a whole DICOM data set") from None
        raise decoder_error(error, "a DICOM data set") from None
    if not len(dataset):
        raise Unusable("truncated" if marked else "not-an-image", "a DICOM file without a data set")
    return dataset


class Layout(NamedTuple):
    """The layout of pixel data: the number of `frames`, and of `unused` bits below each value."""

    frames: int
    unused: int
    photometric: str


def _layout(dataset: pydicom.Dataset, kind: str) -> Layout:
    """Return the layout of the pixel data `kind` of `dataset`, within the budget; repair attributes for the decoder.

    SamplesPerPixel and PhotometricInterpretation decide about colour, not the shape of an array.
    """
    rows, columns = (attributes.whole(dataset, name, 0) for name in ("Rows", "Columns"))
    samples = attributes.whole(dataset, "SamplesPerPixel", 1) or 1
    photometric = attributes.text(dataset, "PhotometricInterpretation").upper() or "MONOCHROME2"
    bits = attributes.whole(dataset, "BitsAllocated", 0) or {PIXELS[1]: 32, PIXELS[2]: 64}.get(kind, 0)
    for name, needed in (("Rows", rows), ("Columns", columns), ("BitsAllocated", bits)):
        if not needed:
            raise Unusable("unsupported", f"DICOM with pixel data and no usable {name}: export it anew")
    if samples not in (1, 3) or (samples == 1) != (photometric.startswith("MONOCHROME") or photometric == PALETTE):
        raise Unusable("unsupported", "DICOM whose SamplesPerPixel and PhotometricInterpretation contradict each other")
    check_size(rows * columns, BUDGET.pixels, "pixels")

    # The decoder fails if one of these attributes is absent or invalid.
    for name, usual, most in (("BitsStored", bits, bits), ("PixelRepresentation", 0, 1), ("PlanarConfiguration", 0, 1)):
        if attributes.whole(dataset, name, most + 1) > most:
            setattr(dataset, name, usual)
    stored = attributes.whole(dataset, "BitsStored", 0) or bits
    high = attributes.whole(dataset, "HighBit", stored - 1)
    # The decoder starts at the lowest bit: values in higher bits are decoded together with the unused bits below.
    unused = high + 1 - stored if stored <= high < bits else 0
    dataset.BitsStored, dataset.HighBit = stored + unused, stored + unused - 1
    dataset.BitsAllocated, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = bits, samples, photometric

    frames = attributes.whole(dataset, "NumberOfFrames", 1) or 1
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        frames = max(frames, _frames_listed(dataset))
    else:
        one = rows * columns * samples * bits * (2 if photometric == "YBR_FULL_422" else 3) // 3
        length = len(dataset[kind].value or b"")
        check_size(frames, BUDGET.slices, "frames")
        if 8 * length < one * frames:
            raise Unusable("truncated", f"{length} bytes of pixel data for {frames} frames of {rows} x {columns}")
        frames = 8 * length // one
    check_size(frames, BUDGET.slices, "frames")
    check_size(rows * columns * samples * frames, BUDGET.voxels, "values")
    dataset.NumberOfFrames = frames
    return Layout(frames, unused, photometric)


def _values(dataset: pydicom.Dataset, layout: Layout) -> np.ndarray:
    """Return [frames, rows, columns]: stored values, or the luminance of colours, uint8 if the colours are uint8."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed and not _has_decoder(syntax):
        name = syntax.name if syntax in UID_dictionary else "a method that the standard does not know"
        raise Unusable("unsupported", f"DICOM compressed as {name}: convert it with `gdcmconv --raw` or `dcmdjpeg`")
    found: list[np.ndarray] = []
    try:
        for frame in iter_pixels(dataset, indices=range(layout.frames)):
            if layout.photometric == PALETTE:
                frame = apply_color_lut(frame, dataset)
            if frame.ndim == 3:
                gray = luminance(frame)
                frame = np.rint(gray).astype(np.uint8) if frame.dtype == np.uint8 else gray
            found.append(frame >> layout.unused if layout.unused and frame.dtype.kind in "iu" else frame)
    except MemoryError:
        raise
    # pydicom and its decoders raise many kinds of exceptions for damaged data.
    except Exception as error:
        if syntax.is_compressed and _ends_early(dataset):
            raise Unusable("truncated", "the compressed pixel data end early") from None
        raise decoder_error(error, "the pixel data of a DICOM file") from None
    return np.stack(found)


def _frames_listed(dataset: pydicom.Dataset) -> int:
    """Return the number of frames in the offset table of compressed pixel data, 0 if it is empty or invalid."""
    try:
        return len(pydicom.encaps.parse_basic_offsets(dataset.PixelData))
    except Exception:
        return 0


def _has_decoder(syntax: pydicom.uid.UID) -> bool:
    """Return whether an installed decoder supports this transfer syntax."""
    try:
        return get_decoder(syntax).is_available
    except (NotImplementedError, ValueError):
        return False


def _ends_early(dataset: pydicom.Dataset) -> bool:
    """Return whether compressed pixel data are truncated, between fragments or within the last JPEG."""
    try:
        fragments = list(pydicom.encaps.generate_fragments(dataset.PixelData))
    except Exception:
        return True
    return not fragments or damage.found(fragments[-1]) is not None

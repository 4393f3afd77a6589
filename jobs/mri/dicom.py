"""DICOM images: values as the scanner meant them, shown through their window."""

import io
import zlib

import numpy as np
import pydicom
from pydicom import filereader
from pydicom.pixels import apply_color_lut, get_decoder, iter_pixels
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, UID_dictionary

from jobs.mri import attributes, damage, masks, modality
from jobs.mri.gray import luminance, scale_of, stretch, to_gray
from jobs.mri.slices import BUDGET, Picture, Slice, Unusable, check_size, decoder_error, square_pixels

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
CONVERT = "convert it with `gdcmconv --raw` or `dcmdjpeg`"
# Of the pixels that are shown, a window must leave this share between black and white; one that does not is not used.
BETWEEN = 0.02
VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)


def is_dicom(data: bytes) -> bool:
    """Return whether `data` is a DICOM file, by its mark or, without a preamble, by its first two elements."""
    if data[128:132] == b"DICM":
        return True
    first = _element(data, 0)
    return first is not None and _element(data, first) is not None


def _element(data: bytes, place: int) -> int | None:
    """Return where the element at `place` ends; None unless it is one of groups 2 or 8 as a data set begins with."""
    for order in ("little", "big"):
        group, element = (int.from_bytes(data[at : at + 2], order) for at in (place, place + 2))  # type: ignore[arg-type]
        if group not in (0x0002, 0x0008) or (group, element) == (0x0008, 0xFFFF):
            continue
        vr = data[place + 4 : place + 6]
        if vr in VRS:
            long = vr in (b"OB", b"OW", b"SQ", b"UN", b"UT", b"UC", b"UR", b"OF", b"OD", b"OL", b"OV")
            begin, size = (place + 12, 4) if long else (place + 8, 2)
        else:
            begin, size = place + 8, 4
        length = int.from_bytes(data[begin - size : begin], order)  # type: ignore[arg-type]
        if length < 2**16 and begin + length <= len(data):
            return begin + length
    return None


def read(data: bytes) -> Picture:
    """Return the frames of a DICOM file; several are a volume, whether NumberOfFrames says so or not.

    Values are rescaled (or looked up in the modality table) and shown through the first VOI table or window (PS3.3
    C.11.2); without one, or if it leaves nothing to see, as `to_gray` does. Padding is black, MONOCHROME1 is inverted,
    colour becomes luminance. An optional attribute that is empty or broken is as if it were absent.

    Raises Unusable: not-an-image, not-a-picture, not-mr, truncated, unsupported, decoder-error, decompression-bomb or
    blank.
    """
    dataset = _parsed(data)
    modality.check(dataset)
    kind = next((name for name in PIXELS if name in dataset), None)
    if kind is None:
        promised = attributes.whole(dataset, "Rows", 0)
        raise Unusable("truncated" if promised else "not-a-picture", "DICOM without pixel data")
    values, colour = _values(dataset, kind)
    hidden = None if colour else _padding(values, dataset)
    remarks: list[str] = []
    try:
        if colour:
            gray = values if values.dtype == np.uint8 else to_gray(values)
            masks.refuse_label_maps(gray)
        else:
            gray = _shown(values, hidden, dataset, remarks)
    except (Unusable, MemoryError):
        raise
    except Exception as error:
        raise decoder_error(error, "the gray scale of a DICOM file") from None
    slices = []
    for number, frame in enumerate(gray):
        spacing = attributes.numbers(_group(dataset, number, "PixelMeasuresSequence"), "PixelSpacing")
        ratio = attributes.numbers(dataset, "PixelAspectRatio")
        row_mm, column_mm = next((found for found in (spacing, ratio) if len(found) == 2), (1.0, 1.0))
        slices.append(Slice(square_pixels(frame, row_mm, column_mm), number if len(gray) > 1 else None))
    patient, study = (attributes.text(dataset, name) for name in ("PatientID", "StudyInstanceUID"))
    return Picture(slices, "DICOM", patient, study, tuple(remarks))


# -- the data set --------------------------------------------------------------------------------------------------


def _parsed(data: bytes) -> pydicom.Dataset:
    """Return the data set in `data`, inflated within the budget if it is deflated."""
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
            dataset.file_meta.TransferSyntaxUID = (
                ImplicitVRLittleEndian
                if implicit
                else ExplicitVRLittleEndian
                if little
                else pydicom.uid.ExplicitVRBigEndian
            )
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


def _values(dataset: pydicom.Dataset, kind: str) -> tuple[np.ndarray, bool]:
    """Return the stored values [frames, rows, columns], and whether they are luminance of colours.

    SamplesPerPixel and PhotometricInterpretation decide what is colour, never the shape of an array.
    """
    rows, columns = (attributes.whole(dataset, name, 0) for name in ("Rows", "Columns"))
    samples = attributes.whole(dataset, "SamplesPerPixel", 1) or 1
    photometric = attributes.text(dataset, "PhotometricInterpretation").upper() or "MONOCHROME2"
    bits = attributes.whole(dataset, "BitsAllocated", 0) or {PIXELS[1]: 32, PIXELS[2]: 64}.get(kind, 0)
    syntax = dataset.file_meta.TransferSyntaxUID
    if not rows or not columns or not bits:
        missing = next(name for name in ("Rows", "Columns", "BitsAllocated") if not attributes.whole(dataset, name, 0))
        raise Unusable("unsupported", f"DICOM with pixel data and no usable {missing}: export it anew")
    grayscale = photometric.startswith("MONOCHROME")
    if samples not in (1, 3) or (samples == 3) == (grayscale or photometric == "PALETTE COLOR"):
        raise Unusable("unsupported", "DICOM whose SamplesPerPixel and PhotometricInterpretation contradict each other")
    if syntax.is_compressed and not _has_decoder(syntax):
        name = syntax.name if syntax in UID_dictionary else "a method that the standard does not know"
        raise Unusable("unsupported", f"DICOM compressed as {name}: {CONVERT}")
    check_size(rows * columns, BUDGET.pixels, "pixels")
    # What is absent or impossible among these stops the decoder, and has one usual value.
    for name, usual, most in (("BitsStored", bits, bits), ("PixelRepresentation", 0, 1), ("PlanarConfiguration", 0, 1)):
        if attributes.whole(dataset, name, most + 1) > most:
            setattr(dataset, name, usual)
    stored = attributes.whole(dataset, "BitsStored", 0) or bits
    high = attributes.whole(dataset, "HighBit", stored - 1)
    # The decoder counts bits from the lowest: values that lie higher are decoded with what is below them.
    below = high + 1 - stored if stored <= high < bits else 0
    dataset.BitsStored, dataset.HighBit = stored + below, stored + below - 1
    dataset.BitsAllocated, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = bits, samples, photometric
    frames = attributes.whole(dataset, "NumberOfFrames", 1) or 1
    one = rows * columns * samples
    check_size(frames, BUDGET.slices, "frames")
    check_size(one * frames, BUDGET.voxels, "values")
    if syntax.is_compressed:
        frames = max(frames, _frames_listed(dataset))
        check_size(frames, BUDGET.slices, "frames")
    else:
        needed = one * bits * (2 if photometric == "YBR_FULL_422" else 3) // 3
        length = len(dataset[kind].value or b"")
        if 8 * length < needed * frames:
            raise Unusable("truncated", f"{length} bytes of pixel data for {frames} frames of {rows} x {columns}")
        frames = 8 * length // needed
        check_size(frames, BUDGET.slices, "frames")
        check_size(one * frames, BUDGET.voxels, "values")
    dataset.NumberOfFrames = frames

    found: list[np.ndarray] = []
    try:
        for frame in iter_pixels(dataset, indices=range(frames)):
            check_size(len(found) + 1, BUDGET.slices, "frames")
            check_size(one * (len(found) + 1), BUDGET.voxels, "values")
            if photometric == "PALETTE COLOR":
                frame = apply_color_lut(frame, dataset)
            deep = frame.dtype != np.uint8
            found.append(
                frame >> below if frame.ndim == 2 and below else frame if frame.ndim == 2 else luminance(frame)
            )
    except (Unusable, MemoryError):
        raise
    # pydicom and its decoders raise nearly anything on damaged data.
    except Exception as error:
        if syntax.is_compressed and _ends_early(dataset):
            raise Unusable("truncated", "the compressed pixel data end early") from None
        raise decoder_error(error, "the pixel data of a DICOM file") from None
    values = np.stack(found)
    if grayscale:
        return values, False
    return (values if deep else np.rint(values).astype(np.uint8)), True


def _frames_listed(dataset: pydicom.Dataset) -> int:
    """Return how many frames the offset table of compressed pixel data lists, 0 if it is empty or broken."""
    try:
        return len(pydicom.encaps.parse_basic_offsets(dataset.PixelData))
    except Exception:
        return 0


def _has_decoder(syntax: pydicom.uid.UID) -> bool:
    """Return whether pixels in this transfer syntax can be read here."""
    try:
        return get_decoder(syntax).is_available
    except (NotImplementedError, ValueError):
        return False


def _ends_early(dataset: pydicom.Dataset) -> bool:
    """Return whether compressed pixel data are cut, or end within a JPEG."""
    try:
        fragments = list(pydicom.encaps.generate_fragments(dataset.PixelData))
    except Exception:
        return True
    return not fragments or damage.found(fragments[-1]) is not None


# -- from stored values to gray ------------------------------------------------------------------------------------


def _padding(values: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray | None:
    """Return bool like stored `values`: what PixelPaddingValue, and its range limit, declare to be no picture."""
    kind = next((kind for kind in ("", "Float", "DoubleFloat") if f"{kind}PixelPaddingValue" in dataset), "")
    first, last = (attributes.number(dataset, f"{kind}PixelPadding{end}") for end in ("Value", "RangeLimit"))
    if first is None:
        return None
    ends = [first, first if last is None else last]
    if values.dtype.kind in "iu":
        # The value's type follows PixelRepresentation, and is often the other one: both spell the same bits.
        size = 2 ** (8 * values.dtype.itemsize)
        info = np.iinfo(values.dtype)
        ends = [end + size if end < info.min else end - size if end > info.max else end for end in ends]
    return (values >= min(ends)) & (values <= max(ends))


def _shown(values: np.ndarray, hidden: np.ndarray | None, dataset: pydicom.Dataset, remarks: list[str]) -> np.ndarray:
    """Return uint8 [frames, rows, columns] as a viewer would show the stored `values`; `remarks` may get one more."""
    inverted = attributes.text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
    real = np.stack(
        [_rescaled(frame, _group(dataset, n, "PixelValueTransformationSequence")) for n, frame in enumerate(values)]
    )
    unwindowed = to_gray(real, hidden, inverted=inverted)
    scale = scale_of(real, hidden, inverted=inverted)
    masks.refuse_label_maps(unwindowed)
    gray = np.empty(real.shape, np.uint8)
    for number, frame in enumerate(real):
        shown = _windowed(frame, _group(dataset, number, "FrameVOILUTSequence"))
        if shown is None:
            return unwindowed
        seen = shown if hidden is None else shown[~hidden[number]]
        if seen.size and ((seen > 0) & (seen < 255)).mean() < BETWEEN and _varied(frame):
            remarks.append("the window of the DICOM file leaves nothing to see: its range of values was shown instead")
            return unwindowed
        gray[number] = 255 - shown if inverted else shown
    if scale.padded:
        scale.blacken(gray, real)
    else:
        gray[scale.hidden] = 0
    return gray


def _varied(frame: np.ndarray) -> bool:
    return len(np.unique(frame)) > masks.FEW_VALUES


def _rescaled(frame: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Return float32 of stored values by the modality table, or by slope and intercept; a slope of 0 is none."""
    for item in attributes.items(dataset, "ModalityLUTSequence")[:1]:
        table = attributes.lookup_table(item)
        if table:
            return _looked_up(frame, table)
    slope, intercept = (attributes.number(dataset, f"Rescale{part}") for part in ("Slope", "Intercept"))
    real = frame.astype(np.float32)
    return real * np.float32(slope or 1) + np.float32(intercept or 0) if slope or intercept else real


def _looked_up(values: np.ndarray, table: tuple[np.ndarray, int, int]) -> np.ndarray:
    entries, first, _ = table
    return entries[np.clip(np.rint(values).astype(np.int64) - first, 0, len(entries) - 1)]


def _windowed(real: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray | None:
    """Return uint8 from rescaled values through the first VOI table or window of `dataset`; None if it has none."""
    for item in attributes.items(dataset, "VOILUTSequence")[:1]:
        table = attributes.lookup_table(item)
        if table:
            return stretch(_looked_up(real, table), 0, 2 ** table[2] - 1)
    centre, width = (attributes.number(dataset, f"Window{part}") for part in ("Center", "Width"))
    if centre is None or width is None or width <= 0:
        return None
    function = attributes.text(dataset, "VOILUTFunction").upper()
    if function == "SIGMOID":
        return stretch(1 / (1 + np.exp(np.clip(-4 * (real - centre) / width, -50, 50))), 0, 1)
    if function != "LINEAR_EXACT":
        centre, width = centre - 0.5, max(width - 1, 1e-3)
    return stretch(real, centre - width / 2, centre + width / 2)


def _group(dataset: pydicom.Dataset, frame: int, sequence: str) -> pydicom.Dataset:
    """Return what holds a frame's attributes of `sequence`: a functional group (PS3.3 C.7.6.16) or `dataset`."""
    per_frame = attributes.items(dataset, "PerFrameFunctionalGroupsSequence")
    shared = attributes.items(dataset, "SharedFunctionalGroupsSequence")
    for group in (*per_frame[frame : frame + 1], *shared[:1]):
        for item in attributes.items(group, sequence)[:1]:
            return item
    return dataset

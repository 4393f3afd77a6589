"""DICOM values are those of pydicom's own tables and windows, NIfTI slices those of nibabel's canonical orientation."""

import io
import warnings
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.uid import MRImageStorage

from jobs.mri.gray import stretch
from jobs.mri.read import read
from jobs.mri.slices import Unusable, square_pixels
from tests.mri.heads import a_head, slices
from tests.mri.stored import Dicom

HEAD = a_head(0)
DICOM_FILES = Path(pydicom.__file__).parent / "data"
NIFTI_FILES = Path(nibabel.__file__).parent / "tests" / "data"


def expected(dataset: pydicom.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return what a viewer shows of a gray `dataset`, uint8 [frames, height, width], and where it is a picture."""
    values = pixel_array(dataset)
    values = values if values.ndim == 3 else values[np.newaxis]
    picture = np.ones(values.shape, bool)
    if "PixelPaddingValue" in dataset:
        picture = values != dataset.PixelPaddingValue
    real = apply_modality_lut(values, dataset)
    if dataset.get("VOILUTSequence"):
        # pydicom looks nothing up by numbers that are not whole, and counts entries in the type of one.
        count, first, bits = dataset.VOILUTSequence[0].LUTDescriptor
        if bits == 8:
            shown = np.array(dataset.VOILUTSequence[0].LUTData)[np.clip(real.astype(int) - first, 0, count - 1)]
        else:
            shown = apply_voi_lut(real.astype(np.int64), dataset)
        low, high = 0, 2**bits - 1
    elif "WindowWidth" in dataset:
        # The bounds of pydicom's result: those of all values that BitsStored allows (PS3.3 C.11.2.1.2).
        ends = -(2 ** (dataset.BitsStored - 1)), 2 ** (dataset.BitsStored - 1) - 1
        low, high = ends if dataset.PixelRepresentation else (0, 2**dataset.BitsStored - 1)
        if "ModalityLUTSequence" in dataset:
            low, high = 0, 2 ** dataset.ModalityLUTSequence[0].LUTDescriptor[2] - 1
        else:
            slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
            low, high = slope * low + intercept, slope * high + intercept
        shown = apply_voi_lut(real, dataset)
    else:
        shown = real
        low, high = np.percentile(real[picture], (0.5, 99.5))
    gray = stretch(np.asarray(shown, float) - low, 0, high - low)
    return 255 - gray if dataset.PhotometricInterpretation == "MONOCHROME1" else gray, picture


def check(data: bytes) -> None:
    """Assert that what is read of the DICOM file `data` is within one gray value of what pydicom makes of it."""
    wanted, picture = expected(pydicom.dcmread(io.BytesIO(data)))
    found = read(data, "a")
    shown = found.slices
    assert len(shown) == len(wanted)
    if found.remarks:  # its window shows next to nothing
        return
    windowed = {"VOILUTSequence", "WindowWidth"} & {element.keyword for element in pydicom.dcmread(io.BytesIO(data))}
    for piece, gray, inside in zip(shown, wanted, picture, strict=True):
        if windowed:
            assert np.abs(piece.pixels.astype(int) - gray)[inside].max() <= 1
        else:
            # What surrounds the head counts for black and white in percentiles of all, and not for the readers.
            assert np.corrcoef(piece.pixels[inside], gray[inside])[0, 1] > 0.98


WINDOWS = [(2048, 4096), (1000, 900), (1500, 200), (0, 8000)]


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("slope", "intercept"), [(None, None), (2.5, -400), (0.1, 100)])
@pytest.mark.parametrize(("dtype", "photometric"), [("uint16", "MONOCHROME2"), ("int16", "MONOCHROME1")])
@pytest.mark.parametrize(("centre", "width"), WINDOWS)
def test_windows(function, slope, intercept, dtype, photometric, centre, width):
    attributes = {
        "WindowCenter": f"{centre * (slope or 1) + (intercept or 0):g}",
        "WindowWidth": f"{width * (slope or 1):g}",
        "VOILUTFunction": function,
    }
    stored = Dicom(dtype, 12, photometric=photometric, slope=slope, intercept=intercept, attributes=attributes)
    check(stored.encode(HEAD[np.newaxis]))


def a_table(name: str, bits: int, first: int, count: int = 4096) -> dict[str, list[pydicom.Dataset]]:
    """Return a sequence with a table for `count` values from `first` on: bent, and the brighter the larger."""
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "US", [count, first, bits])
    item.add_new("LUTData", "US", np.rint((2**bits - 1) * np.linspace(0, 1, count) ** 0.7).astype(int).tolist())
    if name == "ModalityLUTSequence":
        item.ModalityLUTType = "US"
    return {name: [item]}


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("first", [0, 500])
@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_voi_tables(bits, first, dtype):
    check(Dicom(dtype, 12, attributes=a_table("VOILUTSequence", bits, first)).encode(HEAD[np.newaxis]))


@pytest.mark.parametrize("window", ["LINEAR", "SIGMOID", "table"])
@pytest.mark.parametrize("first", [0, 500])
def test_modality_tables(window, first):
    attributes = a_table("ModalityLUTSequence", 16, first)
    if window == "table":
        attributes |= a_table("VOILUTSequence", 8, 20_000, 30_000)
    else:
        attributes |= {"WindowCenter": "30000", "WindowWidth": "50000", "VOILUTFunction": window}
    check(Dicom("uint16", 12, attributes=attributes).encode(HEAD[np.newaxis]))


def as_mr(path: Path) -> bytes | None:
    """Return a file that comes with pydicom as one of MR; None if pydicom sees no gray picture of 16 bits in it."""
    dataset = pydicom.dcmread(path, force=True)
    if "PixelData" not in dataset or dataset.get("BitsAllocated") != 16:
        return None
    try:
        if pixel_array(dataset).ndim != 2:
            return None
    except (AttributeError, RuntimeError, ValueError):
        return None
    dataset.Modality, dataset.SOPClassUID, dataset.ImageType = "MR", MRImageStorage, ["ORIGINAL", "PRIMARY"]
    dataset.PixelSpacing = [1, 1]
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def test_files_that_come_with_pydicom():
    compared = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in sorted(path for path in DICOM_FILES.rglob("*") if path.is_file()):
            data = as_mr(path)
            if data is None:
                continue
            try:
                check(data)
            except Unusable as finding:
                # Those of a few pixels only are too small for a head.
                assert finding.reason == "too-small", f"{path.name}: {finding}"
                assert min(pydicom.dcmread(io.BytesIO(data)).pixel_array.shape[-2:]) < 32
            except AssertionError as error:
                raise AssertionError(f"{path.relative_to(DICOM_FILES)}: {error}") from None
            else:
                compared[path.name.split("_")[0]] += 1
    assert compared["MR"] >= 7
    assert compared.total() >= 12


@pytest.mark.parametrize(
    "name",
    ["anatomical.nii", "example4d.nii.gz", "example_nifti2.nii.gz", "functional.nii", "reoriented_anat_moved.nii"],
)
def test_files_that_come_with_nibabel(name):
    volume = nibabel.as_closest_canonical(nibabel.load(NIFTI_FILES / name))
    values = volume.get_fdata()
    values = values[..., 0] if values.ndim == 4 else values
    shown = slices((NIFTI_FILES / name).read_bytes(), name)
    assert shown
    columns, rows = volume.header.get_zooms()[:2]
    for piece in shown:
        plane = values[::-1, ::-1, piece.number].T
        wanted = square_pixels(stretch(plane, *np.percentile(values, (0.5, 99.5))), rows, columns)
        # What surrounds the head counts for black and white in percentiles of all, and not for the readers.
        assert np.corrcoef(piece.pixels.ravel(), wanted.ravel())[0, 1] > 0.98

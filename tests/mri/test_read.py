"""Every supported format comes out as a radiologist would see it; everything else is rejected with a reason."""

import gzip
import io
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_windowing

from jobs.mri.read import read
from jobs.mri.slices import REASONS, Unusable

RAMP = np.add.outer(3 * np.arange(40), 2 * np.arange(60)).astype(np.uint8)  # 0 to 235, [40, 60]


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def only(data: bytes, name: str = "a") -> np.ndarray:
    (piece,) = read(data, name).slices
    assert piece.pixels.dtype == np.uint8
    assert piece.number is None
    return piece.pixels


def reason(data: bytes, name: str = "a") -> str:
    with pytest.raises(Unusable) as caught:
        read(data, name)
    assert caught.value.reason in REASONS
    assert "\n" not in caught.value.detail
    return caught.value.reason


@pytest.mark.parametrize(
    ("kind", "options", "format"),
    [
        ("PNG", {}, "PNG"),
        ("BMP", {}, "BMP"),
        ("TIFF", {}, "TIFF"),
        ("TIFF", {"compression": "tiff_lzw"}, "TIFF"),
        ("WEBP", {"lossless": True}, "WebP"),
    ],
)
def test_lossless_formats_keep_every_pixel(kind, options, format):
    data = encoded(Image.fromarray(RAMP), kind, **options)
    assert read(data, "a").format == format
    np.testing.assert_array_equal(only(data), RAMP)


def test_jpeg_is_close():
    data = encoded(Image.fromarray(RAMP), "JPEG", quality=95)
    assert read(data, "a").format == "JPEG"
    assert np.abs(only(data).astype(int) - RAMP).max() < 12


def test_the_name_does_not_decide_the_format():
    np.testing.assert_array_equal(only(encoded(Image.fromarray(RAMP), "PNG"), "scan.jpg"), RAMP)


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda a: a),
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (4, np.flipud),
        (5, np.transpose),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).T),
        (8, np.rot90),
    ],
)
def test_exif_orientation_is_applied(orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(RAMP), "PNG", exif=exif)
    np.testing.assert_array_equal(only(data), turn(RAMP))


def test_palette_and_bilevel():
    flipped = Image.fromarray(255 - RAMP)
    flipped.putpalette([value for gray in range(255, -1, -1) for value in (gray,) * 3])
    np.testing.assert_array_equal(only(encoded(flipped, "PNG")), RAMP)
    dots = Image.fromarray(RAMP).convert("1")
    np.testing.assert_array_equal(only(encoded(dots, "PNG")), np.asarray(dots) * np.uint8(255))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_on_black(mode):
    image = Image.fromarray(RAMP).convert(mode)
    image.putalpha(Image.fromarray(np.where(RAMP > 99, 255, 0).astype(np.uint8)))
    np.testing.assert_array_equal(only(encoded(image, "PNG")), np.where(RAMP > 99, RAMP, 0))


def test_transparent_palette_entry_lies_on_black():
    image = Image.fromarray(RAMP)
    image.putpalette([value for gray in range(256) for value in (gray,) * 3])
    np.testing.assert_array_equal(only(encoded(image, "PNG", transparency=200)), np.where(RAMP == 200, 0, RAMP))


def test_colour_becomes_luminance():
    rgb = np.stack([RAMP, np.roll(RAMP, 7, 0), np.roll(RAMP, 9, 1)], 2)
    luminance = rgb @ [0.299, 0.587, 0.114]
    assert np.abs(only(encoded(Image.fromarray(rgb), "PNG")) - luminance).max() <= 1
    cmyk = encoded(Image.fromarray(rgb).convert("CMYK"), "JPEG", quality=100)
    assert np.abs(only(cmyk) - luminance).mean() < 4


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})])
@pytest.mark.parametrize("factor", [257, 16, 3])
def test_deep_values_are_shown_from_black_to_white(kind, options, factor):
    deep = Image.fromarray(RAMP.astype(np.uint16) * factor)
    assert shows(only(encoded(deep, kind, **options)), RAMP)


def shows(shown: np.ndarray, values: np.ndarray) -> bool:
    """Return whether `shown` is `values`, stretched from black to white."""
    return (shown.min(), shown.max()) == (0, 255) and np.corrcoef(shown.ravel(), values.ravel())[0, 1] > 0.999


def test_real_valued_tiff():
    assert shows(only(encoded(Image.fromarray(RAMP / np.float32(235) - 0.5), "TIFF")), RAMP)


def test_tiff_whose_zero_is_white():
    deep = Image.fromarray((255 - RAMP).astype(np.uint16) * 257)
    assert shows(only(encoded(deep, "TIFF", tiffinfo={262: 0})), RAMP)
    # Pillow itself inverts 8 bits when it writes them.
    np.testing.assert_array_equal(only(encoded(Image.fromarray(RAMP), "TIFF", tiffinfo={262: 0})), RAMP)


def test_tiff_of_thumbnails_alone_is_unusable():
    page = Image.fromarray(RAMP)
    page.encoderinfo = {"tiffinfo": {254: 1}}
    with pytest.raises(Unusable, match="reduced copies"):
        read(encoded(page, "TIFF", save_all=True, append_images=[page], tiffinfo={254: 1}), "a")


def test_tiff_of_several_pages_is_a_volume():
    pages = [Image.fromarray(np.roll(RAMP, shift, 0)) for shift in range(3)]
    picture = read(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]), "a")
    assert [piece.number for piece in picture.slices] == [0, 1, 2]
    for shift, piece in enumerate(picture.slices):
        np.testing.assert_array_equal(piece.pixels, np.roll(RAMP, shift, 0))


def bundled(name: str) -> Path:
    """Return a DICOM file that comes with pydicom."""
    return Path(get_testdata_file(name, download=False))


def a_dicom(values: np.ndarray, syntax=pydicom.uid.ExplicitVRLittleEndian, **attributes) -> bytes:
    dataset = a_dataset(values, **attributes)
    dataset.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def a_dataset(values: np.ndarray, **attributes) -> pydicom.Dataset:
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = pydicom.uid.MRImageStorage, "1.2.3"
    dataset.Rows, dataset.Columns = values.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * values.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    if values.ndim == 3:
        dataset.NumberOfFrames = len(values)
    dataset.PixelData = values.tobytes()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 2.5, "RescaleIntercept": -400}])
def test_dicom_window_is_that_of_pydicom(function, rescale):
    values = RAMP.astype(np.int16) * 10
    window = {"WindowCenter": [900, 1], "WindowWidth": [700, 2], "VOILUTFunction": function}
    shown = only(a_dicom(values, **window, **rescale))
    real = values * rescale.get("RescaleSlope", 1) + rescale.get("RescaleIntercept", 0)
    expected = apply_windowing(real, a_dataset(values, **window))
    expected = (expected + 2**15) / (2**16 - 1) * 255
    assert np.abs(shown - expected).max() <= 0.51


def test_dicom_without_a_window_is_stretched_between_percentiles():
    assert shows(only(a_dicom(RAMP.astype(np.uint16) * 5 + 1000)), RAMP)


def test_monochrome1_is_inverted():
    window = {"WindowCenter": 128, "WindowWidth": 256}
    plain = only(a_dicom(RAMP, **window))
    inverted = only(a_dicom(RAMP, **window, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(inverted, 255 - plain)


def test_dicom_of_several_frames_is_a_volume_of_a_known_patient():
    picture = read(a_dicom(np.stack([RAMP, RAMP[::-1]]), PatientID=" P1 ", StudyInstanceUID="1.2"), "a")
    assert (picture.format, picture.patient, picture.study) == ("DICOM", "P1", "1.2")
    assert [piece.number for piece in picture.slices] == [0, 1]
    np.testing.assert_array_equal(picture.slices[0].pixels, picture.slices[1].pixels[::-1])


def test_enhanced_dicom_has_a_window_for_each_frame():
    groups = []
    for centre in (128, 328):
        window = pydicom.Dataset()
        window.WindowCenter, window.WindowWidth = centre, 256
        rescale = pydicom.Dataset()
        rescale.RescaleIntercept, rescale.RescaleSlope, rescale.RescaleType = centre - 128, 1, "US"
        group = pydicom.Dataset()
        group.FrameVOILUTSequence, group.PixelValueTransformationSequence = [window], [rescale]
        groups.append(group)
    picture = read(a_dicom(np.stack([RAMP, RAMP]), PerFrameFunctionalGroupsSequence=groups), "a")
    for piece in picture.slices:
        assert np.abs(piece.pixels.astype(int) - RAMP).max() <= 1


def test_dicom_pixels_that_are_not_square():
    assert only(a_dicom(RAMP, PixelSpacing=[2, 1])).shape == (80, 60)
    assert only(a_dicom(RAMP, PixelSpacing=[1, 1.5])).shape == (40, 90)
    assert only(a_dicom(RAMP, PixelSpacing=[0, 1])).shape == (40, 60)


@pytest.mark.parametrize("variant", ["implicit", "bigendian", "RLE", "jp2klossless", "expb", "padded"])
def test_transfer_syntaxes_show_one_picture(variant):
    plain, other = (
        read(bundled(f"MR_small{part}.dcm").read_bytes(), "a").slices[0].pixels for part in ("", f"_{variant}")
    )
    np.testing.assert_array_equal(plain, other)


def test_every_dicom_of_pydicoms_collection_is_read_or_rejected():
    outcomes = {}
    for path in sorted(bundled("MR_small.dcm").parent.glob("*.dcm")):
        try:
            outcomes[path.name] = read(path.read_bytes(), path.name).format
        except Unusable as finding:
            outcomes[path.name] = finding.reason
    assert outcomes["MR_small.dcm"] == "DICOM"
    assert outcomes["CT_small.dcm"] == "not-mr"
    assert outcomes["rtdose.dcm"] == outcomes["reportsi.dcm"] == "not-a-picture"
    assert outcomes["MR_truncated.dcm"] == "truncated"


def a_volume(shape=(30, 40, 10)) -> np.ndarray:
    """Return values in RAS+ order: brighter to the right, to the front and up, with air at both ends."""
    x, y, z = np.meshgrid(*map(np.arange, shape), indexing="ij")
    values = (100 + x + 2 * y + 3 * z).astype(np.int16)
    values[:, :, 0] = values[:, :, -1] = 0
    return values


def a_nifti(values: np.ndarray, affine=None, kind=nibabel.Nifti1Image) -> bytes:
    return kind(values, np.eye(4) if affine is None else affine).to_bytes()


def test_nifti_gives_axial_slices_nose_up_right_on_the_left():
    picture = read(a_nifti(a_volume()), "a.nii")
    assert picture.format == "NIfTI"
    assert [piece.number for piece in picture.slices] == list(range(1, 9))  # the two of air are left out
    pixels = picture.slices[0].pixels.astype(int)
    assert pixels.shape == (40, 30)
    assert pixels[0].mean() > pixels[-1].mean() + 50  # the front is brighter, and on top
    assert pixels[:, 0].mean() > pixels[:, -1].mean() + 20  # the right is brighter, and on the left


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SRA"])
def test_nifti_of_any_orientation_shows_the_same(axes):
    plain = nibabel.Nifti1Image(a_volume(), np.diag([1, 1, 2, 1]))
    turned = plain.as_reoriented(
        nibabel.orientations.ornt_transform(
            nibabel.io_orientation(plain.affine), nibabel.orientations.axcodes2ornt(axes)
        )
    )
    for one, other in zip(read(plain.to_bytes(), "a").slices, read(turned.to_bytes(), "a").slices, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_nifti_kinds_agree():
    expected = read(a_nifti(a_volume()), "a").slices
    scaled = nibabel.Nifti1Image(a_volume(), np.eye(4))
    scaled.header.set_slope_inter(3, -50)
    variants = [
        gzip.compress(a_nifti(a_volume())),
        a_nifti(a_volume(), kind=nibabel.Nifti2Image),
        a_nifti(a_volume().astype(np.float64)),
        a_nifti(np.stack([a_volume(), 0 * a_volume()], 3)),
        nibabel.Nifti1Image(a_volume().astype(">i2"), np.eye(4), nibabel.Nifti1Header(endianness=">")).to_bytes(),
        scaled.to_bytes(),
    ]
    for data in variants:
        slices = read(data, "a").slices
        assert len(slices) == len(expected)
        np.testing.assert_array_equal(slices[0].pixels, expected[0].pixels)


def test_nifti_pixels_that_are_not_square():
    assert read(a_nifti(a_volume(), np.diag([1, 2, 1, 1])), "a").slices[0].pixels.shape == (80, 30)


def test_what_is_no_image():
    assert reason(b"") == "not-an-image"
    assert reason(b"a note\n", "note.png") == "not-an-image"
    assert reason(b"a note\n", "note.dcm") == "not-an-image"
    assert reason(gzip.compress(b"a note\n" * 100), "note.nii.gz") == "not-an-image"
    assert reason(encoded(Image.fromarray(RAMP), "GIF")) == "unsupported"


def files() -> dict[str, bytes]:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64)).astype(np.uint8)
    image = Image.fromarray(noise)
    return {kind: encoded(image, kind) for kind in ("JPEG", "PNG", "BMP", "TIFF", "WEBP")} | {
        "DICOM": a_dicom(noise),
        "NIfTI": a_nifti(a_volume()),
        "NIfTI.gz": gzip.compress(a_nifti(np.random.default_rng(1).integers(0, 99, (20, 20, 9)).astype(np.int16))),
    }


@pytest.mark.parametrize("kind", list(files()))
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_files(kind, share):
    data = files()[kind]
    if kind == "NIfTI.gz" and share < 0.5:
        share = 0.5
    assert reason(data[: int(share * len(data))], "a") == "truncated"


@pytest.mark.parametrize("kind", list(files()))
def test_damage_is_a_reason_and_never_a_crash(kind, capfd):
    rng = np.random.default_rng(7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(60):
            data = bytearray(files()[kind])
            for place in rng.integers(0, min(len(data), 600), 4):
                data[place] = rng.integers(256)
            try:
                assert read(bytes(data), "a").slices
            except Unusable as finding:
                assert finding.reason in REASONS
    assert capfd.readouterr() == ("", "")


def test_decompression_bombs_are_rejected_before_they_are_unpacked():
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    assert reason(b"\x89PNG\r\n\x1a\n" + chunk + encoded(Image.fromarray(RAMP), "PNG")[33:]) == "decompression-bomb"
    assert reason(encoded(Image.new("1", (9000, 9000)), "PNG")) == "decompression-bomb"
    assert reason(a_dicom(RAMP, Rows=65535, Columns=65535)) == "decompression-bomb"
    assert reason(a_dicom(RAMP, NumberOfFrames=10**9)) == "decompression-bomb"
    huge = nibabel.Nifti1Header()
    huge.set_data_dtype(np.int16)
    huge.set_data_shape((30000, 30000, 30000))
    huge["magic"], huge["vox_offset"] = b"n+1", 352
    assert reason(huge.binaryblock + bytes(100)) == "decompression-bomb"
    assert reason(gzip.compress(huge.binaryblock + bytes(10**6))) == "decompression-bomb"


def test_a_gzip_bomb_behind_a_small_header_is_not_unpacked():
    bomb = gzip.compress(a_nifti(a_volume()) + bytes(200 * 2**20), 9)
    tracemalloc.start()
    assert len(read(bomb, "a.nii.gz").slices) == 8
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()


def test_a_deflated_dicom_is_inflated():
    syntax = pydicom.uid.DeflatedExplicitVRLittleEndian
    np.testing.assert_array_equal(only(a_dicom(RAMP, syntax)), only(a_dicom(RAMP)))

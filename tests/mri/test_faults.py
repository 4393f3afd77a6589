"""The faults of real files, in small: what is read, and what is rejected for the correct reason."""

import csv
import io
import logging
import os
import unicodedata
from pathlib import Path

import imagecodecs
import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image

from jobs import preprocess
from jobs.common.errors import UserError
from jobs.mri import masks, sources
from jobs.mri.dataset import open_dataset
from jobs.mri.read import read
from jobs.mri.slices import BUDGET, Unusable
from jobs.settings import PreprocessSettings
from tests.mri.heads import a_head
from tests.mri.test_read import a_dicom, a_nifti, a_volume, encoded, only, reason

HEAD = a_head(3)
RAMP = np.add.outer(3 * np.arange(40), 2 * np.arange(60)).astype(np.uint8)


def gray(seed: int) -> np.ndarray:
    return (255 * a_head(seed)).astype(np.uint8)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def data(tmp_path) -> Path:
    """Return a folder of two different heads of each of two classes: every two are compared, which takes long."""
    for seed in range(4):
        save(tmp_path / "data" / ("no", "yes")[seed % 2] / f"{seed}.png", gray(seed))
    return tmp_path / "data"


def prepare(data: Path, **settings) -> tuple[dict[str, str], dict[str, tuple[str, str]]]:
    """Return the class of each source that was kept, and reason and detail of each that was not."""
    storage = data.parent / "out"
    step = preprocess.run(
        PreprocessSettings(data=str(data), storage=str(storage), **{"folds": 2, "image_size": 32} | settings)
    )
    rows = open_dataset(step.storage, step.prefix.removeprefix("datasets/")).rows
    lines = csv.DictReader(io.StringIO(step.read("quarantine.csv").decode(), newline=""))
    return {row.source: row.label for row in rows}, {line["source"]: (line["reason"], line["detail"]) for line in lines}


def shows(pixels: np.ndarray, head: np.ndarray = HEAD) -> bool:
    """Return whether `pixels` are the head, from black to white."""
    low, high = np.percentile(pixels, (1, 99.5))
    return low <= 5 and high >= 200 and np.corrcoef(pixels.ravel(), head.ravel())[0, 1] >= 0.99


# -- A: shapes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [2, 3, 4, 40])
def test_frames_that_nobody_declared_are_frames(frames):
    values = np.stack([(900 * a_head(seed)).astype(np.uint16) for seed in range(frames)])
    data = a_dicom(values)
    for declared in (None, 0):
        dataset = pydicom.dcmread(io.BytesIO(data))
        del dataset.NumberOfFrames
        if declared is not None:
            dataset.NumberOfFrames = declared
        buffer = io.BytesIO()
        dataset.save_as(buffer)
        slices = read(buffer.getvalue(), "a").slices
        assert [piece.number for piece in slices] == list(range(frames))
        assert all(shows(piece.pixels, a_head(seed)) for seed, piece in enumerate(slices))


def test_samples_that_contradict_the_photometric_interpretation():
    data = a_dicom(RAMP, SamplesPerPixel=3, PlanarConfiguration=0, PixelData=bytes(3 * RAMP.size))
    assert reason(data) == "unsupported"


# -- B: what is no picture -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"SOPClassUID": pydicom.uid.SegmentationStorage, "Modality": "SEG"}, "not-a-picture"),
        ({"SOPClassUID": pydicom.uid.SegmentationStorage}, "not-a-picture"),
        ({"SOPClassUID": pydicom.uid.RTDoseStorage}, "not-a-picture"),
        ({"SOPClassUID": pydicom.uid.ParametricMapStorage, "Modality": "MR"}, "not-a-picture"),
        ({"Modality": "RTDOSE"}, "not-a-picture"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]}, "not-a-picture"),
        ({"ImageType": ["DERIVED", "SECONDARY", "CSA REPORT"]}, "not-a-picture"),
        ({"SOPClassUID": pydicom.uid.CTImageStorage, "Modality": "CT"}, "not-mr"),
        ({"SOPClassUID": pydicom.uid.SecondaryCaptureImageStorage, "Modality": "US"}, "not-mr"),
        ({"SOPClassUID": pydicom.uid.SecondaryCaptureImageStorage, "Modality": "OT"}, "kept"),
        ({"SOPClassUID": "1.3.12.2.1107.5.9.1", "Modality": "MR"}, "kept"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"]}, "kept"),
        ({"ImageType": []}, "kept"),
    ],
)
def test_what_a_dicom_file_says_it_is_decides(attributes, expected):
    data = a_dicom((900 * HEAD).astype(np.uint16), **attributes)
    assert (reason(data) if expected != "kept" else "kept" if shows(only(data)) else "other") == expected


@pytest.mark.parametrize(
    "name",
    ["x_mask.tif", "sub-01_seg.nii.gz", "benign (1)_mask_1.png", "masks/1.png", "x-label.nii", "a/SEGMENTATIONS/b.jpg"],
)
def test_names_of_masks(name):
    assert masks.named(name)
    with pytest.raises(Unusable, match="not-a-picture"):
        read(encoded(Image.fromarray(gray(1)), "PNG"), name)


@pytest.mark.parametrize("name", ["Y1.jpg", "1.3.12.2.1107.5.2.3", "unmasked.png", "segment 4.png", "roisin/1.png"])
def test_names_of_pictures(name):
    assert not masks.named(name)


def a_map(labels: int, size: int = 160) -> np.ndarray:
    """Return uint8 [size, size]: regions inside each other."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    rim = 1 + 0.2 * np.sin(5 * np.arctan2(y, x))
    return sum((np.hypot(x - 0.2, y) < 0.6 * rim * (k + 1) / labels).astype(np.uint8) for k in range(labels))


@pytest.mark.parametrize("labels", [1, 2, 3])
@pytest.mark.parametrize("scale", [1, 60])
def test_label_maps_are_no_pictures(labels, scale):
    assert reason(encoded(Image.fromarray(a_map(labels) * np.uint8(scale)), "PNG")) == "not-a-picture"
    assert reason(a_dicom(a_map(labels).astype(np.uint16) * scale)) == "not-a-picture"
    volume = np.stack([a_map(labels)] * 9, 2).astype(np.int16)
    assert reason(a_nifti(volume)) == "not-a-picture"


def test_a_mask_saved_as_jpeg_is_no_picture():
    assert reason(encoded(Image.fromarray(255 * a_map(1)), "JPEG", quality=75)) == "not-a-picture"


def test_a_volume_of_many_labels_is_no_picture():
    assert reason(a_nifti(np.stack([a_map(12, 256)] * 9, 2).astype(np.int16))) == "not-a-picture"


@pytest.mark.parametrize("levels", [5, 8, 16, 32])
@pytest.mark.parametrize("size", [64, 160, 256])
def test_pictures_of_few_gray_values_are_kept(levels, size):
    head = np.asarray(Image.fromarray(gray(4)).resize((size, size)))
    few = (head // (256 / levels)).astype(np.uint8) * np.uint8(255 // (levels - 1))
    np.testing.assert_array_equal(only(encoded(Image.fromarray(few), "PNG")), few)


def test_masks_in_one_class_are_set_aside_and_counted(data, caplog):
    for seed in (1, 3, 5):
        save(data / "yes" / f"{seed}_mask.tif", 255 * a_map(1))
    kept, rejected = prepare(data)
    assert len(kept) == 4
    assert {reason for reason, _ in rejected.values()} == {"not-a-picture"}
    assert "3 of 7 files and slices are not used" in caplog.text


# -- C: the gray range ---------------------------------------------------------------------------------------------


def deep_png(values: np.ndarray) -> bytes:
    return imagecodecs.png_encode(values)


def deep_tiff(values: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


TWELVE = np.rint(3500 * HEAD).astype(np.uint16)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(deep_png(TWELVE), id="gray PNG"),
        pytest.param(deep_png(np.repeat(TWELVE[..., None], 3, 2)), id="RGB PNG"),
        pytest.param(deep_png(np.dstack([TWELVE, np.full_like(TWELVE, 65535)])), id="gray and alpha PNG"),
        pytest.param(deep_tiff(np.repeat(TWELVE[..., None], 3, 2), photometric="rgb"), id="RGB TIFF"),
        pytest.param(deep_tiff(HEAD.astype(np.float64)), id="float64"),
        pytest.param(deep_tiff(HEAD.astype(np.float16)), id="float16"),
        pytest.param(deep_tiff(TWELVE.astype(np.uint64)), id="uint64"),
        pytest.param(deep_tiff(TWELVE.astype(np.int16) - 1000), id="int16"),
        pytest.param(deep_tiff(np.where(HEAD == 0, np.nan, HEAD).astype(np.float32) - 2), id="nan"),
        pytest.param(deep_tiff(np.where(HEAD == 0, np.inf, HEAD).astype(np.float32)), id="inf"),
        pytest.param(deep_tiff(((HEAD - HEAD.mean()) / HEAD.std()).astype(np.float32)), id="z-scores"),
        pytest.param(imagecodecs.jpeg8_encode(TWELVE, bitspersample=12), id="12-bit JPEG"),
    ],
)
def test_every_depth_and_layout_is_shown_alike(data):
    assert shows(only(data))


@pytest.mark.parametrize("bits", [8, 16])
def test_one_hot_pixel_hides_no_head(bits):
    values = (HEAD * 2 ** (bits - 4)).astype(f"uint{bits}")
    values[0, 5] = 2**bits - 1
    assert shows(only(encoded(Image.fromarray(values), "PNG")))


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 450, "WindowWidth": 900}])
@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize(("dtype", "value"), [("int16", -2000), ("uint16", 63536)])
def test_padding_is_black(dtype, value, declared, window):
    y, x = np.mgrid[-1 : 1 : HEAD.shape[0] * 1j, -1 : 1 : HEAD.shape[1] * 1j]
    stored = (900 * HEAD).astype(dtype)
    stored[np.hypot(x, y) > 1] = value
    more = {"PixelPaddingValue": value} if declared else {}
    shown = only(a_dicom(stored, **window, **more))
    assert shows(shown)
    assert shown[np.hypot(x, y) > 1].max() == 0


@pytest.mark.parametrize("window", [(1e6, 10), (-5000, 1), (900, 1)])
def test_a_window_that_blanks_the_picture_is_not_used_and_that_is_said(data, caplog, window):
    stored = a_dicom((900 * HEAD).astype(np.uint16), WindowCenter=window[0], WindowWidth=window[1])
    assert shows(only(stored))
    (data / "yes" / "a.dcm").write_bytes(stored)
    prepare(data)
    assert "the window of the DICOM file leaves nothing to see" in caplog.text and "(files: 1, see" in caplog.text


# -- E: true reasons -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "name", "words"),
    [
        (encoded(Image.fromarray(RAMP), "GIF"), "a.gif", "GIF is not read: save it as PNG"),
        (encoded(Image.fromarray(RAMP), "JPEG2000"), "a.png", "JPEG 2000"),
        (b"PK\x03\x04" + bytes(100), "a.zip", "unpack it"),
        (nibabel.Nifti1Pair(a_volume(), np.eye(4)).header.binaryblock, "a.hdr", "in another file"),
        (nibabel.AnalyzeHeader().binaryblock, "a.hdr", "Analyze"),
        (bytes(2000), "a.img", "without their header"),
        (imagecodecs.ljpeg_encode(TWELVE), "a.jpg", "lossless"),
        (a_nifti(np.zeros((8, 8, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])), "a.nii", "colours"),
    ],
)
def test_what_is_unsupported_says_how_to_convert_it(data, name, words):
    with pytest.raises(Unusable) as caught:
        read(data, name)
    assert caught.value.reason == "unsupported"
    assert words in caught.value.detail


def test_a_small_head_is_too_small_and_not_blank(data):
    small = np.zeros((160, 160), np.uint8)
    small[60:84, 70:94] = np.asarray(Image.fromarray(gray(2)).resize((24, 24)))
    save(data / "no" / "small.png", small)
    assert prepare(data)[1]["no/small.png"][0] == "too-small"


def test_a_tiff_with_the_name_of_a_webp():
    np.testing.assert_array_equal(only(encoded(Image.fromarray(RAMP), "TIFF"), "a.webp"), RAMP)


def test_damage_that_only_the_checksum_shows():
    data = bytearray(encoded(Image.fromarray(RAMP), "PNG"))
    data[60] ^= 1
    assert reason(bytes(data)) == "truncated"


# -- F: folders ----------------------------------------------------------------------------------------------------


def test_links_to_nowhere_are_in_quarantine(data):
    (data / "yes" / "gone.png").symlink_to("../.git/annex/objects/x.png")
    (data / "no" / "round.png").symlink_to("round.png")
    kept, rejected = prepare(data)
    assert len(kept) == 4
    assert {source: reason for source, (reason, _) in rejected.items()} == {
        "yes/gone.png": "broken-link",
        "no/round.png": "broken-link",
    }


def test_links_out_of_the_data_are_read_only_if_that_is_asked_for(data, tmp_path):
    outside = tmp_path / "outside"
    save(outside / "other.png", RAMP)
    (data / "yes" / "file.png").symlink_to(outside / "other.png")
    (data / "yes" / "folder").symlink_to(outside)
    found = sources.find_source(str(data))
    assert {key: reason for key, (reason, _) in found.rejected.items()} == dict.fromkeys(
        ("yes/file.png", "yes/folder"), "outside-link"
    )
    assert not any("other" in key for key in found.files)
    followed = sources.find_source(str(data), follow_links=True)
    assert not followed.rejected
    assert {"yes/file.png", "yes/folder/other.png"} <= followed.files.keys()


def test_a_class_of_links_out_of_the_data_names_the_setting(data, tmp_path):
    (data / "yes").rename(tmp_path / "yes")
    (data / "yes").symlink_to(tmp_path / "yes")
    with pytest.raises(UserError, match="yes is a link that leads out of the data: set --follow-links true"):
        sources.find_source(str(data))
    assert sources.find_source(str(data), follow_links=True).labels == ["no", "yes"]


def test_each_folder_is_entered_once_and_where_it_lies(data):
    (data / "aside").mkdir()
    (data / "no" / "all").symlink_to("..")
    (data / "no" / "again").symlink_to("../yes")
    (data / "aside").rmdir()
    kept, rejected = prepare(data)
    assert sorted(kept) == sorted(f"{('no', 'yes')[seed % 2]}/{seed}.png" for seed in range(4))
    assert rejected == {}


def test_a_pipe_is_not_opened(data):
    os.mkfifo(data / "no" / "pipe.png")
    assert prepare(data)[1]["no/pipe.png"] == ("not-an-image", "not a file but a pipe, a socket or a device")


def test_a_file_over_the_budget_is_not_fetched(data):
    with (data / "no" / "huge.nii").open("wb") as file:
        file.truncate(BUDGET.file_bytes + 1)
    assert prepare(data)[1]["no/huge.nii"][0] == "decompression-bomb"


def test_litter_is_no_class_and_no_file(data):
    for name in ("lost+found", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "__MACOSX"):
        save(data / name / "1.png", gray(8))
    save(data / "no" / "@eaDir" / "0.png" / "SYNOPHOTO.png", gray(9))
    (data / "no" / "Icon\r").write_bytes(b"")
    kept, rejected = prepare(data)
    assert set(kept.values()) == {"no", "yes"}
    assert len(kept) == 4 and rejected == {}


def test_a_folder_name_that_is_no_utf_8(data):
    (data / "yes").rename(os.fsdecode(os.fsencode(data) + b"/l\xe4sion"))
    with pytest.raises(UserError, match=r"l\\\\xe4sion.*rename the folder"):
        prepare(data)


def test_file_names_of_any_bytes_come_through(data):
    odd = [b"sch\xe4del.png", b"a\rb.png", b"a\nb.png", b'a"b,c.png', b" a.png "]
    for number, name in enumerate(odd):
        save(data / "no" / "x.png", gray(20 + number)).rename(os.fsdecode(os.fsencode(data / "no") + b"/" + name))
    kept, rejected = prepare(data)
    assert rejected == {}
    assert set(kept) >= {"no/sch\\xe4del.png", "no/a\rb.png", "no/a\nb.png", 'no/a"b,c.png', "no/ a.png "}


@pytest.mark.parametrize(
    ("parts", "command"),
    [
        (("Training", "Testing"), "--data {}/Training --test {}/Testing"),
        (("train", "val"), "--data {}/train --test {}/val"),
    ],
)
def test_the_parts_of_a_split_are_no_classes(tmp_path, parts, command):
    for part in parts:
        for number, label in enumerate(("glioma", "notumor")):
            save(tmp_path / "data" / part / label / "1.png", gray(number))
    with pytest.raises(UserError, match="parts of a split") as caught:
        prepare(tmp_path / "data")
    assert command.format(tmp_path / "data", tmp_path / "data") in str(caught.value)


def test_classes_that_are_called_like_a_split_are_classes(data):
    (data / "yes").rename(data / "test")
    assert set(prepare(data)[0].values()) == {"no", "test"}


# -- G: why there are too few groups -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shared", "named", "way"),
    [
        ({"PatientID": "ANON"}, "PatientID", "study"),
        ({"StudyInstanceUID": "1.2.3"}, "StudyInstanceUID", "patient"),
        ({"PatientID": "ANON", "StudyInstanceUID": "1.2.3"}, "PatientID and StudyInstanceUID", "none"),
    ],
)
def test_one_id_for_all_is_named_as_the_cause_and_the_way_out_works(tmp_path, shared, named, way, caplog):
    caplog.set_level(logging.INFO, "mrigan")
    for seed in range(4):
        own = {"PatientID": f"P{seed}", "StudyInstanceUID": f"1.{seed}"} | shared
        path = tmp_path / "data" / ("no", "yes")[seed % 2] / f"{seed}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(a_dicom((900 * a_head(seed)).astype(np.uint16), **own))
    (tmp_path / "data" / "no" / "note.txt").write_text("a note")
    with pytest.raises(
        UserError, match=f"folds: many DICOM files have the same {named}.*--header-ids {way}, or --groups"
    ):
        prepare(tmp_path / "data")
    assert "quarantined as not-an-image: 1" in caplog.text and "quarantine.csv" in caplog.text
    ids = () if way == "none" else (way,)
    assert len(prepare(tmp_path / "data", header_ids=ids)[0]) == 4


# -- I: names ------------------------------------------------------------------------------------------------------


def test_names_in_either_form_of_unicode_are_one(data):
    composed = "Schädel é.png"
    save(data / "no" / unicodedata.normalize("NFD", composed), gray(30))
    save(data / "no" / "4.png", gray(4))
    groups = data.parent / "groups.csv"
    groups.write_text(f"no/{composed},./no/0.png\nno\\2.png,no/4.png\n")
    assert len(prepare(data, groups=str(groups))[0]) == 6


def test_a_class_in_decomposed_letters_has_one_name(data):
    (data / "no").rename(data / unicodedata.normalize("NFD", "läsion"))
    assert set(prepare(data)[0].values()) == {unicodedata.normalize("NFC", "läsion"), "yes"}


def test_the_aspect_ratio_counts_where_no_spacing_is():
    assert only(a_dicom(RAMP, PixelAspectRatio=["2", "1"])).shape == (80, 60)
    assert only(a_dicom(RAMP, PixelAspectRatio=["2", "1"], PixelSpacing=[1, 1])).shape == (40, 60)


def test_a_tiff_of_frames_behind_one_page_is_rejected():
    assert reason(deep_tiff(np.stack([TWELVE] * 5), photometric="minisblack", truncate=True)) == "unsupported"


# -- 4-D NIfTI -----------------------------------------------------------------------------------------------------


def test_a_setting_chooses_the_volume():
    volumes = np.stack([a_volume(), a_volume()[::-1], a_volume()], 3)
    first, second = (read(a_nifti(volumes), "a", number).slices[0].pixels for number in (0, 1))
    np.testing.assert_array_equal(first, second[:, ::-1])
    with pytest.raises(Unusable, match="NIfTI with 3 volumes"):
        read(a_nifti(volumes), "a", 3)
    assert read(a_nifti(a_volume()), "a", 2).slices  # one volume is no choice

"""Nothing in a file that identifies a person is stored, logged or raised, wherever it is in the file."""

import io
import logging
import traceback
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from jobs import preprocess
from jobs.common.errors import UserError
from jobs.mri.read import read
from jobs.mri.slices import Unusable
from jobs.phantoms.drawing import draw_head
from jobs.settings import PreprocessSettings
from tests.mri.heads import a_head
from tests.mri.identifiers import all_plants, dicom_with, told, words

WORD = words(1)
PLANTS = all_plants(WORD)


# Few different pictures, each of one class: looking for those that resemble each other takes long.
HEADS = [draw_head("healthy", np.random.default_rng(number))[::2, ::2] for number in range(8)]


def a_file(number: int, name: str) -> tuple[bytes, list[str]]:
    """Return a file with the plant `name`, and every word in it that identifies somebody."""
    word, plant = PLANTS[name]
    data, named = dicom_with(HEADS[number % len(HEADS)].astype(np.uint16) * 10, WORD, plant)
    assert word.encode() in data
    return data, [word, *named]


def other_files() -> tuple[dict[str, bytes], list[str]]:
    """Return files of other formats with words in their metadata."""
    planted = [WORD() for _ in range(8)]
    pixels = np.rint(255 * a_head(900)).astype(np.uint8)
    found = {}
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", planted[0])
    text.add_itxt("Author", planted[1])
    exif = Image.Exif()
    exif[0x010E], exif[0x013B] = planted[2], planted[3]  # ImageDescription, Artist
    for name, kind, options in (
        ("text.png", "PNG", {"pnginfo": text}),
        ("exif.jpg", "JPEG", {"exif": exif, "comment": planted[4]}),
        ("tags.tif", "TIFF", {"tiffinfo": {270: planted[5], 315: planted[6]}}),
    ):
        buffer = io.BytesIO()
        Image.fromarray(np.roll(pixels, len(found) * 3)).save(buffer, kind, **options)
        found[name] = buffer.getvalue()
    levels = np.stack([a_head(901 + level) for level in range(2)], 2)
    volume = nibabel.Nifti1Image((900 * levels).astype(np.int16), np.eye(4))
    volume.header["descrip"], volume.header["db_name"] = planted[7], planted[7]
    found["descrip.nii"] = volume.to_bytes()
    return found | {f"cut-{name}": data[: len(data) // 2] for name, data in found.items()}, planted


@pytest.fixture
def data(tmp_path) -> tuple[Path, list[str]]:
    """Return a data set of two classes with every plant, of good pictures too, and all words planted."""
    folder, planted = tmp_path / "data", []
    for label in ("no", "yes"):
        (folder / label).mkdir(parents=True)
    for number, name in enumerate(PLANTS):
        one, said = a_file(number, name)
        (folder / ("no", "yes")[number % 2] / f"{number}.dcm").write_bytes(one)
        # What comes of a file that ends too early is another complaint.
        (folder / ("no", "yes")[number % 2] / f"{number}-cut").write_bytes(one[: 2 * len(one) // 3])
        planted += said
    others, said = other_files()
    for name, one in others.items():
        (folder / "yes" / name).write_bytes(one)
    for number in range(4):
        picture = Image.fromarray(draw_head("healthy", np.random.default_rng(100 + number)))
        picture.save(folder / ("no", "yes")[number % 2] / f"{number}.png")
    return folder, planted + said


def prepare(folder: Path, storage: Path) -> preprocess.Step:
    return preprocess.run(PreprocessSettings(data=str(folder), storage=str(storage), folds=2, image_size=32))


def everything(storage: Path) -> list[bytes | str]:
    """Return the names and contents of all files in `storage`."""
    found = [path for path in storage.rglob("*") if path.is_file()]
    return [*(str(path.relative_to(storage)) for path in found), *(path.read_bytes() for path in found)]


def logged(caplog) -> str:
    """Return all that was logged at any level: what was written, and what another log format would write."""
    return "\n".join([caplog.text, *(f"{record.msg} {record.args} {vars(record)}" for record in caplog.records)])


def test_the_search_finds_words_however_they_are_spelled():
    word, other = WORD(), WORD()
    numbers = np.frombuffer(word.encode(), "<u2").tolist()
    for place in (word.encode(), word.lower(), f"unknown class {word[:8]}", f"[{numbers[0]}, {numbers[1]}] is no US"):
        assert told([word, other], "a line", place) == [word]
    assert told([other], word, "a line") == []


@pytest.mark.parametrize("name", list(PLANTS))
def test_a_rejection_says_nothing_of_the_header(name, capfd, caplog, recwarn):
    caplog.set_level(logging.DEBUG)
    data, planted = a_file(0, name)
    for part in (data, data[: 2 * len(data) // 3], data[:600]):
        for file in ("a.dcm", "a"):
            try:
                read(part, file)
            except Unusable as finding:
                assert told(planted, str(finding), *traceback.format_exception(finding)) == []
    assert told(planted, logged(caplog), *capfd.readouterr(), *(str(warning.message) for warning in recwarn)) == []


def test_a_dataset_says_nothing_of_a_header(data, tmp_path, capfd, caplog, recwarn):
    caplog.set_level(logging.DEBUG)
    folder, planted = data
    step = prepare(folder, tmp_path / "storage")
    assert step.finished()
    assert len(planted) > 500
    stored = everything(tmp_path / "storage")
    assert any(b"1-cut," in place for place in stored if isinstance(place, bytes))
    assert told(planted, *stored) == []
    assert told(planted, logged(caplog), *capfd.readouterr(), *(str(warning.message) for warning in recwarn)) == []


def test_an_error_says_nothing_of_a_header(data, tmp_path, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    folder, planted = data
    for path in (folder / "yes").iterdir():
        if "cut" not in path.name:
            path.unlink()
    with pytest.raises(UserError, match="no image of class yes can be used") as caught:
        prepare(folder, tmp_path / "storage")
    assert told(planted, *traceback.format_exception(caught.value), *everything(tmp_path / "storage")) == []
    assert told(planted, logged(caplog), *capfd.readouterr()) == []

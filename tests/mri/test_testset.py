"""A test set is read like a dataset, without training images and their turned and recompressed copies."""

from pathlib import Path

import pytest
from PIL import Image

from jobs import phantom, preprocess
from jobs.common.errors import UserError
from jobs.common.storage import open_storage
from jobs.mri.dataset import Dataset, open_dataset
from jobs.mri.testset import fingerprint, read_test_set, unseen
from jobs.settings import PhantomSettings, PreprocessSettings

LABELS = ("healthy", "lesion")
NEW = 4


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("training")
    phantom.run(PhantomSettings(out=str(folder / "heads"), count=6))
    step = preprocess.run(
        PreprocessSettings(data=str(folder / "heads"), storage=str(folder / "out"), image_size=32, folds=2)
    )
    return open_dataset(open_storage(str(folder / "out")), step.prefix.rpartition("/")[2])


@pytest.fixture
def folder(dataset: Dataset, tmp_path: Path) -> Path:
    """New heads, with copies of training images that are turned by 30 degrees and recompressed."""
    phantom.run(PhantomSettings(out=str(tmp_path / "new"), count=NEW, seed=7))
    for label in LABELS:
        for path in (tmp_path / "new" / label).iterdir():
            if not path.name.startswith(f"{label}-0"):
                path.unlink()
        known = Path(dataset.storage.url).parent / "heads" / label / f"{label}-0000.png"
        Image.open(known).rotate(30, Image.Resampling.BICUBIC).save(tmp_path / "new" / label / "copy.jpg", quality=60)
    return tmp_path / "new"


def test_copies_of_training_images_are_left_out(dataset: Dataset, folder: Path) -> None:
    test = read_test_set(str(folder), LABELS)
    assert sorted(test.labels) == ["healthy"] * (NEW + 1) + ["lesion"] * (NEW + 1)
    left = unseen(test, [dataset])
    assert set(test.sources) - set(left.sources) == {"healthy/copy.jpg", "lesion/copy.jpg"}
    assert left.pixels(48).shape == (2 * NEW, 48, 48)


def test_many_copies_of_one_training_image_hide_none_of_them(dataset: Dataset, folder: Path) -> None:
    known = Image.open(Path(dataset.storage.url).parent / "heads" / "lesion" / "lesion-0001.jpg")
    for turn in range(30):
        known.rotate(12 * turn, Image.Resampling.BICUBIC).save(folder / "lesion" / f"copy-{turn}.png")
    left = unseen(read_test_set(str(folder), LABELS), [dataset])
    assert not [source for source in left.sources if "copy" in source]


def test_pages_after_a_blank_one_are_read(folder: Path) -> None:
    pages = [
        Image.open(folder / "lesion" / f"lesion-000{number}.{'jpg' if number % 2 else 'png'}") for number in range(3)
    ]
    pages = [page.convert("L").resize((96, 96)) for page in pages]
    pages[1] = Image.new("L", (96, 96))
    pages[0].save(folder / "lesion" / "volume.tiff", save_all=True, append_images=pages[1:])
    sources = read_test_set(str(folder), LABELS).sources
    assert [source for source in sources if "volume" in source] == ["lesion/volume.tiff#0", "lesion/volume.tiff#2"]
    sources = read_test_set(str(folder), LABELS, step=2).sources
    assert [source for source in sources if "volume" in source] == ["lesion/volume.tiff#0"]


def test_other_images_are_another_test_set(folder: Path) -> None:
    before = fingerprint(str(folder))
    assert fingerprint(str(folder)) == before
    (folder / "healthy" / "copy.jpg").unlink()
    assert fingerprint(str(folder)) != before


def test_mistakes_name_the_flag(dataset: Dataset, folder: Path) -> None:
    with pytest.raises(UserError, match="--test: there is no folder"):
        read_test_set(str(folder / "absent"), LABELS)
    with pytest.raises(UserError, match="--test: class lesion is not a class of the champion, which has cyst, healthy"):
        read_test_set(str(folder), ("cyst", "healthy"))
    heads = Path(dataset.storage.url).parent / "heads"
    for label in LABELS:  # not in the dataset, and so never trained on
        (heads / label / "in-two-classes.png").unlink()
    with pytest.raises(UserError, match="--test: fewer than two classes"):
        unseen(read_test_set(str(heads), LABELS), [dataset])

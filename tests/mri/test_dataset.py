"""A dataset is read as it was written, and damage is reported."""

import tarfile

import numpy as np
import pytest
from PIL import Image

from jobs.common import keys, png, shards
from jobs.common.errors import MachineError, UserError
from jobs.common.step import Step
from jobs.common.storage import Storage, open_storage
from jobs.mri.dataset import Row, open_dataset, rows_from_csv, rows_to_csv

ROWS = [
    Row(f"{number:016x}", f'no/"a", {number}.png', label, f"g{number // 2}", number % 3, "PNG", 99, 40, 50, 1.25)
    for number, label in enumerate(["no", "yes", "no", "yes", "no", "yes"])
]


def pixels_of(number: int) -> np.ndarray:
    return np.full((32, 32), number, np.uint8)


@pytest.fixture
def storage(tmp_path) -> Storage:
    storage = open_storage(str(tmp_path))
    step = Step(storage, keys.dataset("d"), job="preprocess", settings={"image_size": 32, "folds": 3}, inputs={})
    shards.write(step, "images", ((f"{row.id}.png", png.encode(pixels_of(number))) for number, row in enumerate(ROWS)))
    step.write("index.csv", rows_to_csv(ROWS))
    step.finish(patients="none", labels={"no": 1, "yes": 1})
    return storage


def test_rows_and_pixels_come_back(storage):
    dataset = open_dataset(storage, "d")
    assert dataset.rows == ROWS
    assert (dataset.labels, dataset.image_size, dataset.folds) == (("no", "yes"), 32, 3)
    assert dataset.facts == {"patients": "none", "labels": {"no": 1, "yes": 1}}
    pixels = dataset.pixels([ROWS[4], ROWS[1]])
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.stack([pixels_of(4), pixels_of(1)]))
    assert dataset.pixels([]).shape == (0, 32, 32)
    # A row may be asked for twice.
    np.testing.assert_array_equal(dataset.pixels([ROWS[2]] * 2), np.stack([pixels_of(2)] * 2))


def test_the_files_are_png(storage, tmp_path):
    with tarfile.open(tmp_path / "datasets/d/images/shard-000000.tar") as tar:
        assert tar.getnames() == [f"{row.id}.png" for row in ROWS]
        for number, member in enumerate(tar):
            np.testing.assert_array_equal(np.asarray(Image.open(tar.extractfile(member))), pixels_of(number))


def test_a_dataset_of_one_file_an_image_is_read(storage):
    """mrigan 0.2 wrote such datasets."""
    files = dict(open_dataset(storage, "d").images.read())
    step = Step(storage, keys.dataset("old"), job="preprocess", settings={"image_size": 32, "folds": 3}, inputs={})
    step.write_many((f"images/{name}", data) for name, data in files.items())
    step.write("index.csv", rows_to_csv(ROWS))
    step.finish(labels={"no": 1, "yes": 1})
    dataset = open_dataset(storage, "old")
    np.testing.assert_array_equal(dataset.pixels(ROWS[::-2]), open_dataset(storage, "d").pixels(ROWS[::-2]))
    assert dataset.images.first(2) == list(files.values())[:2]
    key = f"datasets/old/images/{ROWS[3].id}.png"
    storage.write(key, storage.read(key)[:-1])
    with pytest.raises(MachineError, match=f"{key} is damaged"):
        open_dataset(storage, "old").pixels(ROWS)


def test_what_is_held_out_is_not_trained_on(storage):
    dataset = open_dataset(storage, "d")
    for fold in (0, 1, 2, "1"):
        assert {row.fold for row in dataset.held_out(fold)} == {int(fold)}
        assert sorted(dataset.training(fold) + dataset.held_out(fold), key=lambda row: row.id) == ROWS
    assert dataset.training("all") == ROWS
    assert dataset.held_out("all") == []
    for fold in (3, -1, "none"):
        with pytest.raises(UserError, match="there is no fold"):
            dataset.training(fold)


def test_the_digest_names_the_content(storage, tmp_path):
    before = open_dataset(storage, "d").digest
    assert before == open_dataset(open_storage(str(tmp_path)), "d").digest


def test_a_dataset_without_a_manifest_is_not_there(storage):
    storage.delete(f"{keys.dataset('d')}/manifest.json")
    with pytest.raises(UserError, match="there is no dataset d"):
        open_dataset(storage, "d")


@pytest.mark.parametrize(
    "index", [b"", b"a,b\n1,2\n", b"\xff\xfe", rows_to_csv(ROWS)[:-30], rows_to_csv(ROWS).replace(b"99", b"x")]
)
def test_a_damaged_index_is_told(storage, index):
    storage.write("datasets/d/index.csv", index)
    with pytest.raises(MachineError, match=r"index\.csv is damaged"):
        open_dataset(storage, "d")


def test_a_flipped_bit_of_an_image_is_found(storage):
    key = "datasets/d/images/shard-000000.tar"
    whole = storage.read(key)
    for place in np.random.default_rng(0).choice(8 * len(whole), 30, replace=False):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        storage.write(key, bytes(changed))
        with pytest.raises(MachineError, match=f"{key} is damaged"):
            open_dataset(storage, "d").pixels(ROWS)


def test_index_and_listing_are_read_once(storage):
    dataset = open_dataset(storage, "d")
    dataset.pixels(ROWS)
    storage.delete("datasets/d/images.sha256")
    storage.delete("datasets/d/images.csv")
    assert len(dataset.pixels(ROWS)) == len(ROWS)


@pytest.mark.parametrize("rows", [ROWS, ROWS[1:2]])
@pytest.mark.parametrize("damage", [None, b"", b"no image", "half", "order"])
def test_a_damaged_image_is_told(storage, damage, rows):
    key = "datasets/d/images/shard-000000.tar"
    if damage is None:
        storage.delete(key)
    elif damage == "half":
        storage.write(key, storage.read(key)[:600])
    elif damage == "order":
        step = Step(storage, "other", job="", settings={}, inputs={})
        shards.write(step, "images", reversed(list(open_dataset(storage, "d").images.read())))
        storage.write(key, storage.read("other/images/shard-000000.tar"))
    else:
        storage.write(key, damage)
    with pytest.raises(MachineError, match="missing" if damage is None else "damaged"):
        open_dataset(storage, "d").pixels(rows)


def test_the_index_is_plain_csv():
    assert rows_to_csv(ROWS[:1]).splitlines()[0] == b"id,source,label,group,fold,format,bytes,width,height,border"
    assert rows_from_csv(rows_to_csv(ROWS)) == ROWS

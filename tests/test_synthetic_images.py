"""`mrigan images`: the images of a run in a folder, and more of the same."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from jobs import cli, generate, images
from jobs.common import hardware, keys
from jobs.common.errors import MachineError, UserError
from jobs.common.step import read_manifest
from jobs.common.storage import open_storage
from jobs.settings import ExecutionSettings, GenerateSettings, ImagesSettings
from tests import tars
from tests.untrained import LABELS, write_dataset, write_generator

STORED, MORE = 36, 70  # the images of a run, and a number with the end of their last block in between


@pytest.fixture(scope="module", autouse=True)
def tensorflow() -> None:
    """Set TensorFlow up before a network is built, as jobs do."""
    hardware.configure(ExecutionSettings(threads=1))


def write_run(url: str, count: int, folds: tuple[int | str, ...] = (0,), conditional: bool = True) -> None:
    """Write run r with `count` images of each class."""
    storage = open_storage(url)
    digest = write_dataset(storage, "d")
    for fold in folds:
        for place, labels in [(keys.CLASS_CONDITIONAL, LABELS)] if conditional else [(one, (one,)) for one in LABELS]:
            write_generator(storage, digest, place, labels, fold)
        for label in LABELS:
            asked = {"storage": url, "dataset": "d", "run": "r", "fold": fold, "label": label}
            generate.run(GenerateSettings(**asked, synthetic_count=count))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of storage with run r."""
    folder = tmp_path_factory.mktemp("written") / "storage"
    write_run(str(folder), STORED)
    return folder


@pytest.fixture
def url(written: Path, tmp_path: Path) -> str:
    """Return storage of its own with run r."""
    return str(shutil.copytree(written, tmp_path / "storage"))


def get(url: str, out: Path, **more: Any) -> dict[str, bytes]:
    """Return what `mrigan images` has written."""
    images.run(ImagesSettings(runs=("r",), storage=url, out=str(out), **more))
    return content(out)


def content(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def stored(url: str, fold: int | str = 0) -> dict[str, bytes]:
    """Return the images of a run in storage, under the names that they have outside."""
    storage = open_storage(url)
    return {
        f"{label}/{name}": data
        for label in LABELS
        for name, data in tars.images(storage, keys.synthetic("r", fold, label)).items()
    }


@pytest.mark.parametrize("conditional", [True, False])
def test_more_images_are_those_that_a_larger_run_has(
    conditional: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    small, large = str(tmp_path / "small"), str(tmp_path / "large")
    write_run(small, STORED, conditional=conditional)
    write_run(large, MORE, conditional=conditional)
    out = tmp_path / "out"
    with caplog.at_level(logging.INFO, "mrigan.images"):
        assert get(small, out) == stored(small)
        assert len(stored(small)) == len(LABELS) * STORED
        assert get(small, out, count=MORE) == stored(large)
        assert get(small, out, count=MORE) == stored(large)
    assert capsys.readouterr().out.split() == [str(out)] * 3
    told = [message.partition(": ")[2] for message in caplog.messages if message.startswith("yes: ")]
    assert told == [
        f"{STORED} images copied, 0 drawn, 0 already there",
        f"0 images copied, {MORE - STORED} drawn, {STORED} already there",
        f"0 images copied, 0 drawn, {MORE} already there",
    ]


def test_an_interrupted_copy_is_completed(url: str, tmp_path: Path) -> None:
    whole = get(url, tmp_path / "out", count=MORE)
    for number in (3, STORED + 1, MORE - 1):
        (tmp_path / "out" / "no" / f"{number:06d}.png").unlink()
    assert get(url, tmp_path / "out", count=MORE) == whole


def test_some_classes_and_the_first_images_are_got(url: str, tmp_path: Path) -> None:
    found = get(url, tmp_path / "out", label="yes", count=5)
    assert found == {f"yes/{number:06d}.png": stored(url)[f"yes/{number:06d}.png"] for number in range(5)}
    assert set(get(url, tmp_path / "out", label="no, ", count=2)) == {*found, "no/000000.png", "no/000001.png"}
    assert set(get(url, tmp_path / "both", label="no,yes", count=1)) == {"no/000000.png", "yes/000000.png"}


def test_single_images_are_got_by_number(url: str, tmp_path: Path) -> None:
    found = get(url, tmp_path / "out", label="yes", ids="7, 000031")
    assert found == {name: stored(url)[name] for name in ("yes/000007.png", "yes/000031.png")}
    # Another one may go into the same folder.
    assert set(get(url, tmp_path / "out", ids="3")) == {*found, "no/000003.png", "yes/000003.png"}


def test_images_of_a_dataset_are_got_by_id(url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = tars.images(open_storage(url), keys.dataset("d"))
    out, ids = tmp_path / "out", [f"{number:016x}" for number in (2, 5)]
    with caplog.at_level(logging.INFO, "mrigan.images"):
        images.run(ImagesSettings(runs=("d",), storage=url, out=str(out), ids=",".join(ids)))
    assert content(out) == {f"{label}/{id}.png": files[f"{id}.png"] for label, id in zip(LABELS, ids, strict=True)}
    assert "the real images of dataset d" in caplog.text
    images.run(ImagesSettings(runs=("d",), storage=url, out=str(out), label="no"))
    found = content(out)
    assert len(found) == 24 + 1 and {Path(name).name: data for name, data in found.items()}.items() <= files.items()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"runs": ("r",), "ids": "36"}, "--ids: run r has no image '36' of no: its images are 0 to 35"),
        ({"runs": ("r",), "ids": "x"}, "--ids: run r has no image 'x' of no"),
        ({"runs": ("r",), "ids": "1", "count": 2}, "--ids: without --count"),
        ({"runs": ("d",), "ids": "7"}, "--ids: dataset d has no image '7' of no, yes: see its index.csv"),
        ({"runs": ("d",), "count": 7}, "--count: only of synthetic images"),
        ({"runs": ("d",), "label": "maybe"}, "--label: one or several of no, yes, not 'maybe'"),
    ],
)
def test_an_image_that_is_not_there_is_named(url: str, tmp_path: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        images.run(ImagesSettings(storage=url, out=str(tmp_path / "out"), **more))
    assert not (tmp_path / "out").exists()


def test_images_of_a_generator_of_all_images_are_preferred(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mrigan.images")
    get(url, tmp_path / "fold-0")
    assert "images of fold 0" in caplog.text and "--gan-of-all" in caplog.text
    caplog.clear()
    asked = {"storage": url, "dataset": "d", "run": "r", "fold": "all", "synthetic_count": 4, "seed": 1}
    storage = open_storage(url)
    write_generator(storage, (read_manifest(storage, "runs/r/fold-0/yes/synthetic") or {})["inputs"]["dataset"],
                    keys.CLASS_CONDITIONAL, LABELS, "all")  # fmt: skip
    generate.run(GenerateSettings(**asked, label="yes"))
    # Only one of the classes is finished.
    get(url, tmp_path / "fold-0")
    assert "images of fold 0" in caplog.text
    caplog.clear()
    assert len(get(url, tmp_path / "yes", label="yes")) == 4
    generate.run(GenerateSettings(**asked, label="no"))
    assert get(url, tmp_path / "all") == stored(url, "all")
    assert "images of fold all" in caplog.text and "fold 0" not in caplog.text


def test_images_come_from_s3_too(s3_url: str, tmp_path: Path) -> None:
    write_run(s3_url, 3)
    found = get(s3_url, tmp_path / "out", count=5)
    assert len(found) == 2 * 5 and stored(s3_url).items() <= found.items()


@pytest.mark.parametrize("name", ["no/000002.png", f"no/{STORED + 2:06d}.png", "yes/mine.png", f"yes/{MORE:06d}.png"])
def test_a_folder_with_anything_else_is_left_as_it_is(name: str, url: str, tmp_path: Path) -> None:
    other = tmp_path / "out" / name
    other.parent.mkdir(parents=True)
    other.write_bytes(b"precious")
    with pytest.raises(UserError, match=rf"--out: {other} is (another image|none of these images): use another"):
        get(url, tmp_path / "out", count=MORE)
    assert content(tmp_path / "out") == {name: b"precious"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing"], "has no run missing; it has r"),
        (["../x"], "has no run ../x; it has r"),
        (["r", "--label", "maybe"], "--label: one or several of no, yes, not 'maybe'"),
        (["r", "--out", "s3://bucket/x"], "--out: a folder on this machine, not s3://bucket/x"),
        (["r", "other"], "name one RUN"),
        ([], "RUN is needed"),
    ],
)
def test_what_is_not_there_is_named(
    words: list[str], message: str, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = [] if "--out" in words else ["--out", str(tmp_path / "out")]
    assert cli.main(["images", *words, "--storage", url, *out]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_without_synthetic_images_is_told_from_no_run(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    with pytest.raises(UserError, match="has no run r; it has none"):
        get(storage.url, tmp_path / "out")
    storage.write(f"{keys.report('r')}/manifest.json", b"{}")
    with pytest.raises(UserError, match="run r has no synthetic images"):
        get(storage.url, tmp_path / "out")


@pytest.mark.parametrize("name", ["yes/synthetic/images/shard-000000.tar", "all-classes/gan/generator.safetensors"])
def test_damage_is_found(name: str, url: str, tmp_path: Path) -> None:
    storage, key = open_storage(url), f"runs/r/fold-0/{name}"
    data = storage.read(key)
    storage.write(key, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(MachineError, match=f"{key} is damaged"):
        get(url, tmp_path / "out", count=MORE)


@pytest.mark.parametrize("data", [None, b"damaged"])
@pytest.mark.parametrize("ids", [[], ["--ids", f"{5:016x}"]])
def test_a_damaged_shard_ends_with_one_line_and_code_3(
    data: bytes | None, ids: list[str], url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage, key = open_storage(url), "datasets/d/images/shard-000000.tar"
    storage.delete(key)
    if data:
        storage.write(key, data)
    assert cli.main(["images", "d", "--storage", url, "--out", str(tmp_path / "out"), *ids]) == 3
    [line] = [line for line in capsys.readouterr().err.splitlines() if "real images" not in line]
    assert f"{key} is {'damaged' if data else 'missing'}: delete {url}/datasets/d and run its job again" in line
    assert content(tmp_path / "out") == {}


def test_no_image_is_drawn_with_another_generator(url: str, tmp_path: Path) -> None:
    storage = open_storage(url)
    write_generator(storage, write_dataset(storage, "other", seed=1), keys.CLASS_CONDITIONAL, LABELS)
    with pytest.raises(UserError, match=f"trained again since: .* a --count of at most {STORED}"):
        get(url, tmp_path / "out", count=MORE)
    assert not (tmp_path / "out").exists()
    assert get(url, tmp_path / "out", count=STORED) == stored(url)

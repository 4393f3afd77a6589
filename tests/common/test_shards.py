"""Many files as few tar files: other programs read them, and each file is read alone or with all others."""

import hashlib
import io
import subprocess
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.common import shards
from jobs.common.errors import MachineError
from jobs.common.shards import Shards
from jobs.common.step import Step
from jobs.common.storage import Folder, Storage, open_storage
from jobs.common.tables import from_csv
from tests import tars

FILES = {f"{number:06d}.png": hashlib.shake_256(b"%d" % number).digest(100 * number) for number in range(40)}
PREFIX = "runs/r/step"


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return open_storage(request.getfixturevalue("s3_url") if request.param == "s3" else str(tmp_path))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let few and small files fill several shards, and not be read in one piece."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 20_000)
    monkeypatch.setattr(shards, "GAP", 3_000)


def make(storage: Storage, files: dict[str, bytes] | None = None, prefix: str = PREFIX) -> Shards:
    """Write files as shards; return them."""
    step = Step(storage, prefix, job="generate", settings={}, inputs={})
    shards.write(step, "images", (FILES if files is None else files).items())
    step.finish()
    return Shards(storage, prefix, step.manifest, "images")


class Watched(Folder):
    """A folder that notes what is read of it."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.requests: list[tuple[str, int, int]] = []

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Read, and note what."""
        self.requests.append((key, start, length))
        return super().read_range(key, start, length)


# ---- format ----------------------------------------------------------------------------------------------------------


def test_tarfile_reads_what_was_written(storage: Storage) -> None:
    made = make(storage)
    names = storage.list(f"{PREFIX}/images")
    assert names == [f"{PREFIX}/images/shard-{number:06d}.tar" for number in range(len(names))] and len(names) > 3
    assert list(tars.images(storage, PREFIX).items()) == list(FILES.items())
    assert list(made.read()) == list(FILES.items())


def test_a_shard_is_the_one_that_tarfile_writes(tmp_path: Path) -> None:
    make(open_storage(str(tmp_path)))
    for path in sorted((tmp_path / PREFIX / "images").iterdir()):
        with tarfile.open(path) as tar, io.BytesIO() as buffer:
            with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as other:
                for name in tar.getnames():
                    entry = tarfile.TarInfo(name)
                    entry.size = len(FILES[name])
                    other.addfile(entry, io.BytesIO(FILES[name]))
            assert path.read_bytes() == buffer.getvalue()


def test_tar_and_sha256sum_take_the_shards(tmp_path: Path) -> None:
    make(open_storage(str(tmp_path)))
    (tmp_path / "out").mkdir()
    for path in (tmp_path / PREFIX / "images").iterdir():
        subprocess.run(["tar", "-xf", path, "-C", tmp_path / "out"], check=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == FILES
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "images.sha256"], cwd=tmp_path / PREFIX, check=True)


def test_the_index_says_where_each_file_is(tmp_path: Path) -> None:
    make(open_storage(str(tmp_path)))
    header, rows = from_csv((tmp_path / PREFIX / "images.csv").read_bytes())
    assert header == ["name", "shard", "offset", "bytes", "sha256"]
    assert [row[0] for row in rows] == list(FILES)
    for name, shard, offset, size, sha in rows:
        data = (tmp_path / PREFIX / shard).read_bytes()[int(offset) : int(offset) + int(size)]
        assert data == FILES[name] and hashlib.sha256(data).hexdigest() == sha


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = (make(open_storage(str(tmp_path)), prefix=prefix) for prefix in ("runs/r/one", "runs/r/two"))
    assert one.manifest["outputs"] == two.manifest["outputs"]


@pytest.mark.parametrize("files", [{}, {"one.png": b""}, {"large.png": bytes(50_000), "small.png": b"1"}])
def test_few_and_large_files(tmp_path: Path, files: dict[str, bytes]) -> None:
    made = make(open_storage(str(tmp_path)), files)
    assert tars.images(made.storage, PREFIX) == dict(made.read()) == files
    assert made.first(1) == list(files.values())[:1]


def test_names_that_no_header_holds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too long a name"):
        make(open_storage(str(tmp_path)), {"x" * 101: b""})


def test_files_of_an_interrupted_job_are_deleted(storage: Storage) -> None:
    for name in ("000000.png", "shard-000001.tar", "shard-000099.tar"):
        storage.write(f"{PREFIX}/images/{name}", b"old")
    storage.write(f"{PREFIX}/images2/other", b"kept")
    make(storage)
    assert tars.images(storage, PREFIX) == FILES
    assert storage.exists(f"{PREFIX}/images2/other")


# ---- some of the files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [["000017.png"], ["000039.png", "000003.png", "000039.png"], list(FILES)[::3], []])
def test_some_files_are_read_in_the_order_of_the_shards(storage: Storage, names: list[str]) -> None:
    assert list(make(storage).read(names)) == [(name, FILES[name]) for name in sorted(set(names))]


def test_a_single_file_is_read_alone(tmp_path: Path) -> None:
    made = make(open_storage(str(tmp_path)))
    place = made.members["000030.png"]
    watched = Watched(str(tmp_path))
    found = dict(Shards(watched, PREFIX, made.manifest, "images").read(["000030.png"]))
    assert found == {"000030.png": FILES["000030.png"]}
    parts = [(key, start, length) for key, start, length in watched.requests if key.endswith(".tar")]
    assert parts == [(f"{PREFIX}/{place.shard}", place.offset, 3000)]


def test_neighbours_are_read_together_and_most_of_a_shard_whole(tmp_path: Path) -> None:
    made = make(open_storage(str(tmp_path)))
    watched = Watched(str(tmp_path))
    second = [name for name, member in made.members.items() if member.shard.endswith("1.tar")]
    files = Shards(watched, PREFIX, made.manifest, "images")
    for names, requests in ((second[:2], 1), ([second[0], second[-1]], 2), (second[1:], 1)):
        watched.requests.clear()
        assert list(files.read(names)) == [(name, FILES[name]) for name in names]
        assert len([key for key, _, _ in watched.requests if key.endswith(".tar")]) == requests
    assert watched.requests[-1] == (f"{PREFIX}/images/shard-000001.tar", 0, -1)


# ---- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [None, ["000030.png"]])
@pytest.mark.parametrize("damage", ["missing", "empty", "short", "flipped"])
def test_a_damaged_shard_is_named(storage: Storage, damage: str, names: list[str] | None) -> None:
    made = make(storage)
    place = made.members["000030.png"]
    key = f"{PREFIX}/{place.shard}"
    data = bytearray(storage.read(key))
    if damage == "missing":
        storage.delete(key)
    else:
        data[place.offset + 5] ^= 1
        storage.write(key, {"empty": b"", "short": bytes(data[: place.offset + 5]), "flipped": bytes(data)}[damage])
    told = f"{key} is {'missing' if damage == 'missing' else 'damaged'}: delete .*/runs/r/step and run its job again$"
    with pytest.raises(MachineError, match=told):
        list(made.read(names))


def test_a_flipped_bit_between_files_is_found_where_all_are_read(storage: Storage) -> None:
    made = make(storage)
    key = f"{PREFIX}/images/shard-000000.tar"
    data = bytearray(storage.read(key))
    data[-1] ^= 1
    storage.write(key, bytes(data))
    assert dict(made.read(["000001.png"])) == {"000001.png": FILES["000001.png"]}
    with pytest.raises(MachineError, match="is damaged"):
        list(made.read())


@pytest.mark.parametrize("name", ["images.csv", "images.sha256"])
@pytest.mark.parametrize("data", [None, b"other"])
def test_a_damaged_index_or_listing_is_named(tmp_path: Path, name: str, data: bytes | None) -> None:
    storage = open_storage(str(tmp_path))
    made = make(storage)
    if data:
        storage.write(f"{PREFIX}/{name}", data)
    else:
        storage.delete(f"{PREFIX}/{name}")
    with pytest.raises(MachineError, match=f"{name} is {'damaged' if data else 'missing'}"):
        list(Shards(storage, PREFIX, made.manifest, "images").read())


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"images/other\.png is missing"):
        list(make(open_storage(str(tmp_path))).read(["000000.png", "other.png"]))


def test_deleted_images_are_none_at_first(tmp_path: Path) -> None:
    made = make(open_storage(str(tmp_path)))
    assert made.first(3) == list(FILES.values())[:3]
    made.storage.delete(f"{PREFIX}/images/shard-000000.tar")
    assert made.first(3) == []
    made.storage.delete(f"{PREFIX}/images.csv")
    assert Shards(made.storage, PREFIX, made.manifest, "images").first(3) == []


# ---- memory ----------------------------------------------------------------------------------------------------------


def test_few_shards_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 100_000)
    step = Step(open_storage(str(tmp_path)), PREFIX, job="generate", settings={}, inputs={})

    def files() -> Iterator[tuple[str, bytes]]:
        for number in range(800):
            yield f"{number}.png", bytes([number % 256]) * 10_000

    def peak() -> int:
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        return found

    tracemalloc.start()
    try:
        shards.write(step, "images", files())
        step.finish()
        written = peak()
        assert sum(len(data) for _, data in Shards(step.storage, PREFIX, step.manifest, "images").read()) == 8_000_000
        read = peak()
    finally:
        tracemalloc.stop()
    # Each shard that is held, in pieces and in one piece.
    most = 2 * (shards.HELD + 2) * 100_000
    assert written < most and read < most

"""A folder and a real S3 server behave alike."""

import threading
from pathlib import Path

import pytest

from jobs.common.errors import MachineError, UserError
from jobs.common.storage import MissingKey, Storage, open_storage, read_many, write_many
from tests.conftest import S3Server, use_credentials


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    url = request.getfixturevalue("s3_url") if request.param == "s3" else str(tmp_path / "store")
    return open_storage(url)


def test_what_is_written_is_read(storage: Storage) -> None:
    storage.write("a/b/one.bin", b"\x00\xff")
    storage.write("a/two.bin", b"2")
    storage.write("ab/three.bin", b"3")
    assert storage.read("a/b/one.bin") == b"\x00\xff"
    assert storage.list("a") == ["a/b/one.bin", "a/two.bin"]
    assert storage.list("") == ["a/b/one.bin", "a/two.bin", "ab/three.bin"]
    assert storage.exists("a/two.bin") and not storage.exists("a/b")
    storage.write("a/two.bin", b"new")
    assert storage.read("a/two.bin") == b"new"
    storage.delete("a/two.bin")
    storage.delete("a/two.bin")
    assert not storage.exists("a/two.bin")


def test_what_is_not_there_is_missing(storage: Storage) -> None:
    with pytest.raises(MissingKey):
        storage.read("nothing/here")
    assert storage.list("nothing") == []


def test_many_objects_keep_their_order(storage: Storage) -> None:
    items = [(f"many/{number:03d}", str(number).encode()) for number in range(150)]
    write_many(storage, iter(items))
    assert storage.list("many") == [key for key, _ in items]
    assert list(read_many(storage, [key for key, _ in items])) == [data for _, data in items]


def test_a_conditional_write_needs_what_was_expected(storage: Storage) -> None:
    assert not storage.write_if("c.json", b"1", b"0")
    assert storage.write_if("c.json", b"1", None)
    assert not storage.write_if("c.json", b"2", None)
    assert not storage.write_if("c.json", b"2", b"0")
    assert storage.write_if("c.json", b"2", b"1")
    assert storage.read("c.json") == b"2"


def test_of_two_conditional_writes_at_once_one_wins(storage: Storage) -> None:
    storage.write("champion.json", b"old")
    barrier = threading.Barrier(4)
    won: list[bool] = []

    def promote(number: int) -> None:
        barrier.wait()
        won.append(storage.write_if("champion.json", f"new {number}".encode(), b"old"))

    threads = [threading.Thread(target=promote, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False, False, False, True]


def test_a_failed_write_leaves_the_old_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(str(tmp_path))
    storage.write("a.json", b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(MachineError, match="No space left on device"):
        storage.write("a.json", b"new")
    assert storage.read("a.json") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_messages_say_what_to_do(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_credentials(monkeypatch, s3_server, s3_server.owner)
    with pytest.raises(UserError, match="there is no bucket absent"):
        open_storage("s3://absent/x").list("")
    use_credentials(monkeypatch, s3_server, s3_server.reader)
    with pytest.raises(UserError, match="access is denied"):
        open_storage("s3://tests/x").write("key", b"")
    use_credentials(monkeypatch, s3_server, ("owner", "wrong"))
    with pytest.raises(UserError, match="access is denied"):
        open_storage("s3://tests/x").read("key")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(MachineError, match="AWS_ENDPOINT_URL"):
        open_storage("s3://tests/x").read("key")
    with pytest.raises(UserError, match="s3://bucket/prefix"):
        open_storage("gs://bucket")
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="a file is where a folder must be"):
        open_storage(str(blocked)).write("key", b"")

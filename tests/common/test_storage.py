"""A folder and a real S3 server behave alike."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from jobs.common.errors import MachineError, UserError
from jobs.common.s3 import S3
from jobs.common.storage import MissingKey, Storage, in_parallel, open_storage, write_many
from tests.conftest import use_credentials
from tests.s3_server import S3Server


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


def test_a_part_is_read(storage: Storage) -> None:
    storage.write("a", b"0123456789")
    storage.write("empty", b"")
    parts = {(0, 3): b"012", (4, 1): b"4", (7, 5): b"789", (10, 1): b"", (12, 3): b"", (3, 0): b""}
    assert {part: storage.read_range("a", *part) for part in parts} == parts
    assert storage.read_range("empty", 0, 4) == storage.read("empty") == b""


def test_what_is_not_there_is_missing(storage: Storage) -> None:
    with pytest.raises(MissingKey):
        storage.read("nothing/here")
    with pytest.raises(MissingKey):
        storage.read_range("nothing/here", 0, 3)
    assert storage.list("nothing") == []


def test_many_objects_keep_their_order(storage: Storage) -> None:
    items = [(f"many/{number:03d}", str(number).encode()) for number in range(150)]
    write_many(storage, iter(items))
    assert storage.list("many") == [key for key, _ in items]
    assert list(in_parallel(storage.read, [key for key, _ in items], "read", 8)) == [data for _, data in items]


def test_results_come_in_order_and_few_are_held() -> None:
    together, taken = threading.Barrier(4, timeout=10), []

    def work(number: int) -> int:
        if number < 4:
            together.wait()
        return -number

    found = in_parallel(work, (taken.append(number) or number for number in range(50)), "read", 4)
    assert next(found) == 0 and len(taken) == 4
    assert list(found) == [-number for number in range(1, 50)]


def test_the_first_error_ends_the_work() -> None:
    def work(number: int) -> int:
        if number == 3:
            raise MachineError("full")
        return number

    taken = []
    with pytest.raises(MachineError, match="full"):
        list(in_parallel(work, (taken.append(number) or number for number in range(100)), "write", 8))
    assert len(taken) < 20


def test_a_version_changes_with_its_object_and_no_other(storage: Storage) -> None:
    for key in ("v/one", "v/deep/two", "v/three"):
        storage.write(key, key.encode())
    before = storage.versions("v")
    assert list(before) and sorted(before) == storage.list("v")
    assert {key: version.size for key, version in before.items()} == {key: len(key) for key in before}
    # Of the same length.
    storage.write("v/one", b"v/ONE")
    after = storage.versions("v")
    assert {key for key in before if before[key] != after[key]} == {"v/one"}
    assert storage.versions("nothing") == {}


def test_the_version_of_a_link_is_its_files(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "store"))
    storage.write("a", b"")
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "store" / "link").symlink_to(tmp_path / "file")
    (tmp_path / "store" / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "store" / "itself").symlink_to("itself")
    before = storage.versions("")
    assert storage.list("") == sorted(before) == ["a", "link"]
    (tmp_path / "file").write_bytes(b"newer")
    assert storage.versions("")["link"].size == 5 and storage.versions("")["a"] == before["a"]


def test_a_conditional_write_needs_what_was_expected(storage: Storage) -> None:
    assert not storage.write_if("c.json", b"1", b"0")
    assert storage.write_if("c.json", b"1", None)
    assert not storage.write_if("c.json", b"2", None)
    assert not storage.write_if("c.json", b"2", b"0")
    assert storage.write_if("c.json", b"2", b"1")
    assert storage.read("c.json") == b"2"


def test_no_key_leads_out_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    storage = open_storage(str(tmp_path / "storage"))
    storage.write("a", b"")
    for key in ("../secret", "a/../../secret", str(tmp_path / "secret")):
        for use in (storage.read, storage.exists, storage.delete):
            with pytest.raises(MachineError, match="leads out of the storage"):
                use(key)
        with pytest.raises(MachineError, match="leads out of the storage"):
            storage.write(key, b"other")
    assert (tmp_path / "secret").read_bytes() == b"secret"


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
    for url in ("gs://bucket", "s3:/bucket/prefix"):
        with pytest.raises(UserError, match="s3://bucket/prefix"):
            open_storage(url)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="there is a file where a folder is needed"):
        open_storage(str(blocked)).write("key", b"")


class Answer(BaseHTTPRequestHandler):
    """Answers everything with the status and the code that stand in the bucket's name, as in 403-expiredtoken."""

    codes: dict[str, str]  # by their lower case, as a bucket's name has them

    def do_GET(self) -> None:
        """Answer."""
        status, _, code = self.path.split("/")[1].partition("?")[0].partition("-")
        self.send_response(int(status))
        if status == "301":
            # boto3 asks again there, and here in vain.
            self.send_header("x-amz-bucket-region", "eu-central-1")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(f"<Error><Code>{self.codes[code]}</Code><Message>M</Message></Error>".encode())

    def do_HEAD(self) -> None:
        """Answer without a body."""
        self.do_GET()

    def log_message(self, *arguments: object) -> None:
        """Be quiet."""


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    """Give a server that is S3's by its answers alone."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "x")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (400, "ExpiredToken", r"access is denied \(ExpiredToken\): check the credentials"),
        (400, "InvalidToken", r"access is denied \(InvalidToken\): check the credentials"),
        (403, "InvalidAccessKeyId", r"access is denied \(InvalidAccessKeyId\): check the credentials"),
        (403, "InvalidClientTokenId", r"access is denied \(InvalidClientTokenId\): check the credentials"),
        (400, "AuthorizationHeaderMalformed", r"AuthorizationHeaderMalformed: M: set AWS_DEFAULT_REGION"),
        (301, "PermanentRedirect", r"PermanentRedirect: .*: set AWS_DEFAULT_REGION"),
    ],
)
def test_an_answer_to_the_callers_mistake(
    answering: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch, status: int, code: str, message: str
) -> None:
    monkeypatch.setattr(Answer, "codes", {code.lower(): code}, raising=False)
    storage = open_storage(f"s3://{status}-{code.lower()}/x")
    with pytest.raises(UserError, match=message) as caught:
        storage.read("key")
    assert "\n" not in str(caught.value)
    # Without a body there is the status alone.
    with pytest.raises(UserError, match=r"check the credentials|AWS_DEFAULT_REGION"):
        storage.exists("key")


def test_an_answer_that_may_pass(answering: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answer, "codes", {"operationaborted": "OperationAborted"}, raising=False)
    with pytest.raises(MachineError, match="the server responds with OperationAborted: M"):
        open_storage("s3://409-operationaborted/x").read("key")


@pytest.mark.parametrize("content", [None, "This is no certificate."])
def test_a_wrong_file_of_authorities(
    answering: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    bundle = tmp_path / "ca.crt"
    if content:
        bundle.write_text(content)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{answering.server_port}")
    with pytest.raises(UserError, match="set AWS_CA_BUNDLE to a file with the server's authority"):
        open_storage("s3://bucket/x").read("key")


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate", UserError),
        ("hostname 'a' doesn't match 'b'", UserError),
        ("[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred in violation of protocol", MachineError),
    ],
)
def test_what_tls_says(monkeypatch: pytest.MonkeyPatch, said: str, kind: type[Exception]) -> None:
    from botocore.exceptions import SSLError

    def fail(**rest: object) -> None:
        raise SSLError(endpoint_url="https://s3", error=said)

    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    storage = open_storage("s3://bucket/x")
    assert isinstance(storage, S3)
    storage.client.meta.events.register_first("before-call.s3", fail)
    with pytest.raises(kind):
        storage.read("key")

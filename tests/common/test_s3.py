"""What S3 servers and their users do that a folder does not."""

import os
import random
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from boto3.s3.transfer import TransferConfig

from bench.chaos import proxy
from jobs import cli
from jobs.common import meter, s3
from jobs.common.errors import MachineError, UserError
from jobs.common.storage import MissingKey, open_storage
from tests.conftest import use_credentials
from tests.s3_server import S3Server

KEY_ID, SECRET, TOKEN = "AKIAPLANTEDKEYID0000", "plantedSecret/000+000", "plantedToken//////0000"


class Shelf(BaseHTTPRequestHandler):
    """Gives objects by their keys, letter for letter, from the bucket `shelf`."""

    server: "Server"

    def do_GET(self) -> None:
        """List, or send an object, or the error that is to be answered."""
        path, _, query = self.path.removeprefix(self.server.below).partition("?")
        key = urllib.parse.unquote(path).removeprefix("/shelf/")
        if self.server.error:
            # As a proxy might, which sends a request back.
            status, said = self.server.error
            self._send(status, f"<Error>{said.replace('REQUEST', escape(str(self.headers)))}</Error>".encode())
        elif "list-type=2" in query:
            self._send(200, self._listing(urllib.parse.parse_qs(query)["prefix"][0]))
        elif key in self.server.objects:
            self._send(200, self.server.objects[key])
        else:
            self._send(404, b"<Error><Code>NoSuchKey</Code></Error>")

    def _listing(self, prefix: str) -> bytes:
        found = "".join(
            f"<Contents><Key>{urllib.parse.quote(key)}</Key><Size>{len(data)}</Size><ETag>&quot;{len(data)}&quot;</ETag>"
            "<StorageClass>GLACIER</StorageClass></Contents>"
            for key, data in self.server.objects.items()
            if key.startswith(prefix)
        )
        return f"<ListBucketResult><EncodingType>url</EncodingType>{found}</ListBucketResult>".encode()

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = status == 200 and self.server.cuts > 0
        self.server.cuts -= cut
        self.server.sent += 1
        self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        """Be quiet."""


class Server(ThreadingHTTPServer):
    """Objects on the shelf, how many bodies are cut, how many were sent, and the error that is answered."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Shelf)
        self.objects: dict[str, bytes] = {}
        self.cuts = self.sent = 0
        self.below = ""
        self.error: tuple[int, str] | None = None


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Give the server, with planted credentials for it in the environment."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        where = S3Server(f"http://127.0.0.1:{server.server_port}", (KEY_ID, SECRET), (KEY_ID, SECRET))
        use_credentials(monkeypatch, where, where.owner)
        monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
        monkeypatch.setattr(s3, "BACKOFF_SECONDS", 0)
        yield server
        server.shutdown()
        thread.join()


# ---- the endpoint ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
@pytest.mark.parametrize("end", ["/tests", "/tests/", "/gateway/tests"])
def test_a_bucket_in_the_endpoint_belongs_into_the_url(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, variable: str, end: str
) -> None:
    use_credentials(monkeypatch, s3_server, s3_server.owner)
    monkeypatch.setenv(variable, s3_server.endpoint + end)
    with pytest.raises(UserError, match=f"^{variable}: remove /tests at .* s3://tests/prefix$"):
        open_storage("s3://tests/x")


def test_another_bucket_in_the_endpoint_is_found_by_what_the_server_lists(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_credentials(monkeypatch, s3_server, s3_server.owner)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"{s3_server.endpoint}/tests")
    with pytest.raises(UserError, match=r"s3://other: .* AWS_ENDPOINT_URL must end before the bucket.*s3://bucket/pre"):
        open_storage("s3://other/x").list("")


def test_an_endpoint_may_have_a_path(shelf: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.below = "/storage/v1/s3"
    shelf.objects["a/b"] = b"data"
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{shelf.server_port}/storage/v1/s3")
    storage = open_storage("s3://shelf/a")
    assert (storage.list(""), storage.read("b")) == (["b"], b"data")


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1:9000", "minio", "minio:9000/x", "://minio:9000", "http:/minio:9000", "ftp://minio", "http://"),
        *(
            "http://mi nio:9000",
            "http:// minio:9000",
            "http://minio:9000\nhttp://other",
            "http://[::1",
            "http://m:port",
        ),
    ],
)
def test_an_endpoint_that_is_no_address(monkeypatch: pytest.MonkeyPatch, variable: str, address: str) -> None:
    monkeypatch.setenv(variable, address)
    with pytest.raises(UserError, match=f"^{variable}: must start with http:// or https://") as caught:
        open_storage("s3://bucket/x")
    assert "\n" not in str(caught.value)


# ---- credentials -----------------------------------------------------------------------------------------------------


def test_white_space_around_variables_is_none_of_them(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    use_credentials(monkeypatch, s3_server, s3_server.owner)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"{s3_server.owner[0]}\n")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f" {s3_server.owner[1]}\r\n")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"{s3_server.endpoint}\n")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1\n")
    for unset in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(unset, "\n")
    storage = open_storage("s3://tests/white-space")
    storage.write("key", b"data")
    assert storage.read("key") == b"data"


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"])
@pytest.mark.parametrize("character", ["\n", "\r", "\t", "\x1b", "\u200b"])
def test_a_control_character_is_said_to_be_in_its_variable(
    shelf: Server, monkeypatch: pytest.MonkeyPatch, variable: str, character: str
) -> None:
    monkeypatch.setenv(variable, f"{KEY_ID}{character}{SECRET}")
    with pytest.raises(UserError, match=f"^{variable}: remove the line break") as caught:
        open_storage("s3://shelf/x")
    assert KEY_ID not in str(caught.value) and SECRET not in str(caught.value)


def test_a_control_character_is_said_to_be_in_the_file(
    shelf: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    file.write_text(f"[default]\naws_access_key_id = {KEY_ID}\n  {TOKEN}\naws_secret_access_key = {SECRET}\n")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    with pytest.raises(
        UserError, match=r"^the access key id in the AWS credentials file: remove the line break"
    ) as caught:
        open_storage("s3://shelf/x")
    assert not any(secret in str(caught.value) for secret in (KEY_ID, SECRET, TOKEN))


FAILURES = {
    "a line break in the key id": {"AWS_ACCESS_KEY_ID": f"{KEY_ID}\n{SECRET}"},
    "a line break in the secret": {"AWS_SECRET_ACCESS_KEY": f"{SECRET}\n{KEY_ID}"},
    "a key id that no header takes": {"AWS_ACCESS_KEY_ID": f"{KEY_ID}脳"},
    "a token that no header takes": {"AWS_SESSION_TOKEN": f"{TOKEN}脳"},
    "no secret": {"AWS_SECRET_ACCESS_KEY": ""},
    "no such profile": {"AWS_PROFILE": "absent"},
    "no region": {"AWS_DEFAULT_REGION": "us east 1"},
    "credentials in the endpoint": {"AWS_ENDPOINT_URL": f"http://{KEY_ID}:{TOKEN[:12]}@127.0.0.1:9"},
    "credentials for an endpoint": {"AWS_ENDPOINT_URL": f"{KEY_ID}:{SECRET}"},
    "nobody there": {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"},
    "no TLS": {"AWS_ENDPOINT_URL": "https://127.0.0.1:PORT"},
    "no file of authorities": {"AWS_ENDPOINT_URL": "https://127.0.0.1:PORT", "AWS_CA_BUNDLE": "/absent"},
    "denied": {"ANSWER": "403 <Code>AccessDenied</Code><Message>REQUEST</Message>"},
    "elsewhere": {"ANSWER": "400 <Code>AuthorizationHeaderMalformed</Code><Message>REQUEST</Message>"},
    "the request comes back": {"ANSWER": "418 <Code>Strange</Code><Message>REQUEST</Message>"},
    "the key id comes back": {"ANSWER": f"418 <Code>Strange</Code><Message>no key {KEY_ID} {TOKEN} here</Message>"},
    "an answer that is none": {"ANSWER": "200 REQUEST"},
    "an error without a code": {"ANSWER": "404 REQUEST"},
    "no such bucket": {"ANSWER": "404 <Code>NoSuchBucket</Code><Message>REQUEST</Message>"},
}


@pytest.mark.parametrize("kind", FAILURES)
def test_no_failure_tells_a_key_or_a_header(
    shelf: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    for name, value in FAILURES[kind].items():
        if name == "ANSWER":
            status, _, said = value.partition(" ")
            shelf.error = int(status), said
        else:
            monkeypatch.setenv(name, value.replace("PORT", str(shelf.server_port)))
    code = cli.main(["preprocess", "--data", "s3://shelf/data", "--storage", "s3://shelf/out"])
    shown = "".join(capfd.readouterr())
    assert code in (2, 3) and shown.count("\n") == 1, shown
    for secret in (KEY_ID, SECRET, TOKEN[:12], "Authorization:", "Credential=", "Signature=", "AWS4-HMAC"):
        assert secret.lower() not in shown.lower()


# ---- objects ---------------------------------------------------------------------------------------------------------


def test_objects_that_stand_for_folders_are_nothing(s3_url: str) -> None:
    storage = open_storage(f"{s3_url}/odd")
    client, prefix = storage.client, storage.prefix  # type: ignore[attr-defined]
    for key in (prefix, f"{prefix}yes/", f"{prefix}yes_$folder$", f"{prefix}yes/deep_$folder$"):
        client.put_object(Bucket="tests", Key=key, Body=b"")
    storage.write("yes/a.png", b"data")
    storage.write("yes/full_$folder$", b"data")
    assert storage.list("") == ["yes/a.png", "yes/full_$folder$"]
    assert storage.list("yes") == ["yes/a.png", "yes/full_$folder$"]


def test_keys_with_two_slashes_are_listed_and_read_as_they_are(shelf: Server) -> None:
    shelf.objects = {"top//no/1.png": b"1", "top/no//2.png": b"22", "top/no/3//": b"", "top/": b""}
    storage = open_storage("s3://shelf/top")
    assert {key: version.size for key, version in storage.versions("").items()} == {"/no/1.png": 1, "no//2.png": 2}
    assert [storage.read(key) for key in storage.list("")] == [b"1", b"22"]


def test_an_archived_object_is_for_its_owner_to_restore(shelf: Server) -> None:
    shelf.objects["cold/a.png"] = b"data"
    storage = open_storage("s3://shelf/cold")
    assert storage.list("") == ["a.png"]
    shelf.error = 403, "<Code>InvalidObjectState</Code><Message>M</Message><StorageClass>DEEP_ARCHIVE</StorageClass>"
    with pytest.raises(
        UserError, match=r"^s3://shelf/cold/a\.png: the object is archived \(DEEP_ARCHIVE\): restore it"
    ):
        storage.read("a.png")
    with pytest.raises(UserError, match="archived"):
        storage.write_if("a.png", b"new", b"data")


@pytest.mark.parametrize("cuts", [1, s3.ATTEMPTS - 1])
def test_a_body_that_breaks_off_is_read_again(shelf: Server, cuts: int) -> None:
    shelf.objects["a"] = b"whole"
    shelf.cuts = cuts
    assert open_storage("s3://shelf").read("a") == b"whole"
    assert shelf.sent == cuts + 1


def test_a_body_that_breaks_off_each_time_is_the_machines_failure(shelf: Server) -> None:
    shelf.objects["a"] = b"whole"
    shelf.cuts = 100
    with pytest.raises(MachineError, match=r"^s3://shelf/a: "):
        open_storage("s3://shelf").read("a")
    assert shelf.sent == s3.ATTEMPTS
    with pytest.raises(MissingKey):
        open_storage("s3://shelf").read("b")


def test_a_large_object_goes_up_in_parts(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "MULTIPART", TransferConfig(multipart_threshold=6 * 2**20, multipart_chunksize=5 * 2**20))
    storage = open_storage(s3_url)
    assert isinstance(storage, s3.S3)
    called: list[str] = []
    storage.client.meta.events.register("before-call.s3", lambda model, **rest: called.append(model.name))
    data = random.Random(0).randbytes(11 * 2**20)
    sent = meter.counters().bytes.labels("sent")._value.get()
    storage.write("large", data)
    assert sorted(called) == ["CompleteMultipartUpload", "CreateMultipartUpload", *["UploadPart"] * 3]
    assert meter.counters().bytes.labels("sent")._value.get() - sent >= len(data)
    assert storage.read("large") == data
    assert storage.read_range("large", 5 * 2**20 - 2, 4) == data[5 * 2**20 - 2 :][:4]
    storage.write("small", data[: 6 * 2**20 - 1])
    assert called[-1] == "PutObject"


def test_a_large_object_that_is_refused_is_told(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "MULTIPART", TransferConfig(multipart_threshold=1))
    use_credentials(monkeypatch, s3_server, s3_server.reader)
    with pytest.raises(UserError, match=r"s3://tests/x/key: access is denied"):
        open_storage("s3://tests/x").write("key", b"data")


def test_a_server_that_sends_the_whole_object_gives_the_part_too(shelf: Server) -> None:
    shelf.objects["a"] = b"0123456789"
    assert open_storage("s3://shelf").read_range("a", 3, 4) == b"3456"


class Disturbed(proxy.Faults):
    """The first `times` requests of each kind for an object have one fault."""

    def __init__(self, fault: str, times: int) -> None:
        super().__init__(0, 0.0)
        self.fault, self.times = fault, times

    def next(self, method: str, path: str) -> str:
        self.met[f"{method} {path}"] += 1
        return self.fault if self.met[f"{method} {path}"] <= self.times else ""


@pytest.mark.parametrize("times", [1, 2])
def test_a_refusal_counts_if_it_comes_twice(s3_url: str, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    open_storage(s3_url).write("key", b"old")
    uses = {
        "write": lambda storage: storage.write("other", b"bytes"),
        "write_if": lambda storage: storage.write_if("key", b"new", b"old"),
        "list": lambda storage: storage.list(""),
        "read": lambda storage: storage.read("key"),
        "exists": lambda storage: storage.exists("key"),
        "delete": lambda storage: storage.delete("key"),
    }
    for use in uses.values():
        with (
            proxy.running(os.environ["AWS_ENDPOINT_URL"], Disturbed("403", times)) as endpoint,
            monkeypatch.context() as own,
        ):
            own.setenv("AWS_ENDPOINT_URL", endpoint)
            storage = open_storage(s3_url)
            if times == 1:
                use(storage)
            else:
                with pytest.raises(UserError, match="access is denied"):
                    use(storage)
    assert list(open_storage(s3_url).list("")) == (["other"] if times == 1 else ["key"])


def test_an_answer_about_a_missing_object_may_break_off(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy.running(os.environ["AWS_ENDPOINT_URL"], Disturbed("cut", s3.ATTEMPTS - 1)) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(MissingKey):
            open_storage(s3_url).read("missing")


@pytest.mark.parametrize("expected", [None, b"old"])
def test_a_conditional_write_counts_if_its_answer_is_lost(
    s3_url: str, monkeypatch: pytest.MonkeyPatch, expected: bytes | None
) -> None:
    if expected:
        open_storage(s3_url).write("key", expected)
    with proxy.running(os.environ["AWS_ENDPOINT_URL"], Disturbed("lost", 1)) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        storage = open_storage(s3_url)
        assert storage.write_if("key", b"new", expected)
        assert not storage.write_if("key", b"newer", b"old")
        assert storage.read("key") == b"new"


@pytest.mark.parametrize("times", [1, 2])
def test_a_list_that_is_not_found_counts_if_it_comes_twice(
    s3_url: str, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    open_storage(s3_url).write("key", b"bytes")
    with proxy.running(os.environ["AWS_ENDPOINT_URL"], Disturbed("404", times)) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        if times == 1:
            assert list(open_storage(s3_url).list("")) == ["key"]
        else:
            with pytest.raises(UserError, match="must end before the bucket name"):
                open_storage(s3_url).list("")

"""A real S3 server, SeaweedFS, on free ports of this machine."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple


class S3Server(NamedTuple):
    """A running S3 server; `owner` may do all, `reader` may only read.

    With TLS, `secure` is its address, and `authority` the file with the private authority of its certificate.
    """

    endpoint: str
    owner: tuple[str, str]
    reader: tuple[str, str]
    secure: str = ""
    authority: Path = Path()

    def environment(self, who: tuple[str, str]) -> dict[str, str]:
        """Return the variables that boto3 reads, for the owner or the reader."""
        key, secret = who
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@contextlib.contextmanager
def running(folder: Path, volumes: int = 8) -> Iterator[S3Server]:
    """Start the server with its files in `folder`, wait until it answers a write, stop it at the end.

    It has the bucket `tests`, and room for `volumes` of 64 MB.
    """
    owner, reader = ("owner-key-id", "owner-secret"), ("reader-key-id", "reader-secret")
    identities = [
        {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
        for name, (key, secret), actions in (("owner", owner, ["Admin"]), ("reader", reader, ["Read", "List"]))
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    _certify(folder)
    parts = ("master", "volume", "filer", "s3")
    *free, https = free_ports(2 * len(parts) + 1)
    ports, grpc = dict(zip(parts, free, strict=False)), dict(zip(parts, free[len(parts) :], strict=True))
    command: list[str | Path] = [
        Path(sys.executable).with_name("weed"),
        "server",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-filer",
        "-s3",
    ]
    command += [f"-{part}.port={port}" for part, port in ports.items()]
    command += [f"-{part}.port.grpc={port}" for part, port in grpc.items()]
    command += ["-s3.port.iceberg=0", f"-s3.config={folder / 's3.json'}", f"-volume.max={volumes}"]
    command += ["-master.volumeSizeLimitMB=64", "-master.telemetry=false", "-s3.port.lance=0"]
    command += [f"-s3.port.https={https}", f"-s3.cert.file={folder / 'cert'}", f"-s3.key.file={folder / 'key'}"]
    command += [f"-{part}.localSocket={folder / part}.sock" for part in ("filer", "s3")]
    log = folder / "log"
    with ExitStack() as stack:
        server = stack.enter_context(
            subprocess.Popen(command, stdout=log.open("wb"), stderr=subprocess.STDOUT, cwd=folder)
        )
        stack.callback(_clear_sockets, ports)
        stack.callback(server.kill)
        endpoint = f"http://127.0.0.1:{ports['s3']}"
        deadline = time.monotonic() + 60
        while complaint := _complaint(endpoint, owner):
            assert server.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, f"{complaint}\n{log.read_text()[-2000:]}"
            time.sleep(0.2)
        yield S3Server(endpoint, owner, reader, f"https://127.0.0.1:{https}", folder / "authority")


def _certify(folder: Path) -> None:
    """Write an authority, and the certificate and key of this machine that it signed: `authority`, `cert`, `key`."""
    import trustme

    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(folder / "authority"))
    own.cert_chain_pems[0].write_to_path(str(folder / "cert"))
    own.private_key_pem.write_to_path(str(folder / "key"))


def _clear_sockets(ports: dict[str, int]) -> None:
    """Remove what the server leaves in a place that cannot be set."""
    for part, port in ports.items():
        Path(f"/tmp/seaweedfs-{part}-grpc-{port}.sock").unlink(missing_ok=True)


def free_ports(number: int) -> list[int]:
    """Return ports that nobody listens on, below those that the kernel gives to outgoing connections.

    Processes look in different places, so that two that start a server at once do not find the same.
    """
    for start in range(12_000 + os.getpid() % 1000 * number, 32_000, number):
        ports = list(range(start, start + number))
        with ExitStack() as stack, contextlib.suppress(OSError):
            for port in ports:
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return ports
    raise AssertionError("no free ports")


def _complaint(endpoint: str, who: tuple[str, str]) -> str:
    """Return why the server cannot take a write yet, nothing if it can; its bucket is there then."""
    import boto3
    import botocore.config
    import botocore.exceptions

    client = boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=who[0],
        aws_secret_access_key=who[1],
        region_name="us-east-1",
        config=botocore.config.Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1}),
    )
    try:
        if not any(bucket["Name"] == "tests" for bucket in client.list_buckets()["Buckets"]):
            client.create_bucket(Bucket="tests")
        client.put_object(Bucket="tests", Key="ready", Body=b"")
    except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
        return str(error)
    return ""

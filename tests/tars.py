"""The images of a step, as tarfile reads them."""

import io
import tarfile

from jobs.common.storage import Storage


def images(storage: Storage, prefix: str) -> dict[str, bytes]:
    """Return the files in the tar files of the folder `images`, by name, in their order there."""
    found: dict[str, bytes] = {}
    for key in storage.list(f"{prefix}/images"):
        with tarfile.open(fileobj=io.BytesIO(storage.read(key)), mode="r:") as tar:
            found |= {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    return found

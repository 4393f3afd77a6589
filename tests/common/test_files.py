"""Files are found where they lie, in storage too."""

import hashlib
from pathlib import Path

import pytest

from jobs.common.errors import UserError
from jobs.common.files import file_digest, local_file
from jobs.common.storage import open_storage


def test_a_local_file_is_used_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"weights")
    assert local_file("--weights", str(tmp_path / "a.h5")) == tmp_path / "a.h5"


def test_a_file_in_s3_is_fetched_once_under_its_own_name(s3_url: str) -> None:
    storage = open_storage(s3_url)
    storage.write("weights/a.h5", b"weights")
    path = local_file("--weights", f"{s3_url}/weights/a.h5")
    assert (path.name, path.read_bytes()) == ("a.h5", b"weights")
    storage.delete("weights/a.h5")
    assert local_file("--weights", f"{s3_url}/weights/a.h5") == path
    assert file_digest("--weights", f"{s3_url}/weights/a.h5") == hashlib.sha256(b"weights").hexdigest()


def test_a_missing_file_is_named_with_its_flag(tmp_path: Path, s3_url: str) -> None:
    for url in (str(tmp_path / "gone.h5"), f"{s3_url}/gone.h5"):
        with pytest.raises(UserError, match=rf"^--weights: there is no file {url}"):
            local_file("--weights", url)

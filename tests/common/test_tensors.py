"""Arrays survive the way to bytes and back, and the same arrays give the same bytes."""

import subprocess
import sys

import numpy as np
import pytest

from jobs.common import tensors
from jobs.common.errors import MachineError

ARRAYS = {
    "weights": np.arange(12, dtype=np.float32).reshape(3, 4).T,
    "step": np.array(7, np.int64),
    "empty": np.zeros((0, 2), np.float32),
}


def test_arrays_and_meta_come_back() -> None:
    arrays, meta = tensors.from_bytes(tensors.to_bytes(ARRAYS, {"b": "2", "a": "1"}))
    assert meta == {"a": "1", "b": "2"}
    assert arrays.keys() == ARRAYS.keys()
    for name, value in ARRAYS.items():
        assert arrays[name].dtype == value.dtype and arrays[name].shape == value.shape
        np.testing.assert_array_equal(arrays[name], value)


def test_every_process_writes_the_same_bytes() -> None:
    code = (
        "import hashlib, numpy as np; from jobs.common import tensors\n"
        "arrays = {name: np.ones(3, np.float32) for name in 'dcba'}\n"
        "print(hashlib.sha256(tensors.to_bytes(arrays, {name: name for name in 'xyzw'})).hexdigest())"
    )
    written = {subprocess.check_output([sys.executable, "-c", code]) for _ in range(3)}
    assert len(written) == 1


@pytest.mark.parametrize("damage", [b"", b"\x00" * 8, b"not tensors at all", tensors.to_bytes(ARRAYS, {})[:-3]])
def test_damage_is_named(damage: bytes) -> None:
    with pytest.raises(MachineError, match=r"the generator is damaged .* delete it and run again"):
        tensors.from_bytes(damage, "the generator")

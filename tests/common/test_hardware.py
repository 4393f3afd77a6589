"""What is decided from the hardware found, and that the log says why."""

import logging

import pytest

from jobs.common import hardware, machine
from jobs.settings import ExecutionSettings


@pytest.mark.parametrize(
    ("flags", "depthwise", "precision"),
    [
        ({"avx2", "avx512_bf16"}, False, "float32"),
        ({"avx512_bf16", "amx_bf16", "amx_tile"}, False, "bfloat16"),
        ({"avx512_bf16", "amx_bf16", "amx_tile"}, True, "float32"),
        (set(), False, "float32"),
    ],
)
def test_bfloat16_is_for_matrix_products_on_matrix_units(flags: set[str], depthwise: bool, precision: str) -> None:
    decided, why = hardware._for_processor(frozenset(flags), depthwise)
    assert decided == precision and "matrix units" in why


@pytest.mark.parametrize(("capability", "precision"), [((9, 0), "bfloat16"), ((7, 5), "float32"), (None, "float32")])
def test_bfloat16_is_for_gpus_with_tensor_cores_for_it(capability: tuple[int, int] | None, precision: str) -> None:
    assert hardware._for_gpu(capability)[0] == precision


def test_the_decision_is_logged_with_its_reasons(caplog: pytest.LogCaptureFixture) -> None:
    hardware._log.cache_clear()
    with caplog.at_level(logging.INFO, "mrigan"):
        decided = hardware.configure(ExecutionSettings(threads=1, precision="bfloat16"))
    assert (decided.threads, decided.precision) == (1, "bfloat16")
    for reason in ("1 threads: as set", "bfloat16: as set", "XLA o"):
        assert reason in caplog.text
    assert decided.arithmetic() == {"kind": decided.kind, "threads": 1, "precision": "bfloat16", "xla": decided.xla}


@pytest.mark.parametrize(("threads", "expected"), [(0, machine.usable_cores()), (1, 1)])
def test_no_threads_are_all_cores(threads: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # TensorFlow takes its threads once in a process, and other tests have set them.
    monkeypatch.setattr(hardware.tf.config.threading, "get_intra_op_parallelism_threads", lambda: expected)
    assert hardware.configure(ExecutionSettings(threads=threads)).threads == expected


def test_a_gpu_can_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus, growing = [object(), object()], {}
    monkeypatch.setattr(hardware.tf.config, "list_physical_devices", lambda kind: gpus)
    monkeypatch.setattr(hardware.tf.config.experimental, "get_device_details", lambda gpu: {"device_name": "a GPU"})
    monkeypatch.setattr(hardware.tf.config.experimental, "set_memory_growth", growing.__setitem__)
    assert hardware.configure(ExecutionSettings(threads=1)).kind == "gpu"
    assert growing == dict.fromkeys(gpus, True)

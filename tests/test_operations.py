"""What a training step costs a GPU, seen without one: operations to launch, compilations, and copies to the host.

TensorFlow launches at least one kernel for each operation that computes something, some 5 to 10 microseconds each. With
small images that takes longer than the arithmetic.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from jobs.classifier import networks, stepping
from jobs.common import hardware
from jobs.gan import training
from jobs.gan.networks import GanConfig
from jobs.settings import ExecutionSettings

SIZE, BATCH, CLASSES = 64, 4, 2
STEPS = (1, 3, 2)  # of one call each
PLAIN = ("augmentation", "gradient_penalty", "moving_average", "patches", "relativistic")
# Operations that compute nothing: they move no data, or only tell where data are.
FREE = {
    *("Const", "Identity", "IdentityN", "NoOp", "Placeholder", "_Arg", "_Retval", "_Send", "_Recv"),
    *("Switch", "Merge", "Enter", "Exit", "NextIteration", "LoopCond"),
    *("VarHandleOp", "VariableV2", "ReadVariableOp", "Shape", "Reshape", "Squeeze", "ExpandDims"),
}
ON_HOST = {"PyFunc", "EagerPyFunc", "PyFuncStateless"}


@pytest.fixture(autouse=True, scope="module")
def tensorflow() -> None:
    hardware.configure(ExecutionSettings(threads=1))


def gan(**changed: bool) -> tuple[Callable[..., tf.Tensor], Callable[[int], tuple[Any, ...]]]:
    """Return the training function of a GAN, and a function from a number of steps to its arguments."""
    anchors = 0 if changed else 6
    config = GanConfig(image_size=SIZE, width=4, latent=8, labels=("a", "b"), anchors=anchors)
    options = training.Options(seed=0, steps=10, batch=BATCH, learning_rate=1e-3, **changed)
    state = training.new_state(config, options, np.arange(anchors) % CLASSES)

    def arguments(count: int) -> tuple[Any, ...]:
        numbers = np.zeros((count, BATCH), np.int32)
        return np.zeros((count, BATCH, SIZE, SIZE, 1), np.uint8), numbers, numbers, np.int64(0)

    return training.train_function(state, config, options), arguments


def classifier() -> tuple[Callable[..., tf.Tensor], Callable[[int], tuple[Any, ...]]]:
    """Return the training function of MobileNetV2, and a function from a number of steps to its arguments."""
    architecture = networks.Architecture("mobilenetv2", ("a", "b"), SIZE)
    _, take_steps = stepping.prepare(architecture, "float32", BATCH, 1.0, False)

    def arguments(count: int) -> tuple[Any, ...]:
        pixels = np.zeros((count, BATCH, SIZE, SIZE), np.uint8)
        targets = np.full((count, BATCH, CLASSES), 1 / CLASSES, np.float32)
        each = np.zeros(count, np.float32)
        return pixels, targets, each, each, np.int32(0), np.arange(count, dtype=np.int32)

    return take_steps, arguments


def operations(call: Callable[[], Any]) -> Counter[str]:
    """Return the operations of the functions that `call` runs for the first time, after TensorFlow's optimization."""
    context.context().enable_run_metadata()
    try:
        call()
        found = context.context().export_run_metadata()
    finally:
        context.context().disable_run_metadata()
    return Counter(node.op for one in found.function_graphs for part in one.partition_graphs for node in part.node)


# A step had 984, 474 and 941 operations when these limits were set.
@pytest.mark.parametrize(
    ("made", "most"),
    [(gan, 1050), (lambda: gan(**dict.fromkeys(PLAIN, False)), 520), (classifier, 1000)],
    ids=("recipe's GAN", "plain DCGAN", "MobileNetV2"),
)
def test_a_step_has_few_operations_and_is_compiled_once(
    made: Callable[[], tuple[Any, Callable[[int], tuple[Any, ...]]]], most: int
) -> None:
    function, arguments = made()
    first, *others = STEPS
    found = operations(lambda: function(*arguments(first)))
    assert 100 < sum(count for name, count in found.items() if name not in FREE) <= most
    assert not ON_HOST & found.keys()
    for count in others:
        assert function(*arguments(count)).shape[0] == count
    assert function.experimental_get_tracing_count() == 1

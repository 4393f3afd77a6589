"""Initial weights of classifiers that are pretrained on phantoms, and the settings of the pretraining."""

from typing import Any, NamedTuple, Protocol

from jobs.common import keys
from jobs.common.step import RESULTS_VERSION, digest

WEIGHTS = "classifier.safetensors"
LABELS = ("no lesion", "lesion")


class Start(NamedTuple):
    """Settings of the pretraining of a network: peak learning rate, and strength of the augmentation (0 to 1)."""

    learning_rate: float
    augmentation: float


# Phantoms vary much: with full augmentation a network needs several times the steps, and ResNet152V2 is slow.
# Classifiers that start from these weights keep this augmentation (docs/quality.md).
START = {"mobilenetv2": Start(0.003, 1.0), "resnet152v2": Start(0.001, 0.3)}


class Learning(Protocol):
    """The settings that decide whether classifiers start from pretrained weights."""

    @property
    def healthy(self) -> str:
        """The class without lesions, or nothing."""

    @property
    def phantom_epochs(self) -> int:
        """Epochs on phantoms alone."""

    @property
    def classifier_weights(self) -> str:
        """`none`, `imagenet` or a file."""


class Pretraining(Protocol):
    """Settings of pretrain."""

    @property
    def network(self) -> str:
        """A network of keras.applications."""

    def result(self) -> dict[str, Any]:
        """Return the settings that change results."""


def is_used(settings: Learning) -> bool:
    """Return whether classifiers with these settings start from weights of pretrain."""
    return bool(settings.healthy and settings.phantom_epochs and settings.classifier_weights == "none")


def place(settings: Pretraining) -> str:
    """Return the prefix of the weights for settings of pretrain."""
    name = settings.network
    return keys.pretrained(f"{name}-{digest([settings.result(), RESULTS_VERSION])[:12]}")

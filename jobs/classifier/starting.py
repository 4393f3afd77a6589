"""Initial weights of classifiers that are pretrained on phantoms, and the settings of the pretraining."""

from collections.abc import Mapping
from typing import Any, NamedTuple

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


def is_used(healthy: str, phantom_epochs: int, classifier_weights: str) -> bool:
    """Return whether classifiers with these settings start from weights of pretrain."""
    return bool(healthy and phantom_epochs and classifier_weights == "none")


def place(settings: Mapping[str, Any]) -> str:
    """Return the prefix of the weights for the settings of pretrain that change results."""
    return keys.pretrained(f"{settings['network']}-{digest([settings, RESULTS_VERSION])[:12]}")

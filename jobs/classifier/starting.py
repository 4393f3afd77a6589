"""Initial weights of classifiers that are pretrained on phantoms."""

from collections.abc import Mapping
from typing import Any

from jobs.common import keys
from jobs.common.step import RESULTS_VERSION, digest

WEIGHTS = "classifier.safetensors"
LABELS = ("no lesion", "lesion")


def is_used(healthy: str, phantom_epochs: int, classifier_weights: str) -> bool:
    """Return whether classifiers with these settings start from weights of pretrain."""
    return bool(healthy and phantom_epochs and classifier_weights == "none")


def place(settings: Mapping[str, Any]) -> str:
    """Return the prefix of the weights for the settings of pretrain that change results."""
    return keys.pretrained(f"{settings['network']}-{digest([settings, RESULTS_VERSION])[:12]}")

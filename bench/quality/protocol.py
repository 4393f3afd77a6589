"""The recipe, the stages of its evaluation on five folds, and its variants."""

from typing import Any

from jobs.settings import PipelineSettings
from jobs.train_gan import STABILIZERS

# The defaults, with the threads and precision fixed, since several machines may share a run.
RECIPE: dict[str, Any] = {"threads": 1, "precision": "float32"}

ONE_SEED: dict[str, Any] = {"networks": ("mobilenetv2",), "seeds": 1, "controls": False}
# On a CPU, a step of ResNet152V2 takes 15 times as long as one of MobileNetV2. It gets fewer steps, with batches of
# half the size, and the same synthetic images.
_RESNET: dict[str, Any] = ONE_SEED | {
    "networks": ("resnet152v2",),
    "classifier_batch": 16,
    "classifier_epochs": 4,
    "classifier_learning_rate": 3e-4,
    "phantom_epochs": 16,
}
# The name of the results, and their settings. Each stage adds results, so that the table is valid after each one.
STAGES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("quality", ONE_SEED),
    ("quality", ONE_SEED | {"controls": True}),
    ("resnet152v2", _RESNET | {"regimes": ("synthetic",)}),
    ("resnet152v2", _RESNET | {"regimes": ("synthetic", "real")}),
    ("resnet152v2", _RESNET),
    ("quality", ONE_SEED | {"controls": True, "seeds": 2}),
    ("quality", ONE_SEED | {"controls": True, "seeds": 3}),
)


def _times(setting: str, factor: float) -> dict[str, int]:
    return {setting: int(factor * PipelineSettings.model_fields[setting].default)}


# The recipe with one part changed or left out, for the inner splits. Parts of the generator are compared on images as
# it draws them, with the recipe without bends.
REFERENCE = "no-bends"
_AS_DRAWN: dict[str, Any] = {"synthetic_bend": 0.0}
_ON_SYNTHETIC: dict[str, Any] = _AS_DRAWN | {"regimes": ("synthetic",)}
_THREE_SEEDS: dict[str, Any] = {"seeds": 3, "regimes": ("synthetic",)}
_THREE_SEEDS_REAL: dict[str, Any] = {"seeds": 3, "regimes": ("real",)}
# The stabilizers that a variant leaves out.
OFF = {f"no-{part.replace('_', '-')}": (part,) for part in STABILIZERS}
VARIANTS: dict[str, dict[str, Any]] = {
    "recipe": {},
    REFERENCE: _AS_DRAWN,
    **dict.fromkeys(OFF, _ON_SYNTHETIC),
    "plain-dcgan": _ON_SYNTHETIC | {"gan_stabilizers": "none", "gan_conditional": False},
    "half-resolution": _ON_SYNTHETIC | _times("image_size", 0.5),
    "half-gan-epochs": _ON_SYNTHETIC | _times("gan_epochs", 0.5),
    "quarter-images": _ON_SYNTHETIC | _times("synthetic_count", 0.25),
    "four-times-images": _ON_SYNTHETIC | _times("synthetic_count", 4),
    "no-phantoms": _AS_DRAWN | {"healthy": "off", "regimes": ("real", "synthetic")},
    "4-classifier-epochs": _THREE_SEEDS | {"classifier_epochs": 4},
    "8-classifier-epochs": _THREE_SEEDS | {"classifier_epochs": 8},
    "12-classifier-epochs": _THREE_SEEDS | {"classifier_epochs": 12},
    "4-classifier-epochs-real": _THREE_SEEDS_REAL | {"classifier_epochs": 4},
    "8-classifier-epochs-real": _THREE_SEEDS_REAL | {"classifier_epochs": 8},
    "12-classifier-epochs-real": _THREE_SEEDS_REAL | {"classifier_epochs": 12},
    "no-classifier-augmentation": {"regimes": ("real",), "classifier_augmentation": False},
}

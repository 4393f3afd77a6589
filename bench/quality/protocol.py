"""What is run: the recipe, and the stages in which five folds are done."""

from typing import Any

from jobs.settings import PipelineSettings
from jobs.train_gan import STABILIZERS

# The defaults. Threads and precision are part of the run, which several machines may share.
RECIPE: dict[str, Any] = {"threads": 1, "precision": "float32"}

ONE_SEED: dict[str, Any] = {"networks": ("mobilenetv2",), "seeds": 1, "controls": False}
# A step of ResNet152V2 takes fifteen times as long as one of MobileNetV2 on a processor: it gets fewer, of half as many
# images, out of the same synthetic ones.
_RESNET: dict[str, Any] = ONE_SEED | {
    "networks": ("resnet152v2",),
    "classifier_batch": 16,
    "classifier_epochs": 4,
    "classifier_learning_rate": 3e-4,
    "phantom_epochs": 16,
}
# The results' name, and what is asked for in it. Each stage adds something, so that whoever stops early has a whole
# table of less.
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


# The recipe with one part changed or left out, to be tried on inner splits. What a generator's parts are worth is seen
# in images as it draws them: they are compared with the recipe without bends.
REFERENCE = "no-bends"
_AS_DRAWN: dict[str, Any] = {"synthetic_bend": 0.0}
_ON_SYNTHETIC: dict[str, Any] = _AS_DRAWN | {"regimes": ("synthetic",)}
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
    "no-classifier-augmentation": {"regimes": ("real",), "classifier_augmentation": False},
}

"""What is run: the recipe, and the stages in which five folds are done."""

from typing import Any

from jobs.pipeline import PRESETS, PipelineSettings

# Two processes on two cores are faster than two threads. Threads and precision are part of the run, which several
# machines may share.
RECIPE: dict[str, Any] = PRESETS["recipe"] | {"threads": 1, "precision": "float32"}

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

# The recipe with one part changed or left out, to be tried on inner splits. What a generator's parts are worth is seen
# in images as it draws them: they are compared with the recipe without bends.
REFERENCE = "no-bends"
_STABILIZERS = PipelineSettings.model_fields["gan_stabilizers"].default
_AS_DRAWN: dict[str, Any] = {"synthetic_bend": 0.0}
_ON_SYNTHETIC: dict[str, Any] = _AS_DRAWN | {"regimes": ("synthetic",)}
_ON_REAL: dict[str, Any] = {"regimes": ("real",)}
_NO_PHANTOMS: dict[str, Any] = _AS_DRAWN | {"healthy": "", "classifier_learning_rate": 3e-3}
VARIANTS: dict[str, dict[str, Any]] = {
    "recipe": {},
    REFERENCE: _AS_DRAWN,
    **{
        f"no-{part}": _ON_SYNTHETIC | {"gan_stabilizers": tuple(x for x in _STABILIZERS if x != part)}
        for part in _STABILIZERS
    },
    "spectral-norm": _ON_SYNTHETIC | {"gan_stabilizers": (*_STABILIZERS, "spectral-norm")},
    "plain-dcgan": _ON_SYNTHETIC | {"gan_stabilizers": (), "gan_conditional": False},
    "half-resolution": _ON_SYNTHETIC | {"image_size": RECIPE["image_size"] // 2},
    "half-gan-epochs": _ON_SYNTHETIC | {"gan_epochs": RECIPE["gan_epochs"] // 2},
    "quarter-images": _ON_SYNTHETIC | {"synthetic_count": RECIPE["synthetic_count"] // 4},
    "four-times-images": _ON_SYNTHETIC | {"synthetic_count": RECIPE["synthetic_count"] * 4},
    "no-phantoms": _NO_PHANTOMS | {"regimes": ("real", "synthetic")},
    # Pretraining would take five times as long with this stem.
    "no-phantoms-stem-stride-1": _NO_PHANTOMS | _ON_REAL | {"classifier_stem_stride": 1},
    "no-classifier-augmentation": _ON_REAL | {"classifier_augmentation": False},
}

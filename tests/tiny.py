"""The settings of a whole run that is as small as can be: seconds, and nothing is learned."""

from typing import Any

TINY: dict[str, Any] = {
    "image_size": 32,
    "folds": 2,
    "networks": ("mobilenetv2",),
    "gan_epochs": 4,
    "gan_width": 4,
    "latent": 8,
    "gan_batch": 8,
    "synthetic_count": 8,
    "classifier_epochs": 1,
    "classifier_steps_per_epoch": 2,
    "classifier_batch": 8,
    "healthy": "healthy",
    "phantoms": 8,
    "phantom_epochs": 1,
    "resamples": 100,
    "threads": 1,
}

"""What is run: the recipe, and the stages in which five folds are done."""

from typing import Any

RECIPE: dict[str, Any] = {
    "image_size": 64,
    "folds": 5,
    "gan_conditional": True,
    "gan_width": 16,
    "gan_epochs": 400,
    "sample_every": 200,
    "synthetic_count": 1000,
    "classifier_epochs": 15,
    "classifier_steps_per_epoch": 100,
    # Two processes on two cores are faster than two threads, and the number of threads is part of the run.
    "threads": 1,
}

# Each stage adds to the one before, so that whoever stops early has a whole table of less.
STAGES: tuple[dict[str, Any], ...] = (
    {"networks": ("mobilenetv2",), "seeds": 1, "controls": False},
    {"networks": ("mobilenetv2",), "seeds": 3, "controls": True},
    {"networks": ("mobilenetv2", "resnet152v2"), "seeds": 1, "controls": True},
    {"networks": ("mobilenetv2", "resnet152v2"), "seeds": 3, "controls": True},
)

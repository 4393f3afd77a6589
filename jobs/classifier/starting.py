"""Initial weights of classifiers that are pretrained on phantoms: those of this package, or those of pretrain."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jobs.common import keys
from jobs.common.errors import MachineError, UserError
from jobs.common.fields import Settings
from jobs.common.step import RESULTS_VERSION, digest, stored
from jobs.common.storage import Storage

WEIGHTS = "classifier.safetensors"
LABELS = ("no lesion", "lesion")
PACKAGED = Path(__file__).parent / "weights"
# Settings of pretrain that must be those of the packaged weights. The arithmetic may be another one.
SAME = ("network", "image_size", "phantoms", "phantom_epochs", "classifier_steps_per_epoch", "classifier_batch")


class Start(NamedTuple):
    """Pretrained weights: the bytes of `networks.save_classifier`, their digest, and the seconds of the training."""

    data: bytes
    digest: str
    seconds: float


def is_used(healthy: str, phantom_epochs: int, classifier_weights: str) -> bool:
    """Return whether classifiers with these settings start from pretrained weights."""
    return bool(healthy and phantom_epochs and classifier_weights == "none")


def place(settings: Mapping[str, Any]) -> str:
    """Return the prefix of the weights for the settings of pretrain that change results."""
    return keys.pretrained(f"{settings['network']}-{digest([settings, RESULTS_VERSION])[:12]}")


def are_packaged(settings: Mapping[str, Any]) -> bool:
    """Return whether this package has the weights that pretrain would make with these settings."""
    found = card(settings["network"], settings["image_size"])
    return bool(found) and all(found["settings"][name] == settings[name] for name in SAME)


def start(storage: Storage, settings: Settings) -> Start:
    """Return the weights for these settings of pretrain, from the package or else from storage.

    Raises UserError if there are none, MachineError if they are damaged.
    """
    own = settings.result()
    if are_packaged(own):
        return packaged(own["network"], own["image_size"])
    step = stored(storage, place(own))
    if step is None:
        flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in settings.model_dump().items())
        raise UserError(f"{storage.url} has no weights pretrained on phantoms: run `mrigan pretrain {flags}` first")
    return Start(step.read(WEIGHTS), step.digest, step.manifest["seconds"])


def card(network: str, image_size: int) -> dict[str, Any]:
    """Return what is known of the packaged weights of a network and an image size; empty without such weights."""
    path = PACKAGED / f"{network}-{image_size}.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def packaged(network: str, image_size: int) -> Start:
    """Return packaged weights. Raises MachineError if the file is missing or has another digest than its card says."""
    path = PACKAGED / f"{network}-{image_size}.safetensors"
    data, known = path.read_bytes() if path.is_file() else b"", card(network, image_size)
    if hashlib.sha256(data).hexdigest() != known["digest"]:
        raise MachineError(f"{path} is missing or damaged: install mrigan again")
    return Start(data, known["digest"], 0.0)


def in_words(card: Mapping[str, Any]) -> str:
    """Return sentences that say how well packaged weights read real images."""
    read = card["read"]
    accuracy, auc = (read["figures"][name] for name in ("accuracy", "roc_auc"))
    percent = [f"{100 * accuracy[name]:.1f}" for name in ("value", "low", "high")]
    return (
        f"On {read['images']} public MRI with and without a tumour they are right for {percent[0]} % "
        f"[{percent[1]}-{percent[2]}] (always the larger class: {100 * read['largest_class']:.1f} %; ROC-AUC "
        f"{auc['value']:.2f} [{auc['low']:.2f}-{auc['high']:.2f}]). How the heads are drawn was chosen on four fifths "
        "of these MRI: expect less on yours."
    )

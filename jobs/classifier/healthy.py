"""Find the class of heads without a lesion. Phantoms without a lesion are training images of this class."""

import logging
import re
from collections.abc import Iterable
from typing import Any, TypeVar

from jobs.classifier import starting
from jobs.common.errors import UserError
from jobs.common.fields import Settings

log = logging.getLogger("mrigan.healthy")

T = TypeVar("T", bound=Settings)
EPOCHS, EPOCHS_FROM_RANDOM_WEIGHTS = 8, 12
RATE, RATE_FROM_RANDOM_WEIGHTS = 1e-3, 3e-3  # peak learning rates of a MobileNetV2 with and without phantoms
AUTO, OFF = "auto", "off"
# Usual names of this class in collections, without spaces, underscores and hyphens.
USUAL_NAMES = frozenset(
    ("no", "none", "normal", "healthy", "negative", "control", "controls", "nolesion", "notumor", "notumour")
)


def by_name(labels: Iterable[str]) -> str | None:
    """Return the only one of `labels` whose name means that there is no lesion; None if there is none, or several."""
    found = [label for label in labels if re.sub(r"[\s_-]", "", label).casefold() in USUAL_NAMES]
    return found[0] if len(found) == 1 else None


def resolve(asked: str, labels: Iterable[str]) -> str:
    """Return the class for the setting `healthy`: for `auto` the class with such a name, for `off` ''.

    With '' classifiers are trained without phantoms. The result of `auto` is logged. Raises UserError if the setting is
    not a class.
    """
    labels = list(labels)
    if not asked or asked in labels:
        return asked
    if asked == OFF:
        return ""
    if asked != AUTO:
        made_by_yaml = " (YAML reads no and off without quotes as false: write them in quotes)" * (asked == "false")
        raise UserError(
            f"--healthy: there is no class {asked!r}{made_by_yaml}: use one of {', '.join(labels)}, or off to train "
            "without phantoms"
        )
    found = by_name(labels)
    if found is None:
        log.warning(
            "the class without lesions is unknown (of %s): training without phantoms; set it with --healthy CLASS",
            ", ".join(labels),
        )
        return ""
    log.info("class without lesions: %s (from its name; --healthy sets another class)", found)
    return found


def resolved(settings: T, labels: Iterable[str]) -> T:
    """Return settings of classifiers with `healthy` resolved (see `resolve`) for a dataset with these classes, and
    with epochs and learning rate in place of 0. Raises UserError if `healthy` is not a class."""
    asked: Any = settings
    healthy = resolve(asked.healthy, labels)
    pretrained = starting.is_used(healthy, asked.phantom_epochs, asked.classifier_weights)
    chosen = {
        "classifier_epochs": EPOCHS if pretrained else EPOCHS_FROM_RANDOM_WEIGHTS,
        "classifier_learning_rate": RATE if healthy else RATE_FROM_RANDOM_WEIGHTS,
    }
    changes = {name: value for name, value in chosen.items() if not getattr(asked, name)}
    if changes and not healthy:
        log.info("training without phantoms: %s", ", ".join(f"{name} {value:g}" for name, value in changes.items()))
    return settings.model_copy(update=changes | {"healthy": healthy})

"""Find the class of heads without a lesion. Phantoms without a lesion are training images of this class."""

import logging
import re
from collections.abc import Iterable

from jobs.common.errors import UserError

log = logging.getLogger("mrigan.healthy")

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
        raise UserError(f"--healthy: one of {', '.join(labels)}, not {asked!r}")
    found = by_name(labels)
    if found is None:
        log.warning(
            "the class without lesions is unknown (of %s): training without phantoms; set it with --healthy CLASS",
            ", ".join(labels),
        )
        return ""
    log.info("class without lesions: %s (from its name; --healthy sets another class)", found)
    return found

"""Which class is that of the heads without a lesion: classifiers learn phantoms without one as of this class."""

import logging
import re
from collections.abc import Iterable

from jobs.common.errors import UserError

log = logging.getLogger("mrigan.healthy")

AUTO = "auto"
# What collections call it, without the spaces, underscores and hyphens between the words.
NAMES = frozenset(
    ("no", "none", "normal", "healthy", "negative", "control", "controls", "nolesion", "notumor", "notumour")
)


def by_name(labels: Iterable[str]) -> str | None:
    """Return the one of `labels` whose name says that its heads have no lesion; None if none says so, or several do."""
    found = [label for label in labels if re.sub(r"[\s_-]", "", label).casefold() in NAMES]
    return found[0] if len(found) == 1 else None


def resolve(asked: str, labels: Iterable[str]) -> str:
    """Return the class that `asked` means, the setting `healthy`: that class, for `auto` the one of that name, or none.

    None is '', and classifiers then learn no phantoms. What `auto` means is logged. Raises UserError if it is no class.
    """
    labels = list(labels)
    if not asked or asked in labels:
        return asked
    if asked != AUTO:
        raise UserError(f"--healthy: one of {', '.join(labels)}, not {asked!r}")
    found = by_name(labels)
    if found is None:
        log.warning(
            "no name tells which class has no lesions (of %s): classifiers learn no phantoms; --healthy CLASS names it",
            ", ".join(labels),
        )
        return ""
    log.info("class without lesions: %s (by its name; --healthy sets another)", found)
    return found

"""Lists a folder of images; handles links, loops, system files and names in other encodings."""

import errno
import logging
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from jobs.common.errors import MachineError, UserError
from jobs.common.storage import Version

log = logging.getLogger("mrigan.sources")

# Files and folders created by file managers, archivers, file systems and network storage.
LITTER = frozenset(
    {
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "icon\r", "lost+found", "@eadir", "@__thumb"),
        *("#recycle", "#snapshot", "~snapshot", "@recycle", "@recently-snapshot", "$recycle.bin", "recycler"),
        *("system volume information", "network trash folder", "temporary items"),
    }
)
OUTSIDE = "outside-link"  # reason
BROKEN = {
    errno.ENOENT: "leads to a file that does not exist",
    errno.ELOOP: "leads to itself",
    errno.EACCES: "leads to a place without permission",
}


@dataclass
class Tree:
    """What a walk found: by path, `files` and `rejected` (reason, detail); `folders` directly below the root.

    Links that lead out of the folder `within` are rejected.
    """

    files: dict[str, Version] = field(default_factory=dict)
    rejected: dict[str, tuple[str, str]] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    within: Path = Path("/")


def walk(root: Path, follow_links: bool) -> Tree:
    """Return what is below `root`, sorted by path, without hidden files and litter.

    Links within `root` are followed, and others with `follow_links`. A folder with several paths is listed once: under
    its own path if that is below `root`. Raises UserError for a folder without read permission, MachineError if the
    disk fails.
    """
    tree = Tree() if follow_links else Tree(within=root.resolve())
    entered: set[tuple[int, int]] = set()
    links: list[tuple[str, str]] = []
    _enter(str(root), "", tree, entered, links)
    # Links last, so that files below the root are listed under their own paths.
    while links:
        path, key = links.pop(0)
        if _identity(path) in entered:
            log.info("%s links to a folder that is already listed: skipped", spelled(path))
            tree.folders.discard(key)
            continue
        _enter(path, key + "/", tree, entered, links)
    tree.files = dict(sorted(tree.files.items()))
    tree.rejected = dict(sorted(tree.rejected.items()))
    return tree


def _enter(folder: str, prefix: str, tree: Tree, entered: set[tuple[int, int]], links: list[tuple[str, str]]) -> None:
    """Add the content of `folder` to `tree`, and the links to folders in it to `links`."""
    entered.add(_identity(folder))
    try:
        found = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except PermissionError:
        raise UserError(f"no permission for {spelled(folder)}: change its permissions or move it away") from None
    except OSError as error:
        raise MachineError(f"{spelled(folder)}: {error.strerror or error}") from error
    for entry in found:
        key = prefix + entry.name
        if is_litter(entry.name):
            continue
        try:
            status = entry.stat()
        except OSError as error:
            tree.rejected[key] = "broken-link", f"a link that {BROKEN.get(error.errno or 0, 'cannot be followed')}"
            continue
        if stat.S_ISDIR(status.st_mode) and not prefix:
            tree.folders.add(entry.name)
        if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(tree.within):
            tree.rejected[key] = OUTSIDE, "a link that leads out of the data"
        elif stat.S_ISDIR(status.st_mode):
            if entry.is_symlink():
                links.append((entry.path, key))
            elif (status.st_dev, status.st_ino) not in entered:
                _enter(entry.path, key + "/", tree, entered, links)
        elif stat.S_ISREG(status.st_mode):
            tree.files[key] = Version(status.st_size, f"{status.st_ino}-{status.st_mtime_ns}-{status.st_ctime_ns}")
        else:
            tree.rejected[key] = "not-an-image", "not a file but a pipe, a socket or a device"


def is_litter(path: str) -> bool:
    """Return whether a part of `path` is hidden or litter, or an S3 object that only marks a folder."""
    parts = path.split("/")
    return any(part.startswith(".") or part.casefold() in LITTER for part in parts) or path.endswith("_$folder$")


def spelled(text: str) -> str:
    """Return a path as valid UTF-8: bytes in another encoding become backslash escapes."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)  # noqa: PTH116 - names may not be UTF-8
    return status.st_dev, status.st_ino

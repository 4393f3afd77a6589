"""Write docs/licences.md, the licence of every package in the image. `make licences`, with the packages installed."""

import re
from collections import defaultdict
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "licences.md"

HEAD = """\
# Licences

The licences of the Python packages in the image, written by `make licences` from what the packages say of themselves. A
test refuses any other licence.

- mrigan itself is under the [MIT licence](../LICENSE).
- The GPU image also has packages of NVIDIA (`nvidia-…`). Most are proprietary: read their licences before you pass the
  image on.
- Some packages contain compiled libraries with licences of their own, in files inside the packages. The base image has
  Python and packages of Debian, with their licences in `/usr/share/doc/*/copyright`.

| licence | packages |
|---|---|
"""
# SPDX identifiers. BSD: the metadata do not say which of its forms.
ALLOWED = frozenset(
    {
        *("0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0"),
        *("ISC", "MIT", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Zlib"),
    }
)
# What metadata without an SPDX expression say in place of one.
SAID = {name: name for name in ALLOWED} | {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD 3-Clause": "BSD-3-Clause",
    "BSD License": "BSD",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0",
}
# Read in the packages' LICENSE files, as their metadata say nothing.
READ = {"argo-workflows": "Apache-2.0", "namex": "Apache-2.0"}


def locked(name: str) -> dict[str, Requirement]:
    """Return the packages of images/requirements-NAME.txt."""
    lines = (ROOT / "images" / f"requirements-{name}.txt").read_text().splitlines()
    found = [Requirement(line.rstrip(" \\")) for line in lines if re.match(r"\w", line)]
    return {one.name: one for one in found}


def licence(name: str) -> str:
    """Return the licence of an installed package. Raises ValueError if its metadata name none that is known."""
    said = metadata.distribution(name).metadata
    if expression := said.get("License-Expression"):
        return expression
    classifiers = [one.rpartition(" :: ")[2] for one in said.get_all("Classifier", []) if one.startswith("License")]
    for names in ([said.get("License", "")], classifiers, [READ.get(name, "")]):
        if known := [SAID[one] for one in names if one in SAID]:
            return " OR ".join(sorted(known))
    raise ValueError(f"{name}: metadata name no known licence: read its LICENSE file, then add it to READ")


def refused(expression: str) -> set[str]:
    """Return the licences in an SPDX expression that are not allowed."""
    return set(re.findall(r"[\w.+-]+", expression)) - ALLOWED - {"AND", "OR"}


def page() -> str:
    """Return the text of docs/licences.md."""
    packages = defaultdict(list)
    for name, one in locked("cpu").items():
        # Of the two builds of TensorFlow, one is installed.
        if one.marker is None or one.marker.evaluate():
            packages[licence(name)].append(name)
    return HEAD + "".join(f"| {name} | {', '.join(packages[name])} |\n" for name in sorted(packages))


if __name__ == "__main__":
    PAGE.write_text(page())

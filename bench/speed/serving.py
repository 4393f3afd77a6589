"""One side of a comparison, in a process of its own: python -m bench.speed.serving MODULE:FUNCTION OPTIONS.

FUNCTION takes the options (a JSON object) and returns a function that does n steps, and facts about it. For each line
with a number on standard input the process does so many steps, and answers with the seconds that they took. It uses
nothing but Python's library, so that it runs in every environment.
"""

import importlib
import importlib.metadata
import json
import os
import platform
import sys
import time

PACKAGES = ("mrigan", "tensorflow", "tensorflow-cpu", "keras", "numpy", "scipy", "pillow", "torch", "torchvision")


def versions() -> dict[str, str]:
    """Return the versions of Python, and of those PACKAGES that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main(place: str, options: str) -> None:
    """Set the work up, say so with its facts, and serve until the end of standard input."""
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    module, _, name = place.partition(":")
    work, facts = getattr(importlib.import_module(module), name)(**json.loads(options))
    print(json.dumps(facts), file=answers)
    for line in sys.stdin:
        began = time.perf_counter()
        work(int(line))
        print(time.perf_counter() - began, file=answers)


if __name__ == "__main__":
    main(*sys.argv[1:])

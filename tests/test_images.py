"""The locked requirements: what is tested is what the images hold."""

import re
from pathlib import Path

IMAGES = Path(__file__).parents[1] / "images"


def versions(name: str) -> dict[str, str]:
    """Return the version of each package of a lock file."""
    text = (IMAGES / f"requirements-{name}.txt").read_text()
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


def test_locks_agree_on_every_shared_package() -> None:
    cpu, gpu, dev = versions("cpu"), versions("gpu"), versions("dev")

    assert cpu.items() <= dev.items()
    assert cpu.items() - gpu.items() == {("tensorflow-cpu", gpu["tensorflow"])}

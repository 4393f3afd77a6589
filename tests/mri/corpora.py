"""Read every file that pydicom, nibabel and Pillow ship for their own tests: `python -m tests.mri.corpora FOLDER`.

The archives that are not installed come from the package registry that pip knows, and are kept in FOLDER. Printed
are how many files of each package are kept and rejected, by reason, then what was said of each rejected file.
"""

import io
import logging
import math
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pydicom

from jobs.mri import readers
from jobs.mri.read import read
from jobs.mri.slices import Unusable

NAMES = ("pydicom", "pydicom-data", "nibabel", "pillow")
# Representations whose values are words, names, dates and identifiers (PS3.5 6.2).
WORDS = frozenset({"AE", "AS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"})
SHORTEST = 5  # characters of a value that is looked for: shorter ones stand in ordinary words


class NotAtHand(Exception):  # noqa: N818 - a finding, which tests skip at
    """The archive is not installed and cannot be downloaded."""


@dataclass(frozen=True)
class Outcome:
    """The result for a file: `verdict` is "kept", a reason for rejection, or "failed" if the reader failed."""

    file: str
    verdict: str
    detail: str
    seconds: float
    leaked: str = ""  # a value of its DICOM header that stands in the detail


def files(name: str, folder: Path) -> tuple[Path, list[Path]]:
    """Return the folder and the files of one of NAMES; archives are downloaded to `folder` once.

    Raises NotAtHand.
    """
    if name == "pydicom":
        root, part = _installed("pydicom"), "data"
    elif name == "nibabel":
        root, part = _installed("nibabel"), "**/tests/data"
    elif name == "pydicom-data":
        root, part = _unpacked("pydicom-data==1.0.0", [], "data_store/data", folder), "."
    else:
        # Only the source archive holds the tests' images.
        release = f"pillow=={metadata.version('pillow')}"
        root, part = _unpacked(release, ["--no-binary", "pillow"], "Tests/images", folder), "."
    found = [path for path in root.glob(f"{part}/**/*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    return root, sorted(found)


def _installed(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def _unpacked(requirement: str, options: list[str], part: str, folder: Path) -> Path:
    """Return the folder in `folder` with the files below `part` of a release's archive.

    It is downloaded if it is not there; pip's own settings say from where. Raises NotAtHand.
    """
    target = folder / requirement.replace("==", "-")
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--retries", "1", "--timeout", "20"]
        done = subprocess.run([*command, *options, "-d", scratch, requirement], capture_output=True, text=True)
        archives = [path for path in Path(scratch).iterdir() if path.name.endswith((".whl", ".tar.gz"))]
        if done.returncode or not archives:
            raise NotAtHand(f"{requirement}: {(done.stderr.strip().splitlines() or ['pip gave no archive'])[-1]}")
        whole = Path(scratch) / "whole"
        if archives[0].suffix == ".whl":
            with zipfile.ZipFile(archives[0]) as opened:
                opened.extractall(whole)
        else:
            with tarfile.open(archives[0]) as opened:
                opened.extractall(whole, filter="data")
            (whole,) = whole.iterdir()
        (whole / part).rename(target)
    return target


def outcomes(root: Path, paths: Iterable[Path]) -> Iterator[Outcome]:
    """Yield the result for each file, read by the reader processes that jobs use."""
    pool = readers.Readers()
    names = [str(path.relative_to(root)) for path in paths]
    try:
        files = ((name, (root / name).read_bytes()) for name in names)
        for name, (_, result) in zip(names, pool.map(judge, files), strict=True):
            if isinstance(result, Unusable):
                result = (result.reason, result.detail, math.inf)
            yield Outcome(name, *result)
    finally:
        pool.stop()


def judge(data: bytes, name: str) -> tuple[str, str, float, str]:
    """Return verdict, detail, seconds and words of the header that leaked, for the file `data`."""
    start, verdict, detail = time.monotonic(), "kept", ""
    try:
        picture = read(data, name)
        detail = f"{len(picture.slices)} of {picture.format}"
    except Unusable as finding:
        verdict, detail = finding.reason, finding.detail
    except BaseException as error:
        verdict, detail = "failed", f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - start
    return verdict, detail, seconds, next((value for value in _values(data) if value.lower() in detail.lower()), "")


def _values(data: bytes) -> set[str]:
    """Return the words in a DICOM file's header; none of any other file."""
    found: set[str] = set()
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, force=True)
            if not any(name in dataset for name in ("SOPClassUID", "PatientName", "PatientID")):
                return found
            for element in dataset.iterall():
                if element.VR in WORDS:
                    values = element.value if isinstance(element.value, list) else [element.value]
                    found |= {str(value).strip() for value in values}
        # A header that pydicom cannot read has no values to look for.
        except Exception:
            pass
    return {value for value in found if len(value) >= SHORTEST}


def table(counts: dict[str, Counter[str]]) -> str:
    """Return a Markdown table: the number of files of each package by verdict."""
    verdicts = sorted(
        {verdict for count in counts.values() for verdict in count}, key=lambda word: (word != "kept", word)
    )
    lines = [["package", "files", *verdicts], ["---"] + ["--:"] * (len(verdicts) + 1)]
    for name, count in counts.items():
        lines.append([name, str(count.total()), *(str(count[verdict] or "") for verdict in verdicts)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(folder: str) -> None:
    """Print the table and every rejection; packages that are not available are named and omitted."""
    counts: dict[str, Counter[str]] = {}
    told = []
    for name in NAMES:
        try:
            found = list(outcomes(*files(name, Path(folder))))
        except NotAtHand as why:
            print(f"left out: {why}", file=sys.stderr)
            continue
        counts[name] = Counter(outcome.verdict for outcome in found)
        told += [(outcome.verdict, name, outcome) for outcome in found if outcome.verdict != "kept"]
    print(table(counts))
    for verdict, name, outcome in sorted(told, key=lambda row: (row[0], row[1], row[2].file)):
        slow = f" ({outcome.seconds:.0f} s)" if outcome.seconds > 2 else ""
        print(f"{verdict}: {name}: {outcome.file}: {outcome.detail}{slow}")


if __name__ == "__main__":
    main(*sys.argv[1:])

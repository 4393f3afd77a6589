"""Damaged files of every format, through the reader's processes and through `mrigan preprocess`."""

import csv
import io
import os
import resource
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

from bench.chaos.mutants import mutants
from jobs.common.storage import open_storage
from jobs.mri import readers
from jobs.mri.dataset import open_dataset
from jobs.mri.examine import examine
from jobs.mri.slices import BUDGET, Budget, Unusable
from tests.mri import bombs_volumes  # noqa: F401 - adds to BOMBS and SLOW
from tests.mri.bombs import BOMBS, SLOW

MUTANTS = 20_000  # through the readers
TOGETHER = 1000  # mutants through one command
# A valid file of this size takes a hundredth of a second: what takes ten hangs.
SHORT = BUDGET._replace(cpu_seconds=10)
# A third of the time that a file may take: what needs more counts as ended for it, and this takes a third as long.
LONG = BUDGET._replace(cpu_seconds=20)


def judged(data: bytes, name: str) -> tuple[str, str, int]:
    """Return "read", a reason or "traceback" of a file, the words to it, and the highest memory so far, in bytes."""
    said = ""
    try:
        examine(data, name, size=64, volume=0, step=1)
        verdict = "read"
    except Unusable as finding:
        verdict = finding.reason
    except Exception as error:
        verdict, said = "traceback", repr(error)
    return verdict, said, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


Seen = tuple[Counter[str], list[str], int]  # files by verdict, a line for each that broke something, highest memory


def through_readers(files: Iterable[tuple[str, bytes]], budget: Budget = SHORT, allowed: Collection[str] = ()) -> Seen:
    """Read (name, file) in the processes that jobs use; `allowed` are reasons for which a process may be ended.

    A decoder that crashes takes only its process with it, which is why files are read there: it is counted.
    """
    met, wrong, most = Counter[str](), [], 0
    pool = readers.Readers(budget)
    asked: list[str] = []

    def named() -> Iterable[tuple[str, bytes]]:
        for number, (name, data) in enumerate(files):
            asked.append(f"file {number}, {name}")
            yield "a", data

    try:
        for number, (_, found) in enumerate(pool.map(judged, named())):
            if isinstance(found, Unusable):  # the process has ended
                verdict = "crashed" if found.reason == "decoder-error" else found.reason
                met[verdict] += 1
                wrong += [] if verdict in ("crashed", *allowed) else [f"{asked[number]}: {found}"]
                continue
            verdict, said, memory = found
            met[verdict] += 1
            most = max(most, memory)
            if verdict == "traceback":
                wrong.append(f"{asked[number]}: {said}")
    finally:
        pool.stop()
    return met, wrong, most


def bombs() -> Seen:
    """Read all bombs; a process may be ended for what they cost, and its memory is then not known."""
    files = ((name, make()) for name, make in (BOMBS | SLOW).items())
    return through_readers(files, LONG, ("too-slow", "decompression-bomb"))


def mutants_read(seed: int) -> Seen:
    """Read damaged files."""
    return through_readers(mutants(seed, MUTANTS))


def through_command(seed: int, heads: Path, folder: Path) -> Seen:
    """Prepare a dataset of `heads` and of damaged files by one command, in the new `folder`."""
    data, met = folder / "data", Counter[str]()
    shutil.copytree(heads, data)
    label = min(path for path in data.iterdir() if path.is_dir())
    written = set()
    for number, (_, content) in enumerate(mutants(seed, TOGETHER)):
        # All of one head are in one class: the same picture in two is another finding.
        path = label / f"mutant-{number}"
        path.write_bytes(content)
        written.add(path.relative_to(data).as_posix())
    storage = folder / "storage"
    places = ["--data", str(data), "--storage", str(storage), "--folds", "2", "--image-size", "32"]
    words = [sys.executable, "-m", "jobs.cli", "preprocess", *places]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        # Unlike the sum over all children, this is of the command and of its readers alone.
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = code = os.waitstatus_to_exitcode(status)
    if code or "Traceback" in said:
        return met, [f"preprocess, seed {seed}: exit code {code}: {said[-600:]}"], 0
    [place] = (storage / "datasets").iterdir()
    kept = {row.source.partition("#")[0] for row in open_dataset(open_storage(str(storage)), place.name).rows}
    rejected: dict[str, str] = {}
    for line in csv.DictReader(io.StringIO((place / "quarantine.csv").read_text(), newline="")):
        rejected[line["source"].partition("#")[0]] = line["reason"]
    met["read"] = len(written & kept)
    met.update(reason for source, reason in rejected.items() if source in written - kept)
    lost = sorted(written - kept - rejected.keys())
    wrong = [f"preprocess, seed {seed}: {len(lost)} files are nowhere, such as {lost[0]}"] if lost else []
    return met, wrong, 1024 * used.ru_maxrss

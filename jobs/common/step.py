"""A step: a prefix in storage whose `manifest.json` is written last.

If the manifest is there and its settings and inputs are those asked for, the work is done and is not repeated. What
lies under a prefix without a manifest is half-written and is never read by another job.
"""

import hashlib
import importlib.metadata
import json
import logging
import platform
import time
from collections.abc import Iterable, Mapping
from typing import Any

from jobs.common import keys, metrics
from jobs.common.errors import MachineError
from jobs.common.storage import MissingKey, Storage, read_many, write_many

log = logging.getLogger("mrigan.step")

# Raised by hand when the code changes what the same settings give; old steps are then done again.
RESULTS_VERSION = 4

MANIFEST = "manifest.json"
PACKAGES = ("mrigan", "keras", "tensorflow", "tensorflow-cpu", "numpy", "scipy", "scikit-learn", "pillow")


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value in its canonical spelling, as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Step:
    """One job's outputs under `prefix`, made from `settings` and from `inputs` (name to digest).

    What is `shared` is worth copying from one run to another, in place of doing it again.
    """

    def __init__(
        self,
        storage: Storage,
        prefix: str,
        *,
        job: str,
        settings: Mapping[str, Any],
        inputs: Mapping[str, str],
        shared: bool = False,
    ) -> None:
        self.storage = storage
        self.prefix = prefix
        self.job = job
        self.settings = dict(settings)
        self.inputs = dict(inputs)
        self.shared = shared
        self.manifest: dict[str, Any] = {}
        self.reused = False
        self._outputs: dict[str, str] = {}
        self._started = time.monotonic()

    @property
    def asked(self) -> dict[str, Any]:
        """What decides the outputs: job, results version, settings and inputs."""
        return {
            "job": self.job,
            "results_version": RESULTS_VERSION,
            "settings": self.settings,
            "inputs": self.inputs,
        }

    def finished(self) -> bool:
        """Return whether this very work is done; then `manifest`, `facts` and `digest` can be read.

        What another run shared of it is copied first. `reused` says the same afterwards, until `finish` replaces what
        was there.
        """
        found = read_manifest(self.storage, self.prefix) or {}
        if not self._answers(found):
            found = (self.shared and self._take_over()) or {}
        self.manifest, self.reused = found, bool(found)
        return self.reused

    def write(self, name: str, data: bytes) -> None:
        """Write one output; `name` may have folders."""
        self._outputs[name] = hashlib.sha256(data).hexdigest()
        with metrics.phase("write"):
            self.storage.write(f"{self.prefix}/{name}", data)

    def write_many(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Write outputs in parallel, few of them in memory at a time."""

        def keyed() -> Iterable[tuple[str, bytes]]:
            for name, data in items:
                self._outputs[name] = hashlib.sha256(data).hexdigest()
                yield f"{self.prefix}/{name}", data

        write_many(self.storage, keyed())

    def read(self, name: str) -> bytes:
        """Return one output; raises MissingKey."""
        return self.storage.read(f"{self.prefix}/{name}")

    def forget(self) -> None:
        """Take back the manifest before outputs change, so that a mixture of old and new is never taken for whole."""
        self.storage.delete(f"{self.prefix}/{MANIFEST}")

    def finish(self, *, hardware: Mapping[str, Any] | None = None, **facts: Any) -> None:
        """Write the manifest, last. `facts` are small JSON values that later jobs read without opening the outputs."""
        self.manifest = self.asked | {
            "outputs": _folded(self._outputs),
            "facts": json.loads(json.dumps(facts)),
            "seconds": round(time.monotonic() - self._started, 2),
            "hardware": dict(hardware or {}) | {"machine": platform.machine()},
            "versions": _versions(),
        }
        self._write_manifest(self.manifest)
        self.reused = False
        if self.shared:
            self.storage.write(keys.done(digest(self.asked)), self.prefix.encode())

    def _take_over(self) -> dict[str, Any] | None:
        """Copy what another run shared of this very work, and return its manifest, None unless all of it was there.

        What is missing or damaged there is no reason to fail: it can be done here.
        """
        try:
            source = self.storage.read(keys.done(digest(self.asked))).decode()
            manifest = read_manifest(self.storage, source) or {}
            if source == self.prefix or not self._answers(manifest):
                return None
            names = (key.removeprefix(f"{source}/") for key in self.storage.list(source))
            asked = [name for name in names if {name, f"{name.partition('/')[0]}/"} & manifest["outputs"].keys()]
            files = dict(zip(asked, read_many(self.storage, [f"{source}/{name}" for name in asked]), strict=True))
        except (MissingKey, MachineError):
            return None
        if _folded({name: hashlib.sha256(data).hexdigest() for name, data in files.items()}) != manifest["outputs"]:
            return None
        self.forget()
        for key in self.storage.list(self.prefix):
            self.storage.delete(key)
        write_many(self.storage, ((f"{self.prefix}/{name}", data) for name, data in files.items()))
        self._write_manifest(manifest)
        log.info("%s: another run, at %s, did this very work: copied", self.prefix, source)
        return manifest

    def _answers(self, manifest: Mapping[str, Any]) -> bool:
        return {name: manifest.get(name) for name in self.asked} == self.asked

    def _write_manifest(self, manifest: Mapping[str, Any]) -> None:
        text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
        self.storage.write(f"{self.prefix}/{MANIFEST}", text.encode())

    @property
    def facts(self) -> dict[str, Any]:
        """The facts given to `finish`."""
        return self.manifest["facts"]

    @property
    def digest(self) -> str:
        """The digest of what was asked and what came out, for the jobs downstream: no time or machine is in it."""
        return manifest_digest(self.manifest)


def stored(storage: Storage, prefix: str) -> Step | None:
    """Return the finished step under `prefix`, whatever was asked of it; None if there is none."""
    manifest = read_manifest(storage, prefix)
    if manifest is None:
        return None
    step = Step(storage, prefix, job=manifest["job"], settings=manifest["settings"], inputs=manifest["inputs"])
    step.manifest, step.reused = manifest, True
    return step


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """Return the digest of a finished step from its manifest."""
    return digest({name: manifest[name] for name in ("job", "results_version", "settings", "inputs", "outputs")})


def read_manifest(storage: Storage, prefix: str) -> dict[str, Any] | None:
    """Return the manifest under `prefix`, None if there is none. Raises MachineError if it is damaged."""
    try:
        manifest = json.loads(storage.read(f"{prefix}/{MANIFEST}"))
        kinds = {"settings": dict, "inputs": dict, "outputs": dict, "facts": dict, "job": str, "results_version": int}
        if not all(isinstance(manifest[name], kind) for name, kind in kinds.items()):
            raise ValueError("a field has the wrong type")
    except MissingKey:
        return None
    except (ValueError, KeyError, TypeError) as error:
        where = f"{storage.url.rstrip('/')}/{prefix}/{MANIFEST}"
        raise MachineError(f"{where} is damaged ({error}): delete it and run again") from error
    return manifest


def read_output(storage: Storage, prefix: str, manifest: Mapping[str, Any], name: str) -> bytes:
    """Return the file `name` of a finished step, by its manifest the very bytes that were written.

    Raises MachineError if the file is missing or has changed since.
    """
    try:
        with metrics.phase("read"):
            data = storage.read(f"{prefix}/{name}")
    except MissingKey:
        data = None
    if data is None or hashlib.sha256(data).hexdigest() != manifest["outputs"].get(name):
        what = "is missing" if data is None else "is damaged"
        where = f"{storage.url.rstrip('/')}/{prefix}"
        raise MachineError(f"{where}/{name} {what}: delete that folder and run its job again")
    return data


def _folded(outputs: Mapping[str, str]) -> dict[str, Any]:
    """Return digests by name; a folder of many files has one digest over all of them, so that manifests stay small."""
    folded: dict[str, Any] = {}
    for name in sorted(outputs):
        folder, slash, _ = name.partition("/")
        if slash:
            folded.setdefault(folder + slash, []).append([name, outputs[name]])
        else:
            folded[name] = outputs[name]
    return {
        name: {"files": len(value), "digest": digest(value)} if isinstance(value, list) else value
        for name, value in folded.items()
    }


def _versions() -> dict[str, str]:
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed

"""A step: a prefix in storage whose `manifest.json` is written last.

If there is a manifest with the requested settings and inputs, the step is finished and is not repeated. Files under a
prefix without a manifest are incomplete and are never read by other jobs.

The manifest contains the SHA-256 of every output, and of the listing of every folder of outputs: `images.sha256` lists
the files of `images/` in the format of sha256sum. Jobs verify the digests of all files that they read.
"""

import hashlib
import importlib.metadata
import json
import logging
import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jobs.common import again, keys, leases, metrics, shapes
from jobs.common.errors import MachineError
from jobs.common.storage import HELD, MissingKey, Storage, in_parallel

log = logging.getLogger("mrigan.step")

# Increase this number manually when a code change alters the results of the same settings; old steps are then repeated.
RESULTS_VERSION = 8

MANIFEST = "manifest.json"
LISTING = ".sha256"
PACKAGES = ("mrigan", "keras", "tensorflow", "tensorflow-cpu", "numpy", "scipy", "scikit-learn", "pillow")


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value in its canonical form, as 64 hexadecimal digits."""
    return _sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def seal(fields: dict[str, Any]) -> bytes:
    """Return a JSON object of the fields, with an additional field `digest` of all other fields."""
    return (json.dumps(fields | {"digest": digest(fields)}, indent=1, sort_keys=True) + "\n").encode()


def unseal(data: bytes, version: str = "", since: int = 0) -> dict[str, Any]:
    """Return the fields of a sealed object. The digest may only be missing if field `version` is below `since`.

    Raises ValueError or TypeError if the object is damaged.
    """
    try:
        fields = dict(json.loads(data))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    found = fields.pop("digest", None)
    if found != digest(fields) and (found is not None or fields.get(version, since) >= since):
        raise ValueError("its digest does not match its content")
    return fields


class Step:
    """One job's outputs under `prefix`, made from `settings` and from `inputs` (name to digest).

    `arithmetic` are the values of the settings `auto` on this machine (threads, precision, XLA, device). Outputs of
    another arithmetic are used with a warning, or computed again if `restart` is set. The outputs of a `shared` step
    are copied to other runs that need the same step.
    """

    def __init__(
        self,
        storage: Storage,
        prefix: str,
        *,
        job: str,
        settings: Mapping[str, Any],
        inputs: Mapping[str, str],
        arithmetic: Mapping[str, Any] | None = None,
        restart: bool = False,
        shared: bool = False,
    ) -> None:
        self.storage = storage
        self.prefix = prefix
        self.job = job
        self.settings = dict(settings)
        self.inputs = dict(inputs)
        self.arithmetic = dict(arithmetic or {})
        self.restart = restart
        self.shared = shared
        self.manifest: dict[str, Any] = {}
        self.reused = False
        self.written: dict[str, str] = {}  # SHA-256 by name
        self._lease: leases.Lease | None = None
        self._started = time.monotonic()
        self.earlier = 0.0  # seconds of interrupted runs whose checkpoint this run continues

    @property
    def seconds(self) -> float:
        """The seconds so far, with those of the interrupted runs that it continues."""
        return round(self.earlier + time.monotonic() - self._started, 2)

    @property
    def asked(self) -> dict[str, Any]:
        """The values that determine the outputs: job, results version, settings and inputs."""
        own = {"job": self.job, "settings": self.settings, "inputs": self.inputs}
        return own | {"results_version": RESULTS_VERSION}

    def finished(self) -> bool:
        """Return whether exactly this step is finished; then `manifest`, `facts` and `digest` are available.

        `reused` has the returned value until `finish` is called.
        """
        found = read_manifest(self.storage, self.prefix) or {}
        self.manifest = found if self._answers(found) else {}
        self.reused = bool(self.manifest)
        return self.reused

    def write(self, name: str, data: bytes) -> None:
        """Write one output; `name` may contain folders."""
        self._check_lease()
        self.written[name] = _sha256(data)
        with metrics.phase("write"):
            self.storage.write(f"{self.prefix}/{name}", data)

    def write_many(self, items: Iterable[tuple[str, bytes]], held: int = HELD) -> None:
        """Write outputs in parallel while the next ones are taken from `items`, at most `held` in memory at a time."""

        def put(item: tuple[str, bytes]) -> tuple[str, str]:
            name, data = item
            self.storage.write(f"{self.prefix}/{name}", data)
            return name, _sha256(data)

        self.written.update(in_parallel(put, items, "write", held))

    def read(self, name: str) -> bytes:
        """Return one output of the finished step. Raises MachineError if it is missing or has changed since."""
        return read_output(self.storage, self.prefix, self.manifest, name)

    def take(self) -> bool:
        """Begin the work on this step; return False if it is finished after all.

        Waits while another process works at the same place. Outputs that another run shared are copied. Otherwise a
        manifest of other settings is deleted, so that a mixture of old and new outputs never counts as finished.
        """
        self._lease = leases.take(self.storage, self.prefix, self.finished)
        if self._lease is None:
            return False
        if not self.finished():
            # Files that a killed process did not rename.
            self.storage.tidy(self.prefix)
            self.storage.delete(f"{self.prefix}/{MANIFEST}")
            self.manifest = (self.shared and self._copied()) or {}
            self.reused = bool(self.manifest)
        if self.reused:
            self._lease.release()
        return not self.reused

    def finish(self, *, hardware: Mapping[str, Any] | None = None, **facts: Any) -> None:
        """Write the manifest, last. `facts` are small JSON values that later jobs read without opening the outputs."""
        self._check_lease()
        self.manifest = self.asked | {
            "arithmetic": self.arithmetic,
            "outputs": self._write_listings(),
            "facts": json.loads(json.dumps(facts)),
            "seconds": self.seconds,
            "hardware": dict(hardware or {}) | {"machine": platform.machine()},
            "versions": _versions(),
        }
        if self.shared:
            # Before the manifest, without which nothing is copied: no kill can leave the manifest alone.
            self.storage.write(keys.done(digest(self.asked)), self.prefix.encode())
        self.storage.write(f"{self.prefix}/{MANIFEST}", seal(self.manifest))
        self.reused = False
        if self._lease:
            self._lease.release()

    def _check_lease(self) -> None:
        if self._lease and self._lease.lost:
            raise MachineError(f"{self.prefix}: this process stood still, and another one has taken over: run again")

    def _copied(self) -> dict[str, Any] | None:
        """Copy the outputs of the same step of another run, and return its manifest; None if they are incomplete.

        Missing or damaged outputs there are not an error, since the step can be computed here.
        """
        try:
            source = self.storage.read(keys.done(digest(self.asked))).decode()
            manifest = read_manifest(self.storage, source) or {}
            if source == self.prefix or not self._answers(manifest):
                return None
            digests: dict[str, str] = {}
            for name, found in manifest["outputs"].items():
                folder = name.removesuffix("/")
                digests |= {name: found} if name == folder else read_listing(self.storage, source, manifest, folder)
            files = list(read_outputs(self.storage, source, digests, digests))
        except (MissingKey, MachineError, ValueError):
            return None
        for key in self.storage.list(self.prefix):
            self.storage.delete(key)
        self.write_many(zip(digests, files, strict=True))
        self._write_listings()
        self.storage.write(f"{self.prefix}/{MANIFEST}", seal(manifest))
        log.info("%s: copied from the same step of another run, %s", self.prefix, source)
        return manifest

    def _answers(self, manifest: Mapping[str, Any]) -> bool:
        if {name: manifest.get(name) for name in self.asked} != self.asked:
            return False
        return self.accepts(manifest.get("arithmetic", {}), "was made")

    def accepts(self, other: Mapping[str, Any], what: str) -> bool:
        """Return whether outputs or checkpoints of the arithmetic `other` are used; log a warning if it differs."""
        differ = [name for name in self.arithmetic if other.get(name) != self.arithmetic[name]]
        if not differ:
            return True
        theirs, ours = (", ".join(f"{name} {one.get(name)}" for name in differ) for one in (other, self.arithmetic))
        end = "starting again" if self.restart else "using it; --other-arithmetic restart starts again"
        log.warning("%s %s with %s, this machine has %s: %s", self.prefix, what, theirs, ours, end)
        return not self.restart

    def _write_listings(self) -> dict[str, Any]:
        """Write the listing of each folder of outputs; return the manifest entries of folders and single files."""
        outputs: dict[str, Any] = {name: found for name, found in self.written.items() if "/" not in name}
        folders: dict[str, list[str]] = {}
        for name in sorted(self.written.keys() - outputs.keys()):
            folders.setdefault(name.partition("/")[0], []).append(name)
        for folder, names in folders.items():
            listing = "".join(f"{self.written[name]}  {name}\n" for name in names).encode()
            self.storage.write(f"{self.prefix}/{folder}{LISTING}", listing)
            outputs[f"{folder}/"] = {"files": len(names), "digest": _sha256(listing)}
        return outputs

    @property
    def facts(self) -> dict[str, Any]:
        """The facts given to `finish`."""
        return self.manifest["facts"]

    @property
    def digest(self) -> str:
        """The digest of settings, inputs and outputs, without time and machine, for downstream jobs."""
        return manifest_digest(self.manifest)


def stored(storage: Storage, prefix: str) -> Step | None:
    """Return the finished step under `prefix`, with any settings; None if there is none."""
    manifest = read_manifest(storage, prefix)
    return None if manifest is None else from_manifest(storage, prefix, manifest)


def from_manifest(storage: Storage, prefix: str, manifest: dict[str, Any]) -> Step:
    """Return the finished step that has this manifest."""
    step = Step(storage, prefix, job=manifest["job"], settings=manifest["settings"], inputs=manifest["inputs"])
    step.manifest, step.reused = manifest, True
    return step


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """Return the digest of a finished step from its manifest."""
    names = ("job", "results_version", "settings", "arithmetic", "inputs", "outputs")
    return digest({name: manifest[name] for name in names if name in manifest})


def read_manifest(storage: Storage, prefix: str) -> dict[str, Any] | None:
    """Return the manifest under `prefix`, None if there is none. Raises MachineError if it is damaged."""
    key = f"{prefix}/{MANIFEST}"

    def read() -> dict[str, Any]:
        # Manifests of older versions have no digest, but are still read.
        return shapes.manifest(unseal(storage.read(key), "results_version", since=5))

    try:
        return again.twice(read, key, ValueError, TypeError)
    except MissingKey:
        return None
    except (ValueError, KeyError, TypeError) as error:
        where = f"{storage.url.rstrip('/')}/{key}"
        raise MachineError(f"{where} is damaged ({error}): delete it and run again") from error


def read_output(storage: Storage, prefix: str, manifest: Mapping[str, Any], name: str) -> bytes:
    """Return the file `name` of a finished step, verified with the digest in the manifest.

    Raises MachineError if the file is missing or has changed.
    """
    folder, slash, _ = name.partition("/")
    digests = read_listing(storage, prefix, manifest, folder) if slash else manifest["outputs"]
    [data] = read_outputs(storage, prefix, digests, [name])
    return data


def read_listing(storage: Storage, prefix: str, manifest: Mapping[str, Any], folder: str) -> dict[str, str]:
    """Return the files of an output folder of a finished step, sorted: `folder`/name to SHA-256.

    Raises MachineError if the listing is missing or has changed since.
    """
    name = folder + LISTING
    digests = {name: manifest["outputs"].get(f"{folder}/", {}).get("digest", "")}
    [listing] = read_outputs(storage, prefix, digests, [name])
    return {line[66:]: line[:64] for line in listing.decode().splitlines()}


def read_outputs(storage: Storage, prefix: str, digests: Mapping[str, str], names: Iterable[str]) -> Iterator[bytes]:
    """Return the files `names` of a step, in order, read in parallel and verified with `digests` (name to SHA-256).

    Raises MachineError for a file that is missing or has another digest.
    """

    def read(name: str) -> bytes:
        try:
            return again.verified(storage, f"{prefix}/{name}", digests.get(name))
        except MissingKey:
            raise unusable(storage, prefix, name, "is missing") from None
        except ValueError:
            raise unusable(storage, prefix, name, "is damaged") from None

    return in_parallel(read, names, "read", HELD)


def unusable(storage: Storage, prefix: str, name: str, what: str) -> MachineError:
    """Return the error for the file `name` of a step that "is missing" or "is damaged"."""
    where = f"{storage.url.rstrip('/')}/{prefix}"
    return MachineError(f"{where}/{name} {what}: delete {where} and run its job again")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _versions() -> dict[str, str]:
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed

"""Serve metrics of the storage to Prometheus, also while no job runs: champions, their reports, last runs.

    mrigan exporter --storage s3://bucket/prefix

docs/metrics.md lists the metrics. The exporter has no other state than the storage: a restart gives the same values.
A scrape reads the storage again if the last reading is older than --refresh-seconds. A reading takes two listings and,
for each dataset name, two small objects and the manifests of two reports (of the champion, and of the last decision):
at most 2 + 4 requests per name. A report is read only if it is new or its manifest has changed.
"""

import contextlib
import datetime
import json
import logging
import re
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from jobs.classifier.champion import Record, parse_record, stored_record
from jobs.common import activity, keys, meter, server
from jobs.common.errors import Interrupted, MachineError, UserError
from jobs.common.fields import NAME
from jobs.common.step import manifest_digest, read_manifest, read_output
from jobs.common.storage import Storage, open_storage
from jobs.settings import ExporterSettings

log = logging.getLogger("mrigan.exporter")

Json = dict[str, Any]

NAMED, CLASS, KIND = ("name",), ("name", "label"), ("name", "network", "regime")  # labels of metrics
# Name: (help, labels). Metrics that end in _total are counters, all others gauges.
FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "mrigan_champion_info": ("Network and regime of the champion, as labels; always 1.", KIND),
    "mrigan_champion_accuracy_ratio": ("Accuracy of the champion, from the report of its run.", NAMED),
    "mrigan_champion_accuracy_low_ratio": ("Lower bound of its 95 % interval.", NAMED),
    "mrigan_champion_accuracy_high_ratio": ("Upper bound of its 95 % interval.", NAMED),
    "mrigan_champion_timestamp_seconds": ("Unix time of the champion's promotion.", NAMED),
    "mrigan_promotions_total": ("Promotion decisions in the champion's record.", ("name", "outcome")),
    "mrigan_report_accuracy_ratio": ("Accuracy in the latest report with a promotion decision.", KIND),
    "mrigan_report_accuracy_low_ratio": ("Lower bound of its 95 % interval.", KIND),
    "mrigan_report_accuracy_high_ratio": ("Upper bound of its 95 % interval.", KIND),
    "mrigan_report_kid": ("KID between generated and held-out real images, mean over folds.", CLASS),
    "mrigan_report_real_kid": ("KID between training and held-out real images, mean over folds.", CLASS),
    "mrigan_report_memorization_suspicious": (
        "Folds in which the generator is suspected of copying training images.",
        CLASS,
    ),
    "mrigan_dataset_images": ("Images in the latest report's dataset.", NAMED),
    "mrigan_dataset_groups": ("Groups in the latest report's dataset.", NAMED),
    "mrigan_dataset_near_duplicate_pairs": ("Pairs of near-duplicate images.", NAMED),
    "mrigan_dataset_quarantined_images": ("Images excluded from the dataset (quarantined).", ("name", "reason")),
    "mrigan_last_run_timestamp_seconds": ("Unix time of the last start of a run.", NAMED),
    "mrigan_last_success_timestamp_seconds": ("Unix time of the last success of a run.", NAMED),
    "mrigan_exporter_refresh_timestamp_seconds": ("Unix time of the last reading of the storage.", ()),
    "mrigan_exporter_refresh_errors_total": (
        "Listings and objects that could not be read; former values are kept.",
        (),
    ),
}
# Infix of an accuracy's metric: field of report.json's results.
ESTIMATE = {"": "value", "_low": "low", "_high": "high"}
# Exceptions when the content of an object is damaged.
NONSENSE = (ValueError, TypeError, LookupError, AttributeError, OverflowError)


def run(settings: ExporterSettings) -> None:
    """Serve until SIGTERM or Ctrl-C, the normal end of a server.

    Raises UserError if the storage denies access or the port cannot be opened, MachineError if the storage cannot be
    listed at the start.
    """
    with contextlib.suppress(Interrupted):
        registry = make_registry(open_storage(settings.storage), settings.refresh_seconds)
        try:
            server.serve(settings.exporter_port, make_wsgi_app(registry))
        except OSError as error:
            raise UserError(f"--exporter-port {settings.exporter_port}: {error.strerror or error}") from error
        log.info("serving the metrics of %s on port %d", settings.storage, settings.exporter_port)
        while True:
            # Short waits instead of a long sleep, which would delay a signal that arrives just before it.
            time.sleep(0.5)


def make_registry(storage: Storage, refresh_seconds: float) -> CollectorRegistry:
    """Return the registry of the metrics of `storage`, read now for the first time, and of this process.

    Raises UserError if the storage denies access, MachineError if the storage cannot be listed.
    """
    disable_created_metrics()
    exporter = Exporter(storage, refresh_seconds)
    exporter.refresh()
    registry = CollectorRegistry()
    registry.register(exporter)
    ProcessCollector(registry=registry)
    if storage.url.startswith("s3://"):
        for counter in vars(meter.counters()).values():
            registry.register(counter)
    return registry


class Sample(NamedTuple):
    """One sample: its metric, the values of the metric's labels, and its value."""

    metric: str
    labels: tuple[str, ...]
    value: float


class Exporter:
    """A collector for prometheus_client: metrics of `storage`, at most `refresh_seconds` old unless readings fail."""

    def __init__(self, storage: Storage, refresh_seconds: float) -> None:
        self.storage = storage
        self.refresh_seconds = refresh_seconds
        self.errors = 0
        self._figures: dict[str, list[Sample]] = {}  # by the key of the champion's or activity object
        self._reports: dict[str, tuple[str, Json]] = {}  # by run: digest of the manifest, report.json
        self._tried = 0.0  # monotonic seconds
        self._refreshed = 0.0  # Unix time; 0: never
        self._reading = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, after a new reading if it is due."""
        # Of several concurrent scrapes only one reads; the others do not wait for a storage that does not answer.
        if self._reading.acquire(blocking=False):
            try:
                if time.monotonic() - self._tried >= self.refresh_seconds:
                    self.refresh()
            except (MachineError, UserError) as error:
                self._failed(self.storage.url, error)
            finally:
                self._reading.release()
        own = [
            Sample("mrigan_exporter_refresh_timestamp_seconds", (), self._refreshed),
            Sample("mrigan_exporter_refresh_errors_total", (), self.errors),
        ]
        return _metrics([sample for samples in self._figures.values() for sample in samples] + own)

    def refresh(self) -> None:
        """Read the storage. An unreadable object is counted, and its former values are kept.

        Raises MachineError or UserError if the storage cannot be listed, and UserError if the first reading is denied.
        """
        self._tried = time.monotonic()
        figures: dict[str, list[Sample]] = {}
        reports: dict[str, tuple[str, Json]] = {}
        for key in self.storage.list("champions") + self.storage.list("activity"):
            folder, _, file = key.partition("/")
            name = file.removesuffix(".json")
            if name == file or not re.fullmatch(NAME, name):
                continue
            try:
                found = self._champion(name, reports) if folder == "champions" else self._activity(name)
                figures[key] = _checked(found)
            except (MachineError, UserError, *NONSENSE) as error:
                if isinstance(error, UserError) and not self._refreshed:
                    raise
                self._failed(key, error)
                figures[key] = self._figures.get(key, [])
        self._figures, self._reports, self._refreshed = figures, reports, time.time()

    def _failed(self, what: str, error: Exception) -> None:
        self.errors += 1
        reason = f"the object or one of its reports is damaged: {error!r}" if isinstance(error, NONSENSE) else error
        log.warning("cannot read %s, former values are kept: %s", what, reason)

    def _champion(self, name: str, reports: dict[str, tuple[str, Json]]) -> list[Sample]:
        """Return the samples of a champion's record and its reports."""
        stored = stored_record(self.storage, name)
        if stored is None:
            return []
        record = parse_record(stored, name)
        samples = _promotions(name, record)
        report = self._report(record.champion.run, reports)
        for row in _accuracies(report):
            if (row["network"], row["regime"]) == (record.champion.network, record.champion.regime):
                samples += _estimate("mrigan_champion_accuracy", (name,), row)
        for decision in record.decisions[-1:]:
            samples += _judged(name, self._report(decision["question"]["challenger"][0], reports))
        return samples

    def _activity(self, name: str) -> list[Sample]:
        found = activity.read(self.storage, name)
        metrics = {"began": "mrigan_last_run_timestamp_seconds", "succeeded": "mrigan_last_success_timestamp_seconds"}
        return [Sample(metric, (name,), _unix(found[field])) for field, metric in metrics.items() if found.get(field)]

    def _report(self, run: str, reports: dict[str, tuple[str, Json]]) -> Json:
        """Return a run's report.json, empty if the run was deleted; keep it in `reports`."""
        if run not in reports:
            prefix = keys.report(run)
            manifest = read_manifest(self.storage, prefix)
            if manifest is None:
                return {}
            digest = manifest_digest(manifest)
            known, report = self._reports.get(run, ("", {}))
            if known != digest:
                report = json.loads(read_output(self.storage, prefix, manifest, "report.json"))
            reports[run] = digest, report
        return reports[run][1]


def _checked(samples: list[Sample]) -> list[Sample]:
    """Return the samples after validation, so that damaged values do not fail in a scrape. Raises one of NONSENSE."""
    for sample in samples:
        "".join(sample.labels).encode()
    return [sample._replace(value=float(sample.value)) for sample in samples]


def _unix(text: str) -> float:
    """Return the Unix time of an ISO 8601 time."""
    return datetime.datetime.fromisoformat(text).timestamp()


def _promotions(name: str, record: Record) -> list[Sample]:
    """Return the samples of the champion and of the promotion decisions."""
    won = [decision["time"] for decision in record.decisions if decision["won"]]
    outcomes = {"promoted": len(won), "refused": len(record.decisions) - len(won)}
    return [
        Sample("mrigan_champion_info", (name, record.champion.network, record.champion.regime), 1),
        *(Sample("mrigan_champion_timestamp_seconds", (name,), _unix(when)) for when in won[-1:]),
        *(Sample("mrigan_promotions_total", (name, outcome), number) for outcome, number in outcomes.items()),
    ]


def _accuracies(report: Json) -> list[Json]:
    return [row for row in report.get("results", ()) if row["metric"] == "accuracy"]


def _estimate(prefix: str, labels: tuple[str, ...], row: Json) -> list[Sample]:
    """Return the samples of a result and the bounds of its interval, without undefined values."""
    values = {bound: row[field] for bound, field in ESTIMATE.items()}
    return [Sample(f"{prefix}{bound}_ratio", labels, x) for bound, x in values.items() if x is not None]


def _judged(name: str, report: Json) -> list[Sample]:
    """Return the samples of a report: classifiers, synthetic images and dataset."""
    samples = []
    for row in _accuracies(report):
        samples += _estimate("mrigan_report_accuracy", (name, row["network"], row["regime"]), row)
    quality = report.get("quality", [])
    for label in dict.fromkeys(part["label"] for part in quality):
        folds = [part for part in quality if part["label"] == label]
        for metric, which in {"mrigan_report_kid": "generated", "mrigan_report_real_kid": "real"}.items():
            kids = list(_kids(folds, which))
            samples += [Sample(metric, (name, label), sum(kids) / len(kids))] if kids else []
        suspicious = sum(bool(part["memorization"]["suspicious"]) for part in folds)
        samples.append(Sample("mrigan_report_memorization_suspicious", (name, label), suspicious))
    dataset = report.get("dataset", {})
    for field in ("images", "groups", "near_duplicate_pairs"):
        samples += [Sample(f"mrigan_dataset_{field}", (name,), dataset[field])] if field in dataset else []
    for reason, number in dataset.get("quarantine", {}).items():
        samples.append(Sample("mrigan_dataset_quarantined_images", (name, reason), number))
    return samples


def _kids(folds: Iterable[Json], which: str) -> Iterator[float]:
    """Yield the KID of each fold that has one, of the `generated` images or the `real` ones."""
    for figure in (figure for part in folds for figure in part["figures"]):
        # Without held-out images there is no value for real images: the whole entry is null.
        if figure["metric"] == "kid" and figure[which] and figure[which]["value"] is not None:
            yield figure[which]["value"]


def _metrics(samples: Iterable[Sample]) -> Iterator[Metric]:
    """Yield the samples as prometheus_client's metrics, in the order of FAMILIES, without metrics without samples."""
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.metric, []).append(sample)
    for name, (text, labels) in FAMILIES.items():
        if name in found:
            family = (CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily)(name, text, labels=labels)
            for sample in found[name]:
                family.add_metric(sample.labels, sample.value)
            yield family

"""What Prometheus is told of storage, against the report itself and the contract in docs/metrics.md."""

import json
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobs import cli, evaluate, exporter, promote
from jobs.classifier.champion import Record, parse_record, to_json
from jobs.common import activity, keys
from jobs.common.errors import MachineError, UserError
from jobs.common.step import MANIFEST, Step
from jobs.common.storage import Storage, open_storage
from tests import fake_run
from tests.s3_server import free_ports

CONTRACT = Path(__file__).parent.parent / "docs" / "metrics.md"
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its report, promoted as mri."""
    folder = tmp_path_factory.mktemp("finished")
    storage = open_storage(str(folder))
    fake_run.make(storage, images=16)
    asked: dict[str, Any] = {"storage": storage.url, "dataset": fake_run.DATASET, "run": fake_run.RUN}
    evaluate.run(evaluate.EvaluateSettings(networks=("mobilenetv2",), resamples=100, name="mri", **asked))
    promote.run(promote.PromoteSettings(name="mri", **asked))
    activity.note(storage, "mri", "began", "succeeded")
    return folder


@pytest.fixture
def storage(finished: Path, tmp_path: Path) -> Storage:
    return open_storage(str(shutil.copytree(finished, tmp_path / "storage")))


class Watched:
    """A storage that notes its requests, and fails for the keys in `broken`."""

    def __init__(self, storage: Storage) -> None:
        self.storage, self.url = storage, storage.url
        self.requests: list[str] = []
        self.broken: dict[str, Exception] = {}

    def __getattr__(self, name: str) -> Any:
        def request(key: str) -> Any:
            self.requests.append(f"{name} {key}")
            if key in self.broken:
                raise self.broken[key]
            return getattr(self.storage, name)(key)

        return request


def report_of(storage: Storage, run: str = fake_run.RUN) -> Any:
    return json.loads(storage.read(f"{keys.report(run)}/report.json"))


def record_of(storage: Storage) -> Record:
    return parse_record(storage.read(keys.champion("mri")), "mri")


def add_run(storage: Storage, change: Callable[[Any], Any] = lambda report: None, *, won: bool = False) -> None:
    """Store run r2, whose report is that of r1 after `change`, and that it challenged the champion mri in 2030."""
    report, record = report_of(storage), record_of(storage)
    change(report)
    step = Step(storage, keys.report("r2"), job="evaluate", settings={"seed": 0, "seeds": 1}, inputs={})
    step.write("report.json", json.dumps(report).encode())
    step.finish()
    question = {"challenger": ["r2", record.champion.network, record.champion.regime], "seeds": [0]}
    decision = {"question": question, "time": "2030-01-01T00:00:00+00:00", "won": won}
    champion = record.champion._replace(run="r2") if won else record.champion
    changed = record._replace(champion=champion, decisions=[*record.decisions, decision])
    storage.write(keys.champion("mri"), to_json(changed))


def scrape(registry: prometheus_client.CollectorRegistry) -> str:
    return prometheus_client.generate_latest(registry).decode()


def series(text: str) -> Series:
    """Return the value of each series of the exposition format."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
    assert len(found) == len(samples), "a series stands there twice"
    return found


def shown(storage: Any) -> Series:
    return series(scrape(exporter.make_registry(storage, 60)))


def value(found: Series, metric: str, **labels: str) -> float | None:
    return found.get((metric, frozenset(labels.items())))


def lasting(text: str) -> list[str]:
    """Return the lines that do not depend on when and by which process they are served."""
    return [line for line in text.splitlines() if "process_" not in line and "refresh_timestamp" not in line]


def contract() -> Iterator[tuple[str, str, set[str]]]:
    """Yield name, type and labels of each metric in the table of the exporter."""
    section = CONTRACT.read_text().partition("\n## The exporter\n")[2].partition("\n## ")[0]
    for row in re.findall(r"^\| (`.*) \| (\w+) \|(.*?)\|", section, re.MULTILINE):
        names = re.findall(r"`(.+?)`", row[0])
        for name in names:
            ending = name.removeprefix("…")
            stem = "" if ending == name else names[0].partition("_" + ending.split("_")[1])[0]
            yield stem + ending, row[1], set(re.findall(r"`(.+?)`", re.sub(r"\(.*?\)", "", row[2])))


# ---- what is shown --------------------------------------------------------------------------------------------------


def test_the_metrics_are_those_of_the_contract(storage: Storage) -> None:
    families = list(text_string_to_metric_families(scrape(exporter.make_registry(storage, 60))))
    served = {
        (sample.name, family.type, frozenset(sample.labels))
        for family in families
        for sample in family.samples
        if not sample.name.startswith("process_")
    }
    promised = {(name, kind, frozenset(labels)) for name, kind, labels in contract()}
    assert len(promised) == len(exporter.FAMILIES) == 20
    assert served == promised
    assert all(family.documentation for family in families)
    assert any(family.name == "process_resident_memory_bytes" for family in families)


def test_a_champion_is_shown_with_what_its_report_says(storage: Storage) -> None:
    found, champion = shown(storage), record_of(storage).champion
    place = {"network": champion.network, "regime": champion.regime}
    assert value(found, "mrigan_champion_info", name="mri", **place) == 1
    rows = [row for row in report_of(storage)["results"] if row["metric"] == "accuracy"]
    assert len(rows) == 3
    for row in rows:
        place = {"network": row["network"], "regime": row["regime"]}
        mine = place["regime"] == champion.regime
        for infix, field in {"": "value", "_low": "low", "_high": "high"}.items():
            assert value(found, f"mrigan_report_accuracy{infix}_ratio", name="mri", **place) == row[field]
            if mine:
                assert value(found, f"mrigan_champion_accuracy{infix}_ratio", name="mri") == row[field]
    decision = record_of(storage).decisions[-1]
    promoted = datetime.fromisoformat(decision["time"]).timestamp()
    assert value(found, "mrigan_champion_timestamp_seconds", name="mri") == promoted


def test_quality_is_shown_by_class_as_the_mean_over_folds(storage: Storage) -> None:
    report = report_of(storage)
    for number, part in enumerate(report["quality"]):
        kid = next(figure for figure in part["figures"] if figure["metric"] == "kid")
        kid["generated"]["value"] = 0.01 * number
        if part["label"] == "yes":
            kid["real"] = None if part["fold"] else {"value": 0.5, "error": None}
        else:
            kid["real"]["value"] = None
    fake_run.replace_output(storage, keys.report(fake_run.RUN), "report.json", json.dumps(report).encode())
    found = shown(storage)
    for label in ("no", "yes"):
        mean = statistics.mean(0.01 * n for n, part in enumerate(report["quality"]) if part["label"] == label)
        assert value(found, "mrigan_report_kid", name="mri", label=label) == pytest.approx(mean)
    assert value(found, "mrigan_report_real_kid", name="mri", label="yes") == 0.5
    assert value(found, "mrigan_report_real_kid", name="mri", label="no") is None
    assert value(found, "mrigan_report_memorization_suspicious", name="mri", label="no") == 0
    assert value(found, "mrigan_report_memorization_suspicious", name="mri", label="yes") == 1


def test_the_dataset_and_the_runs_are_shown(storage: Storage) -> None:
    found, dataset = shown(storage), report_of(storage)["dataset"]
    for field in ("images", "groups", "near_duplicate_pairs"):
        assert value(found, f"mrigan_dataset_{field}", name="mri") == dataset[field]
    for reason, number in {"duplicate": 1, "not-an-image": 1}.items():
        assert value(found, "mrigan_dataset_quarantined_images", name="mri", reason=reason) == number
    times = activity.read(storage, "mri")
    for field, metric in {"began": "run", "succeeded": "success"}.items():
        when = datetime.fromisoformat(times[field]).timestamp()
        assert value(found, f"mrigan_last_{metric}_timestamp_seconds", name="mri") == when


def test_a_run_that_never_succeeded_has_no_time_of_success(storage: Storage) -> None:
    activity.note(storage, "new", "began")
    assert [name for name, labels in shown(storage) if ("name", "new") in labels] == [
        "mrigan_last_run_timestamp_seconds"
    ]


def test_a_refused_challenger_is_reported_beside_the_champion(storage: Storage) -> None:
    before = shown(storage)

    def worse(report: Any) -> None:
        for row in report["results"]:
            row.update(value=0.25, low=None, high=None)
        report["dataset"]["images"] = 7
        report["quality"] = []  # as in a run on real images alone

    add_run(storage, worse)
    found = shown(storage)
    for metric in ("accuracy_ratio", "accuracy_low_ratio", "accuracy_high_ratio", "timestamp_seconds"):
        name = f"mrigan_champion_{metric}"
        assert value(found, name, name="mri") == value(before, name, name="mri") is not None
    place = {"name": "mri", "network": "mobilenetv2", "regime": "real"}
    assert value(found, "mrigan_report_accuracy_ratio", **place) == 0.25
    assert value(found, "mrigan_dataset_images", name="mri") == 7
    for outcome in ("promoted", "refused"):
        assert value(found, "mrigan_promotions_total", name="mri", outcome=outcome) == 1
    absent = ("mrigan_report_accuracy_low_ratio", "mrigan_report_kid", "mrigan_report_memorization_suspicious")
    assert not [name for name, _ in found if name in absent]


def test_odd_names_of_classes_arrive_whole(storage: Storage) -> None:
    odd = 'a "quoted" \\ back\nline {x="1"} ü'
    add_run(storage, lambda report: [part.update(label=odd) for part in report["quality"]])
    assert value(shown(storage), "mrigan_report_memorization_suspicious", name="mri", label=odd) == 1


def test_an_empty_storage_shows_the_exporter_alone(tmp_path: Path) -> None:
    found = shown(open_storage(str(tmp_path / "not-yet")))
    names = {name for name, _ in found if not name.startswith("process_")}
    assert names == {"mrigan_exporter_refresh_timestamp_seconds", "mrigan_exporter_refresh_errors_total"}
    refreshed = value(found, "mrigan_exporter_refresh_timestamp_seconds")
    assert refreshed is not None and 0 <= time.time() - refreshed < 60


def test_a_restart_gives_the_same_text(storage: Storage) -> None:
    add_run(storage)
    first, second = (scrape(exporter.make_registry(storage, 60)) for _ in range(2))
    assert lasting(first) == lasting(second)


def test_no_time_of_creation_is_served(storage: Storage) -> None:
    registry = exporter.make_registry(storage, 60)
    prometheus_client.Counter("any", "Any counter.", registry=registry)
    text = scrape(registry)
    assert "any_total" in text and "_created" not in text


def test_strange_objects_are_no_datasets(storage: Storage) -> None:
    for key in ("champions/backup/mri.json", "champions/notes.txt", "activity/mri.json.old", "champions/.json"):
        storage.write(key, storage.read(keys.champion("mri")))
    found = shown(storage)
    assert {dict(labels).get("name", "mri") for _, labels in found} == {"mri"}
    assert value(found, "mrigan_exporter_refresh_errors_total") == 0


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not here")
def test_promtool_finds_no_fault(storage: Storage) -> None:
    text = scrape(exporter.make_registry(storage, 60))
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


# ---- when and how often storage is read -----------------------------------------------------------------------------


def test_a_reading_takes_few_requests(storage: Storage) -> None:
    watched: Any = Watched(storage)
    report = f"{keys.report(fake_run.RUN)}/report.json"
    always = ["list activity", "list champions"]
    always += [
        f"read {key}" for key in (keys.activity("mri"), keys.champion("mri"), report.replace("report.json", MANIFEST))
    ]
    registry = exporter.make_registry(watched, 0)
    assert sorted(watched.requests) == sorted([*always, f"read {report}"])

    def requests() -> list[str]:
        watched.requests.clear()
        scrape(registry)
        return sorted(watched.requests)

    assert requests() == always, "a report that is known is not read again"
    add_run(storage)
    assert len(requests()) == 2 + 4 + 1
    assert len(requests()) == 2 + 4
    changed = report_of(storage) | {"results": []}
    fake_run.replace_output(storage, keys.report(fake_run.RUN), "report.json", json.dumps(changed).encode())
    assert f"read {report}" in requests()
    assert not [name for name, _ in series(scrape(registry)) if "champion_accuracy" in name]


def test_a_scrape_reads_storage_if_the_last_reading_is_old(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    watched: Any = Watched(storage)
    registry = exporter.make_registry(watched, 60)
    watched.requests.clear()
    add_run(storage, lambda report: [row.update(value=0.125) for row in report["results"]], won=True)
    asked = {"name": "mri", "outcome": "promoted"}
    assert value(series(scrape(registry)), "mrigan_promotions_total", **asked) == 1
    assert watched.requests == []
    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 61)
    found = series(scrape(registry))
    assert value(found, "mrigan_promotions_total", **asked) == 2
    assert value(found, "mrigan_champion_timestamp_seconds", name="mri") == 1893456000
    assert value(found, "mrigan_champion_accuracy_ratio", name="mri") == 0.125


def test_what_is_deleted_is_no_longer_shown(storage: Storage) -> None:
    registry = exporter.make_registry(storage, 0)
    storage.delete(f"{keys.report(fake_run.RUN)}/{MANIFEST}")
    found = series(scrape(registry))
    assert value(found, "mrigan_promotions_total", name="mri", outcome="promoted") == 1
    assert not [name for name, _ in found if name.startswith(("mrigan_report", "mrigan_champion_accuracy"))]
    storage.delete(keys.champion("mri"))
    found = series(scrape(registry))
    assert not [name for name, _ in found if name.startswith("mrigan_champion")]
    assert value(found, "mrigan_last_run_timestamp_seconds", name="mri")
    assert value(found, "mrigan_exporter_refresh_errors_total") == 0


def test_a_scrape_does_not_wait_for_another_ones_reading(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, go_on = threading.Event(), threading.Event()
    collector = exporter.Exporter(storage, 0)
    collector.refresh()
    read = collector.refresh

    def hang() -> None:
        entered.set()
        assert go_on.wait(30)
        read()

    monkeypatch.setattr(collector, "refresh", hang)
    first = threading.Thread(target=lambda: list(collector.collect()))
    first.start()
    try:
        assert entered.wait(30)
        assert len(list(collector.collect())) == len(exporter.FAMILIES)
    finally:
        go_on.set()
        first.join()


# ---- failures -------------------------------------------------------------------------------------------------------


def no_json(storage: Storage) -> None:
    storage.write(keys.champion("mri"), b"{")


def no_label(storage: Storage) -> None:
    champion: Any = record_of(storage).champion._replace(network=None)
    storage.write(keys.champion("mri"), to_json(record_of(storage)._replace(champion=champion)))


def other_bytes(storage: Storage) -> None:
    fake_run.replace_manifest(storage, keys.report("r2"), inputs={"x": "y"})
    storage.write(f"{keys.report('r2')}/report.json", b"{}")


def no_report(storage: Storage) -> None:
    fake_run.replace_output(storage, keys.report("r2"), "report.json", b'{"results": [{"metric": "accuracy"}]}')


@pytest.mark.parametrize("damage", [no_json, no_label, other_bytes, no_report])
def test_what_is_damaged_keeps_its_figures_and_takes_away_no_others(
    damage: Callable[[Storage], None], storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    storage.write(keys.champion("other"), storage.read(keys.champion("mri")))
    add_run(storage)
    registry = exporter.make_registry(storage, 0)
    before = series(scrape(registry))
    damage(storage)
    other = parse_record(storage.read(keys.champion("other")), "other")
    storage.write(keys.champion("other"), to_json(other._replace(decisions=3 * other.decisions)))

    found = series(scrape(registry))
    assert {key for key in before.keys() | found.keys() if before.get(key) != found.get(key)} <= {
        ("mrigan_promotions_total", frozenset({("name", "other"), ("outcome", "promoted")})),
        ("mrigan_exporter_refresh_errors_total", frozenset()),
        *((name, labels) for name, labels in found if name.startswith(("process_", "mrigan_exporter_refresh_time"))),
    }
    assert value(found, "mrigan_promotions_total", name="other", outcome="promoted") == 3
    assert value(found, "mrigan_exporter_refresh_errors_total") == 1
    [line] = [one.getMessage() for one in caplog.records if one.name == "mrigan.exporter"]
    assert line.startswith("cannot read champions/mri.json, former values are kept: ") and "\n" not in line

    after = shown(storage)
    assert value(after, "mrigan_promotions_total", name="other", outcome="promoted") == 3
    assert value(after, "mrigan_promotions_total", name="mri", outcome="promoted") is None
    assert value(after, "mrigan_last_run_timestamp_seconds", name="mri")
    assert value(after, "mrigan_exporter_refresh_errors_total") == 1


def test_a_storage_that_fails_leaves_the_figures_as_they_were(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    watched: Any = Watched(storage)
    registry = exporter.make_registry(watched, 0)
    before = scrape(registry)
    watched.broken = {"activity": MachineError("no answer")}
    after = [scrape(registry), scrape(registry)][-1]
    assert [line for line in lasting(after) if "errors" not in line] == [
        line for line in lasting(before) if "errors" not in line
    ]
    found, metric = series(after), "mrigan_exporter_refresh_timestamp_seconds"
    assert value(found, metric) == value(series(before), metric)
    assert value(found, "mrigan_exporter_refresh_errors_total") == 2
    lines = [one.getMessage() for one in caplog.records if one.name == "mrigan.exporter"]
    assert lines == [f"cannot read {storage.url}, former values are kept: no answer"] * 2
    watched.broken = {}
    assert value(series(scrape(registry)), metric) != value(found, metric)


@pytest.mark.parametrize(
    ("where", "error"),
    [("champions", UserError), ("activity", MachineError), ("champions/mri.json", UserError)],
)
def test_a_storage_that_cannot_be_read_at_the_start_ends_the_job(
    where: str, error: type[UserError | MachineError], storage: Storage
) -> None:
    watched: Any = Watched(storage)
    watched.broken = {where: error("the storage says no")}
    with pytest.raises(error, match="the storage says no"):
        exporter.make_registry(watched, 60)


# ---- as a process ---------------------------------------------------------------------------------------------------

RUN = """
import sys
import jobs.cli
code = jobs.cli.main(["exporter", *sys.argv[1:]])
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"tensorflow", "keras", "numpy"}))
sys.exit(code)
"""


def get(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return answer.read().decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_without_tensorflow_until_it_is_told_to_stop(storage: Storage, number: signal.Signals) -> None:
    [port] = free_ports(1)
    command = [sys.executable, "-c", RUN, "--storage", storage.url, "--exporter-port", str(port)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == f"serving the metrics of {storage.url} on port {port}\n"
            assert lasting(get(port)) == lasting(scrape(exporter.make_registry(storage, 60)))
            process.send_signal(number)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (0, "\n", "")


def test_a_port_that_is_taken_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert cli.main(["exporter", "--storage", str(tmp_path), "--exporter-port", port]) == 2
    assert capsys.readouterr().err == f"mrigan exporter: --exporter-port {port}: Address already in use\n"

"""What a job tells Prometheus: against the contract in docs/metrics.md, the history in storage, and real scrapes."""

import contextlib
import csv
import io
import json
import math
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from jobs import train_classifier, train_gan
from jobs.classifier import history as classifier
from jobs.common import hardware, metrics, scrapes
from jobs.common.errors import UserError
from jobs.common.storage import MissingKey, open_storage
from jobs.gan import history as gan
from jobs.gan import synthetic
from jobs.mri.slices import REASONS
from jobs.settings import ExecutionSettings, TrainClassifierSettings, TrainGanSettings
from tests import test_train_gan
from tests.conftest import use_credentials
from tests.s3_server import S3Server, free_ports

CONTRACT = Path(__file__).parents[2] / "docs" / "metrics.md"
MOST_SERIES = 40
# What each kind of pod makes, by hand: the modules of the jobs would bring TensorFlow.
JOBS = {
    "preprocess": "from jobs import preprocess; preprocess.counts()",
    "generate": "metrics.hardware('gpu', 'bfloat16'); from jobs.gan import synthetic; synthetic.generated()",
    "train-gan": "metrics.hardware('gpu', 'bfloat16'); told('gan')",
    "train-classifier": "metrics.hardware('gpu', 'bfloat16'); told('classifier')",
}
FIGURES = {"gan": gan.FIGURES, "classifier": classifier.FIGURES}


@pytest.fixture(autouse=True, scope="module")
def tensorflow() -> None:
    hardware.configure(ExecutionSettings(threads=1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("storage")
    test_train_gan.write_dataset(folder)
    return folder


def exposed(job: str) -> str:
    """Return what a process that only runs `job` serves, on S3."""
    code = "import importlib; from jobs.common import meter, metrics; meter.counters()\n"
    code += "def told(kind):\n    figures = importlib.import_module(f'jobs.{kind}.history').FIGURES\n"
    code += f"    metrics.Training(kind, figures, 2, 0, 0).epoch([0.5] * 4)\n{JOBS[job]}\n"
    code += "import prometheus_client; print(prometheus_client.generate_latest(metrics.REGISTRY).decode())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def documented() -> dict[str, tuple[str, set[str]]]:
    """Return type and labels of each metric of a job by the tables of the contract."""
    text = CONTRACT.read_text().partition("## The exporter")[0]
    rows = re.findall(r"^\| `(mrigan_\w+)` \| (\w+)[^|]*\|([^|]*)\|", text, re.MULTILINE)
    return {name: (kind, set(re.findall(r"`(\w+)`", labels.split("(")[0]))) for name, kind, labels in rows}


def test_the_metrics_are_those_of_the_contract() -> None:
    found: dict[str, tuple[str, set[str]]] = {}
    values: set[str] = set()
    for job in JOBS:
        for family in text_string_to_metric_families(exposed(job)):
            if family.name.startswith("mrigan_"):
                name = family.name + "_total" * (family.type == "counter")
                labels = {label for sample in family.samples for label in sample.labels}
                found[name] = (family.type, labels)
                values |= {value for sample in family.samples for value in sample.labels.values()}
    expected = documented()
    expected["mrigan_hardware_info"] = ("gauge", {"device", "precision"})
    assert found == expected
    closed = set(re.findall(r"`([\w-]+)`", CONTRACT.read_text())) | {"gpu", "bfloat16"}
    assert values <= closed | set(REASONS)


@pytest.mark.parametrize("job", JOBS)
def test_a_pod_has_few_series(job: str) -> None:
    lines = [line for line in exposed(job).splitlines() if line.startswith("mrigan_")]
    assert 10 < len(lines) <= MOST_SERIES


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on PATH")
def test_promtool_finds_no_fault() -> None:
    for job in JOBS:
        ended = subprocess.run(["promtool", "check", "metrics"], input=exposed(job), capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr or ended.stdout


def value(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


def counted(kind: str) -> dict[tuple[str, str], tuple[float, float]]:
    """Return sum and count of each figure of training."""
    found = {}
    for metric, label, values, _ in FIGURES[kind]:
        for one in values:
            name = f"mrigan_{kind}_epoch_{metric}"
            found[metric, one] = (
                value(f"{name}_sum", **{label: one}),
                value(f"{name}_count", **{label: one}),
            )
    return found


def compare(
    kind: str, before: dict[tuple[str, str], tuple[float, float]], rows: list[dict[str, str]], columns: list[str]
) -> None:
    """Check that the counters rose by the rows of a history, and that the gauges show its last row."""
    after = counted(kind)
    labels = {metric: label for metric, label, _, _ in FIGURES[kind]}
    for (metric, one), column in zip(after, columns, strict=True):
        history = [float(row[column]) for row in rows]
        total, count = (now - then for now, then in zip(after[metric, one], before[metric, one], strict=True))
        assert count == len(history)
        assert total == pytest.approx(sum(history), abs=1e-6 * len(history), rel=1e-6)
        last = value(f"mrigan_{kind}_{metric}", **{labels[metric]: one})
        assert last == pytest.approx(history[-1], abs=1e-6)


def test_sum_and_count_miss_no_epoch_of_a_gan(folder: Path) -> None:
    metrics.Training("gan", FIGURES["gan"], 1, 0, 0)
    before, images = counted("gan"), value("mrigan_training_images_total")
    step = train_gan.run(test_train_gan.settings(folder, gan_epochs=70, seed=7))
    rows = list(csv.DictReader(io.StringIO(step.read("losses.csv").decode())))
    columns = ["generator_loss", "discriminator_loss", "discriminator_accuracy_real", "discriminator_accuracy_fake"]
    compare("gan", before, rows, columns)
    assert value("mrigan_training_epoch") == value("mrigan_training_epochs_planned") == 70
    assert value("mrigan_training_step") == int(rows[-1]["step"])
    assert value("mrigan_training_images_total") - images == int(rows[-1]["step"]) * test_train_gan.BATCH


def test_sum_and_count_miss_no_epoch_of_a_classifier(folder: Path) -> None:
    metrics.Training("classifier", FIGURES["classifier"], 1, 0, 0)
    before, images = counted("classifier"), value("mrigan_training_images_total")
    asked = {"dataset": "d", "run": "r", "fold": 0, "threads": 1, "classifier_batch": 4, "seed": 7}
    asked |= {"healthy": "off", "classifier_epochs": 3, "classifier_steps_per_epoch": 2, "storage": str(folder)}
    step = train_classifier.run(TrainClassifierSettings(**asked))
    rows = list(csv.DictReader(io.StringIO(step.read("history.csv").decode())))
    compare("classifier", before, rows, ["train_loss", "held_out_loss", "train_accuracy", "held_out_accuracy"])
    assert value("mrigan_training_epoch") == 3
    assert value("mrigan_training_images_total") - images == 3 * 2 * 4


def test_the_phases_add_up_to_the_time_that_passed() -> None:
    def phases() -> dict[str, float]:
        return {phase: value("mrigan_phase_seconds_total", phase=phase) for phase in metrics.PHASES}

    times = [time.monotonic()]
    before = phases()
    times.append(time.monotonic())
    with metrics.phase("write"), metrics.phase("read"):
        time.sleep(0.05)
    times.append(time.monotonic())
    after = phases()
    times.append(time.monotonic())
    assert after["read"] - before["read"] >= 0.05
    assert times[2] - times[1] <= sum(after.values()) - sum(before.values()) <= times[3] - times[0]


def test_requests_to_s3_are_counted(s3_url: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(s3_url)
    names = [f"mrigan_s3_{name}_total" for name in ("errors", "retries")]
    before = {operation: value("mrigan_s3_requests_total", operation=operation) for operation in ("read", "write")}
    sent, faults = value("mrigan_s3_bytes_total", direction="sent"), [value(name) for name in names]
    received = value("mrigan_s3_bytes_total", direction="received")
    storage.write("a", b"12345")
    storage.read("a")
    with pytest.raises(MissingKey):
        storage.read("b")
    assert value("mrigan_s3_requests_total", operation="write") == before["write"] + 1
    assert value("mrigan_s3_requests_total", operation="read") == before["read"] + 2
    assert value("mrigan_s3_bytes_total", direction="sent") == sent + 5
    assert value("mrigan_s3_bytes_total", direction="received") == received + 5
    assert [value(name) for name in names] == faults
    use_credentials(monkeypatch, s3_server, s3_server.reader)
    with pytest.raises(UserError):
        open_storage(s3_url).write("a", b"")
    # A refusal counts if it comes twice.
    assert value("mrigan_s3_errors_total") == faults[0] + 2


def test_a_port_in_use_is_the_callers_mistake() -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        with pytest.raises(UserError, match="--metrics-port"):
            scrapes.serve(taken.getsockname()[1])


def test_an_end_waits_for_a_prometheus_that_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrapes, "_state", SimpleNamespace(**vars(scrapes._state) | {"scraped": threading.Event()}))
    [port] = free_ports(1)
    scrapes.serve(port)
    scrapes.wait_for_a_last_scrape(failed=False)

    def scrape() -> str:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()

    scrape()
    ending = threading.Thread(target=scrapes.wait_for_a_last_scrape, kwargs={"failed": False})
    ending.start()
    ending.join(0.2)
    assert ending.is_alive()
    synthetic.generated().inc(7)
    assert f"mrigan_images_generated_total {value('mrigan_images_generated_total')}" in scrape()
    ending.join(30)
    assert not ending.is_alive()


def test_a_training_that_fails_is_seen_by_one_more_scrape(folder: Path, tmp_path: Path) -> None:
    [port] = free_ports(1)
    asked = TrainGanSettings(**(test_train_gan.COMMON | {"storage": str(folder), "gan_learning_rate": 1e30, "seed": 3}))
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(asked.model_dump(mode="json")))
    command = [sys.executable, "-m", "jobs.cli", "train-gan", "--settings", str(tmp_path / "settings.yaml")]
    command += ["--metrics-port", str(port)]
    with subprocess.Popen([*command, "--log-format", "json"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        last = ""
        for line in process.stderr:
            last = line
            if "is not finite" in line:
                break
        event = json.loads(last)
        assert "is not finite" in last and event["exit_code"] == 2 and event["level"] == "error"
        deadline = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline:  # as Prometheus does: again and again
            with contextlib.suppress(OSError, HTTPException):
                answer = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10)
                # Without a length, the end cut it off within its head, which urllib takes for an empty answer.
                if answer.length is not None:
                    text = answer.read().decode()
        assert process.poll() == 2
    losses = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "mrigan_gan_loss"
    ]
    assert len(losses) == 2 and not all(map(math.isfinite, losses))

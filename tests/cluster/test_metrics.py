"""What Prometheus saw of the first run: pods, every panel of the dashboards, every alert. Before others change data."""

import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import CHART, PROMETHEUS, Site
from tests.cluster.panels import Prometheus, Query, Scope, queries

pytestmark = pytest.mark.skipif(not PROMETHEUS, reason="PROMETHEUS_URL is not set")

ALERTS = CHART / "rules" / "alerts.yaml"
SECONDS = 180  # that a scrape, a refresh and an evaluation may take beside other work
HISTORY = 3600  # seconds
# Meant to be empty: the schedule of this site is suspended.
NEVER = "argo_workflows_cronworkflows_triggered_total"


def until_none(missing: Callable[[], Any]) -> None:
    """Wait until nothing is missing."""
    deadline = time.monotonic() + SECONDS
    while found := missing():
        assert time.monotonic() < deadline, found
        time.sleep(2)


def test_what_takes_its_time_was_scraped(site: Site, first: dict[str, Any]) -> None:
    prometheus = Prometheus(PROMETHEUS)
    # The others may end between two scrapes.
    expected = {"train-gan", "generate", "train-classifier", "exporter"}

    def missing() -> Any:
        expr = f'last_over_time(up{{namespace="{site.namespace}"}}[{HISTORY}s])'
        return expected - {series.labels["job"] for series in prometheus.instant(expr, time.time())}

    until_none(missing)


def test_the_labels_say_what_a_pod_worked_on(site: Site, first: dict[str, Any]) -> None:
    expr = f'last_over_time(mrigan_training_step{{namespace="{site.namespace}"}}[{HISTORY}s])'
    found = [series.labels for series in Prometheus(PROMETHEUS).instant(expr, time.time())]
    gans = {(one["fold"], one["label"]) for one in found if one["job"] == "train-gan"}
    assert gans and gans <= {(fold, label) for fold in "01" for label in ("healthy", "lesion")}
    classifiers = [one for one in found if one["job"] == "train-classifier"]
    assert {one["network"] for one in classifiers} == {"mobilenetv2"}
    assert {one["regime"] for one in classifiers} <= {"synthetic", "real"}
    assert first["metadata"]["name"] in {one["workflow"] for one in found}


def test_every_panel_shows_something(site: Site, first: dict[str, Any]) -> None:
    prometheus = Prometheus(PROMETHEUS)
    start, name = datetime.fromisoformat(first["status"]["startedAt"]).timestamp(), first["metadata"]["name"]

    def empty() -> list[tuple[str, str]]:
        # Pods this short need points as close as the scrapes, but rates a window of several: one of two zooms shows.
        zooms = (queries(Scope(site.namespace, start, time.time(), name, scrape=scrape)) for scrape in (5, 15))
        asked = [both for both in zip(*zooms, strict=True) if NEVER not in both[0].expr]
        assert len(asked) > 48
        return [(both[0].panel, both[0].expr) for both in asked if not any(answer(prometheus, one) for one in both)]

    until_none(empty)


def answer(prometheus: Prometheus, query: Query) -> Any:
    """Return what a query finds; of one whose points are further apart than this run is long, what it finds now."""
    return prometheus.instant(query.expr, time.time()) if query.step >= 300 else prometheus.ask(query)


def test_every_alert_is_loaded_and_reads_metrics_that_exist(site: Site, first: dict[str, Any]) -> None:
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    # The schedule of this site is suspended.
    expected = {rule["alert"] for rule in rules if "alert" in rule} - {"MriganRetrainingMissed"}

    def loaded() -> dict[str, str]:
        with urllib.request.urlopen(f"{PROMETHEUS}/api/v1/rules?type=alert", timeout=30) as response:
            groups = json.load(response)["data"]["groups"]
        mine = [group for group in groups if site.namespace in group["file"]]
        return {rule["name"]: rule["health"] for group in mine for rule in group["rules"]}

    until_none(lambda: expected - {name for name, health in loaded().items() if health == "ok"})
    assert set(loaded()) == expected
    prometheus = Prometheus(PROMETHEUS)
    names = {name for rule in rules for name in re.findall(r"(?<![\w:])(?:mrigan|argo)_\w+", rule["expr"])}
    until_none(
        lambda: [name for name in names if not prometheus.instant(f"last_over_time({name}[{HISTORY}s])", time.time())]
    )


def test_promtool_finds_no_fault_in_the_exporter(site: Site, first: dict[str, Any]) -> None:
    assert shutil.which("promtool"), "promtool is needed"
    (pod,) = site.get("pods", "-l", "app.kubernetes.io/component=exporter")["items"]
    path = f"/api/v1/namespaces/{site.namespace}/pods/{pod['metadata']['name']}:9090/proxy/metrics"
    text = site.kubectl("get", "--raw", path).stdout
    assert "mrigan_champion_accuracy_ratio" in text and "mrigan_s3_requests_total" in text
    ended = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr

"""What Prometheus saw of the first run: pods, every panel of the dashboards, every alert. Before others change data."""

import json
import math
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
from tests.cluster.panels import Prometheus, Query, Scope, Series, queries, without_fallback

pytestmark = pytest.mark.skipif(not PROMETHEUS, reason="PROMETHEUS_URL is not set")

GROUPS = yaml.safe_load((CHART / "rules" / "alerts.yaml").read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
SECONDS = 180  # that a scrape, a refresh and an evaluation may take beside other work
HISTORY = 3600  # seconds
# Queries that may find nothing while all is well, by dashboard, panel and letter, and why.
QUIET = {
    ("mrigan-run", "Losses not finite", "A"): "all are finite",
    ("mrigan-run", "Discriminators that have won", "A"): "none wins in seconds",
    ("mrigan-run", "Images set aside, by reason", "A"): "preprocess may end between two scrapes",
    ("mrigan-fleet", "Workflows that failed", "A"): "none failed",
    ("mrigan-fleet", "Workflows that ended", "B"): "the schedule of this site is suspended",
    ("mrigan-fleet", "Pods that had to wait", "A"): "the node has room",
}
# Their metrics are there all the same, but for those that begin with what they count, or with a pod this short.
ABSENT = {
    "argo_workflows_cronworkflows_triggered_total",
    "argo_workflows_pod_pending_count",
    "mrigan_images_quarantined_total",
}
# Selectors of a rule that find nothing while all is well, by what they have in them.
FAILURES = 'phase=~"Failed|Error"'


def until_none(missing: Callable[[], Any]) -> None:
    """Wait until nothing is missing."""
    deadline = time.monotonic() + SECONDS
    while found := missing():
        assert time.monotonic() < deadline, found
        time.sleep(2)


def seen(selector: str) -> list[Series]:
    """Return the last values of a selector's series; of `up` those that were 1 at least once."""
    expr = f"last_over_time({selector}[{HISTORY}s])"
    if selector.startswith("up{"):
        expr = f"max_over_time({selector}[{HISTORY}s]) == 1"
    return Prometheus(PROMETHEUS).instant(expr, time.time())


def test_what_takes_its_time_was_scraped(site: Site, first: dict[str, Any]) -> None:
    # The others may end between two scrapes.
    expected = {"train-gan", "generate", "train-classifier", "exporter"}
    until_none(lambda: expected - {one.labels["job"] for one in seen(f'up{{namespace="{site.namespace}"}}')})


def test_the_labels_say_what_a_pod_worked_on(site: Site, first: dict[str, Any]) -> None:
    found = [series.labels for series in seen(f'mrigan_training_step{{namespace="{site.namespace}"}}')]
    gans = {(one["fold"], one["label"]) for one in found if one["job"] == "train-gan"}
    assert gans and gans <= {(fold, label) for fold in "01" for label in ("healthy", "lesion")}
    classifiers = [one for one in found if one["job"] == "train-classifier"]
    assert {one["network"] for one in classifiers} == {"mobilenetv2"}
    assert {one["regime"] for one in classifiers} <= {"synthetic", "real"}
    assert first["metadata"]["name"] in {one["workflow"] for one in found}


def test_every_panel_shows_something(site: Site, first: dict[str, Any]) -> None:
    start, name = datetime.fromisoformat(first["status"]["startedAt"]).timestamp(), first["metadata"]["name"]

    def asked() -> list[tuple[Query, ...]]:
        # Pods this short need points as close as the scrapes, but rates a window of several: one of two zooms shows.
        zooms = (queries(Scope(site.namespace, start, time.time(), name, scrape=scrape)) for scrape in (5, 15))
        return list(zip(*zooms, strict=True))

    assert QUIET.keys() <= {(one.dashboard, one.panel, one.ref) for one, _ in asked()}

    def empty() -> list[tuple[str, str]]:
        loud = [both for both in asked() if both[0][:3] not in QUIET]
        return [(both[0].panel, both[0].expr) for both in loud if not any(shows(one) for one in both)]

    until_none(empty)
    quiet = " ".join(without_fallback(one.expr) for one, _ in asked() if one[:3] in QUIET)
    metrics = set(re.findall(r"\b(?:mrigan|argo_workflows)_\w+(?=\{)", quiet))
    assert metrics >= ABSENT
    until_none(lambda: {one for one in metrics - ABSENT if not seen(f'{one}{{namespace="{site.namespace}"}}')})


def shows(query: Query) -> bool:
    """Return whether a query by itself, without its fallback, finds a number at any time of the run."""
    # What a dashboard asks of now alone may be over by now, and points far apart may pass by a run this short.
    found = Prometheus(PROMETHEUS).range(without_fallback(query.expr), query.start, query.end, min(query.step, 15))
    return any(math.isfinite(value) for series in found for value in series.values)


def test_every_rule_is_loaded_and_well(site: Site, first: dict[str, Any]) -> None:
    # The schedule of this site is suspended.
    expected = {rule.get("alert") or rule["record"] for rule in RULES} - {"MriganRetrainingMissed"}

    def loaded() -> dict[str, str]:
        with urllib.request.urlopen(f"{PROMETHEUS}/api/v1/rules", timeout=30) as response:
            groups = json.load(response)["data"]["groups"]
        mine = [group for group in groups if site.namespace in group["file"]]
        return {rule["name"]: rule["health"] for group in mine for rule in group["rules"]}

    until_none(lambda: expected - {name for name, health in loaded().items() if health == "ok"})
    assert set(loaded()) == expected


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_reads_series_that_are_there(site: Site, first: dict[str, Any], rule: dict[str, Any]) -> None:
    expr = rule["expr"].replace('namespace="mrigan"', f'namespace="{site.namespace}"')
    # A name with labels, or Argo's without.
    selectors = set(re.findall(r"[\w:]+\{[^}]*\}|(?<![\w:])argo_workflows_\w+(?![\w:{])", expr))
    assert selectors
    until_none(lambda: {one for one in selectors if FAILURES not in one and not seen(one)})


def test_promtool_finds_no_fault_in_the_exporter(site: Site, first: dict[str, Any]) -> None:
    assert shutil.which("promtool"), "promtool is needed"
    (pod,) = site.get("pods", "-l", "app.kubernetes.io/component=exporter")["items"]
    path = f"/api/v1/namespaces/{site.namespace}/pods/{pod['metadata']['name']}:9090/proxy/metrics"
    text = site.kubectl("get", "--raw", path).stdout
    assert "mrigan_champion_accuracy_ratio" in text and "mrigan_s3_requests_total" in text
    ended = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr

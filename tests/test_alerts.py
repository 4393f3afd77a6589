"""Every alert is tried by promtool, explained in the runbook, and made of metrics that the docs list."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
RULES = ROOT / "helm" / "mrigan" / "rules" / "alerts.yaml"
TRIALS = sorted((ROOT / "tests" / "alerts").glob("*.yaml"))
GROUPS = yaml.safe_load(RULES.read_text())["groups"]
ALERTS: dict[str, Any] = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
EXPRESSIONS = [rule["expr"] for group in GROUPS for rule in group["rules"]]

with_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on PATH")


def promtool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True, timeout=300)


@with_promtool
def test_promtool_takes_the_rules() -> None:
    ended = promtool("check", "rules", RULES)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@with_promtool
@pytest.mark.parametrize("path", TRIALS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should(path: Path) -> None:
    ended = promtool("test", "rules", path)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_each_alert_is_seen_to_fire_and_to_be_silent() -> None:
    trials = [trial for path in TRIALS for trial in yaml.safe_load(path.read_text())["tests"]]
    fired, silent = set(), set()
    for trial in trials:
        cases = trial["alert_rule_test"]
        # A trial is of one alert; one of silence has another trial's data, not just an earlier time.
        (name,) = {case["alertname"] for case in cases}
        assert trial["name"].startswith(f"{name} ")
        (fired if any(case.get("exp_alerts") for case in cases) else silent).add(name)
    assert fired == silent == ALERTS.keys()


def test_each_alert_says_what_it_is() -> None:
    for name, rule in ALERTS.items():
        assert name.startswith("Mrigan")
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"


def test_the_runbook_has_the_alerts_and_no_others() -> None:
    headings = re.findall(r"^## (Mrigan\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(ALERTS)


def test_the_docs_list_every_metric_that_an_alert_reads() -> None:
    listed = set(re.findall(r"\bmrigan_\w+", (ROOT / "docs" / "metrics.md").read_text()))
    parts = {f"{name}{part}" for name in listed if "_epoch_" in name for part in ("_sum", "_count")}
    read = {name for expr in EXPRESSIONS for name in re.findall(r"\bmrigan_\w+", expr)}
    assert read - listed - parts == set()


def test_an_alert_is_of_its_namespace() -> None:
    of_all = {"argo_workflows_pods_gauge", "argo_workflows_is_leader"}
    for expr in EXPRESSIONS:
        selectors = re.findall(r"([\w:]*(?:mrigan_|argo_workflows_)[\w:]+|\bup)(\{[^}]*)?", expr)
        assert selectors
        for metric, labels in selectors:
            assert metric in of_all or labels.startswith('{namespace="mrigan"'), expr

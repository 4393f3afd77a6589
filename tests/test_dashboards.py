"""The Grafana dashboards, against docs/metrics.md; and what reads them, tests/cluster/panels.py."""

import json
import math
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations, count
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.__main__ import texts
from tests.cluster import panels
from tests.cluster.panels import Scope, Series

ROOT = Path(__file__).parents[1]
DASHBOARDS = panels.dashboards()
PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, board in DASHBOARDS.items()
    for panel in panels.panels(board)
]
SCOPE = Scope("mrigan", start=0, end=6 * 3600)
# What Prometheus says of every target, and Argo of itself: docs/metrics.md of argo-workflows 4.
OTHERS = {
    "up": set(),
    "process_resident_memory_bytes": set(),
    "process_cpu_seconds_total": set(),
    "argo_workflows_gauge": {"phase"},
    "argo_workflows_total_count": {"phase"},
    "argo_workflows_pods_gauge": {"phase"},
    "argo_workflows_pod_pending_count": {"reason"},
    "argo_workflows_cronworkflows_triggered_total": {"name"},
    "argo_workflows_workflowtemplate_runtime_sum": {"name"},
    "argo_workflows_workflowtemplate_runtime_count": {"name"},
}


def test_the_chart_has_what_make_dashboards_writes() -> None:
    assert {path: path.read_text() for path in panels.FOLDER.glob("*.json")} == texts()


def test_there_are_two_dashboards() -> None:
    assert {name: board["uid"] for name, board in DASHBOARDS.items()} == {"run": "mrigan-run", "fleet": "mrigan-fleet"}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_dashboard_belongs_to_no_grafana(name: str) -> None:
    board = DASHBOARDS[name]
    assert "id" not in board
    found = [value for key, value in walk(board) if key == "uid"]
    assert set(found) == {board["uid"], "${datasource}"}
    variables = {variable["name"]: variable["type"] for variable in board["templating"]["list"]}
    own = {"run": {"workflow": "query"}, "fleet": {"price": "textbox"}}[name]
    assert variables == {"datasource": "datasource", "namespace": "query"} | own


@pytest.mark.parametrize("name", DASHBOARDS)
def test_dashboard_fits_a_config_map(name: str) -> None:
    assert len(json.dumps(DASHBOARDS[name], indent=4).encode()) < 500_000


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_stand_side_by_side(name: str) -> None:
    ids = [panel["id"] for panel in DASHBOARDS[name]["panels"]]
    assert len(ids) == len(set(ids))
    places = [panel["gridPos"] for panel in DASHBOARDS[name]["panels"]]
    for a in places:
        assert a["x"] >= 0
        assert a["x"] + a["w"] <= 24
    for a, b in combinations(places, 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert apart or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"], f"{a} and {b} overlap"


@pytest.mark.parametrize("panel", PANELS)
def test_panel_explains_itself(panel: dict) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    assert panel["title"]
    assert len(panel["description"].split()) > 4
    assert panel["description"].endswith(".")
    assert defaults["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
    assert all(target.get("legendFormat") or panel["type"] == "table" for target in panel["targets"])
    # A number, a bar or a row is of now; a line is not.
    assert all(target.get("instant", False) == (panel["type"] != "timeseries") for target in panel["targets"])
    if defaults["color"]["mode"] == "thresholds":
        assert defaults["thresholds"]["steps"][0]["value"] is None


@pytest.mark.parametrize("panel", PANELS)
def test_panel_that_may_be_empty_says_what_that_means(panel: dict) -> None:
    never_empty = any("vector(0)" in target["expr"] for target in panel["targets"])
    assert never_empty or panel["fieldConfig"]["defaults"].get("noValue")


@pytest.mark.parametrize("panel", PANELS)
def test_panel_asks_for_what_is_documented(panel: dict) -> None:
    metrics, of_pods = documented()
    for target in panel["targets"]:
        bare = re.sub(r'"[^"]*"', '""', target["expr"])
        asked = set(re.findall(r"\b\w+(?=[{[])|\b(?:mrigan|argo_workflows|process)_\w+", bare))
        assert asked <= metrics.keys(), f"unknown metrics: {asked - metrics.keys()}"
        known = of_pods.union(*(metrics[metric] for metric in asked))
        # Prometheus' own name of a target, which goes with its pod.
        assert labels_in(bare) | set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", ""))) <= known | {
            "instance"
        }
        if panel["type"] == "table":
            shown = panel["transformations"][1]["options"]["indexByName"]
            assert {label for label in shown if not label.startswith("Value #")} <= labels_in(bare)


@pytest.mark.parametrize("panel", PANELS)
def test_rates_follow_the_scrape_interval(panel: dict) -> None:
    for target in panel["targets"]:
        windows = set(re.findall(r"\brate\([^[]*\[([^]]*)\]", target["expr"]))
        assert windows <= {"$__rate_interval", "30m"}, "a window that is fixed misses slow scrapes"


def test_prometheus_takes_every_query(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("no promtool on PATH")
    rules = [{"record": f"test:query:{i}", "expr": query.expr} for i, query in enumerate(panels.queries(SCOPE))]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    ended = subprocess.run([promtool, "check", "rules", tmp_path / "rules.yaml"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_no_panel_takes_what_was_not_read_for_none(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("no promtool on PATH")
    # Counts of pods that are seen, which is 0 of none.
    counts = {"Pods at work", "Losses not finite", "Discriminators that have won"}
    exprs = [query.expr for query in panels.queries(SCOPE) if query.panel not in counts]
    trial = {"promql_expr_test": [{"expr": expr, "eval_time": "6h"} for expr in exprs]}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump({"rule_files": [], "tests": [trial]}))
    ended = subprocess.run([promtool, "test", "rules", tmp_path / "tests.yaml"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_queries_have_no_variables_left() -> None:
    found = list(panels.queries(Scope("team-a", start=0, end=3600, workflow="mrigan-x", price="2.5")))
    assert len(found) > 50
    assert not [query for query in found if "$" in query.expr]
    assert 'up{namespace="team-a", workflow=~"mrigan-x"}' in next(q.expr for q in found if q.panel == "Pods at work")
    assert "/ 3600 * 2.5" in next(q.expr for q in found if q.panel == "GPU cost")


def test_a_query_is_asked_without_its_fallback() -> None:
    found = [query.expr for query in panels.queries(SCOPE)]
    bare = [panels.without_fallback(expr) for expr in found]
    assert not [expr for expr in bare if "vector(0)" in expr or "label_replace" in expr]
    assert {full.removeprefix(expr)[:8] for full, expr in zip(found, bare, strict=True) if full != expr} == {
        *(" or vect", " or 0 * ", " or on()")
    }
    # No fallback: the value before a counter began.
    assert any(" or 0 * sum by" in expr for expr in bare)


def test_substitute() -> None:
    values = {"a": "1", "__range": "60s"}
    assert panels.substitute("$a ${a} x[$__range] {{a}}", values) == "1 1 x[60s] {{a}}"
    with pytest.raises(KeyError, match="b"):
        panels.substitute("$b", values)


def test_step_is_at_least_the_panel_s_and_rates_span_four_scrapes() -> None:
    short, week = Scope("n", 0, 600), Scope("n", 0, 7 * 86400)
    assert (short.step({}), short.variables({})["__rate_interval"]) == (15, "60s")
    assert short.step({"interval": "5m"}) == 300
    assert (week.step({}), week.variables({})["__rate_interval"]) == (1800, "1815s")
    assert week.variables({})["__range"] == "604800s"


def test_named() -> None:
    assert panels.named("{{label}} fold {{ fold }} {{seed}}", {"label": "tumour", "fold": "0"}) == "tumour fold 0 "


def test_table_joins_its_queries_by_labels() -> None:
    panel = next(p for p in panels.panels(DASHBOARDS["run"]) if p["type"] == "table" and "KID" in p["description"])
    answers = [
        ("A", Series({"name": "brain", "label": "tumour"}, [0.0], [0.05])),
        ("C", Series({"name": "brain", "label": "tumour"}, [0.0], [1.0])),
        ("A", Series({"name": "brain", "label": "healthy"}, [0.0], [0.02])),
    ]
    labels, columns, rows = panels.table(panel, answers)
    assert (labels, columns) == (["dataset", "class"], ["KID", "KID of real", "copying"])
    assert rows == [(("brain", "healthy"), {"KID": 0.02}), (("brain", "tumour"), {"KID": 0.05, "copying": 1.0})]
    assert panels.field(panel, "copying")["decimals"] == 0
    assert panels.field(panel, "KID")["decimals"] == 3


@pytest.mark.parametrize(
    "value, unit, decimals, text",
    [
        (0.914, "percentunit", 1, "91.4%"),
        (90, "s", None, "1.5 min"),
        (26 * 3600, "s", 1, "1.1 days"),
        (3 * 2**30, "bytes", None, "3 GiB"),
        (0, "bytes", None, "0 B"),
        (1.5e6, "Bps", None, "1.5 MB/s"),
        (12.34, "suffix:h", 1, "12.3 h"),
        (7, "none", 0, "7"),
        (math.nan, "none", 2, "nan"),
    ],
)
def test_shown(value: float, unit: str, decimals: int | None, text: str) -> None:
    assert panels.shown(value, unit, decimals) == text


def walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key of nested objects with its value."""
    items = (
        value.items()
        if isinstance(value, dict)
        else zip(count(), value, strict=False)
        if isinstance(value, list)
        else ()
    )
    for key, inside in items:
        yield str(key), inside
        yield from walk(inside)


def labels_in(expr: str) -> set[str]:
    """Return the labels that a query, its strings emptied, groups and selects by."""
    groups = re.findall(r"\b(?:by|without|on) \(([^)]*)\)", expr)
    selectors = re.findall(r"(\w+)(?:=~|!~|!=|=)\"", expr)
    return {label for group in groups for label in re.findall(r"\w+", group)} | set(selectors)


def documented() -> tuple[dict[str, set[str]], set[str]]:
    """Return the metrics of docs/metrics.md with their labels, and the labels of every series of a pod."""
    metrics, of_pods = dict(OTHERS), set()
    for line in (ROOT / "docs" / "metrics.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        names = re.findall(r"`([^`]*)`", cells[0]) if cells else []
        if len(cells) == 3:
            of_pods |= set(names)
        elif len(cells) == 4:
            labels = set(re.findall(r"`([^`]*)`", re.sub(r"\([^)]*\)", "", cells[2])))
            for name in names:
                if name.startswith("…"):
                    stem = name.split("_")[1]
                    name = names[0][: names[0].index(f"_{stem}")] + name[1:]
                ends = ("_sum", "_count") if cells[1].startswith("summary") else ("",)
                metrics |= {name + end: labels for end in ends}
    return metrics, of_pods

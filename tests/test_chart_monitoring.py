"""What the chart makes for Prometheus and Grafana: each part by its own switch, from the files of the repository."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from jobs.cli import read_settings
from jobs.settings import ExporterSettings
from tests.test_chart import CHART, EVERYTHING, ROOT, Json, changed, plain, refusal, render

pytestmark = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on PATH")

SCHEDULED = {"schedule": {"enabled": True, "parameters": {"name": "data"}}}
EXPORTED = {"exporter": {"enabled": True}}
MARKED = {"enabled": True, "annotations": {"note": "this"}}
LABELS = {"release": "stack"}
PRICE = {"name": "price", "type": "textbox", "query": "0"}
DASHBOARD = {
    "title": "${name} {{pod}} <1 & 2>",
    "templating": {"list": [{"name": "namespace", "query": "mrigan"}, PRICE]},
    "panels": [{"id": 1, "thresholds": [0.5, 1000000]}],
}


def groups(values: Json, namespace: str = "there") -> Json:
    """Return the groups of the PrometheusRule."""
    values = {**values, "metrics": {"rules": {"enabled": True} | values.get("rules", {})}}
    values.pop("rules", None)
    return render(values, namespace)["PrometheusRule", "mrigan"]["spec"]["groups"]


def alerts(found: Json) -> dict[str, Json]:
    """Return the alerts of groups by their names."""
    return {rule["alert"]: rule for group in found for rule in group["rules"] if "alert" in rule}


def in_file() -> Json:
    return yaml.safe_load((CHART / "rules" / "alerts.yaml").read_text())["groups"]


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """A copy of the chart with one more dashboard."""
    chart = Path(shutil.copytree(CHART, tmp_path / "chart"))
    (chart / "dashboards").mkdir(exist_ok=True)
    (chart / "dashboards" / "drawn.json").write_text(json.dumps(DASHBOARD))
    return chart


# ---- switches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "made"),
    [
        ({}, set()),
        ({"metrics": {"labels": LABELS, "podMonitor": MARKED}}, {("PodMonitor", "mrigan")}),
        ({"metrics": {"labels": LABELS, "argo": MARKED}}, {("PodMonitor", "mrigan-argo")}),
        ({"metrics": {"labels": LABELS, "rules": MARKED}}, {("PrometheusRule", "mrigan")}),
        ({"metrics": {"dashboards": MARKED | {"labels": LABELS}}}, {("ConfigMap", "mrigan-dashboard-drawn")}),
        ({"exporter": {"enabled": True}}, {("Deployment", "mrigan-exporter")}),
    ],
    ids=["none", "podMonitor", "argo", "rules", "dashboards", "exporter"],
)
def test_each_part_has_a_switch(drawn: Path, values: Json, made: set[tuple[str, str]]) -> None:
    of_files = {("ConfigMap", f"mrigan-dashboard-{path.stem}") for path in (CHART / "dashboards").glob("*.json")}
    found = render(values, chart=drawn)
    assert set(found) - set(render()) - of_files == made
    for key in made - {("Deployment", "mrigan-exporter")}:
        assert (
            found[key]["metadata"]["labels"].items() >= {"release": "stack", "app.kubernetes.io/name": "mrigan"}.items()
        )
        assert found[key]["metadata"]["annotations"] == {"note": "this"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"metrics": {"rules": {"enable": True}}}, "'enable' not allowed"),
        ({"metrics": {"rules": {"runbookUrl": "docs"}}}, "does not match pattern"),
        ({"metrics": {"podMonitor": {"interval": "often"}}}, "does not match pattern"),
        ({"metrics": {"argo": {"podLabels": {"app": None}}}}, "minProperties"),
        ({"metrics": {"dashboards": {"gpuHourPrice": -1}}}, "minimum"),
        ({"exporter": {"refreshSeconds": 3600}}, "maximum"),
        ({"exporter": {"replicas": 2}}, "'replicas' not allowed"),
    ],
    ids=lambda one: next(iter(next(iter(one.values())))) if isinstance(one, dict) else "",
)
def test_what_is_not_known_is_refused(values: Json, said: str) -> None:
    assert said in refusal(values)


# ---- Prometheus ------------------------------------------------------------------------------------------------------


def labels_of(relabelings: Json, task: str) -> dict[str, str]:
    """Return the labels that Prometheus makes of a task's name: its regular expressions match the whole text."""
    found = {}
    for one in relabelings:
        matched = re.fullmatch(one["regex"], task) if "regex" in one else None
        if matched:
            found[one["targetLabel"]] = matched.expand(one.get("replacement", "$1").replace("$", "\\"))
    return found


def test_series_bear_the_labels_that_the_docs_name() -> None:
    spec = render({"metrics": {"podMonitor": {"enabled": True}}})["PodMonitor", "mrigan"]["spec"]
    table = (ROOT / "docs" / "metrics.md").read_text().partition("| label | from")[2].partition("## ")[0]
    rows = [line.split("|")[1:3] for line in table.splitlines() if "from" not in line and line.count("`") > 2]
    named = {}
    for labels, origin in rows:
        for label in re.findall(r"`(\w+)`", labels):
            kind, written = re.match(r" ?(\w+?)s? (?:`(.+)`)?", origin).groups()
            named[label] = kind, (written or "").replace("…", label)
    assert spec["jobLabel"] == named.pop("job")[1] == "mrigan/job"
    assert {named.pop(label)[0] for label in ("namespace", "pod")} == {"name"}
    (endpoint,) = spec["podMetricsEndpoints"]
    meta = {
        label: [f"__meta_kubernetes_pod_{kind}_{re.sub('[^a-z]', '_', written)}"]
        for label, (kind, written) in named.items()
    }
    assert {one["targetLabel"]: one["sourceLabels"] for one in endpoint["relabelings"]} == meta
    assert labels_of(endpoint["relabelings"], "generate(all:no tumour)") == {"fold": "all", "label": "no tumour"}
    assert labels_of(endpoint["relabelings"], "train-gan(0:all-classes)") == {"fold": "0", "label": "all-classes"}
    assert labels_of(endpoint["relabelings"], "pretrain(resnet152v2)") == {"network": "resnet152v2"}
    assert labels_of(endpoint["relabelings"], "evaluate") == labels_of(endpoint["relabelings"], "") == {}
    for regime, control in (("real+synthetic", ""), ("synthetic", ""), ("real", ""), ("real", "leaky")):
        item = "-".join(filter(None, ("mobilenetv2", regime, control, "seed-12")))
        assert labels_of(endpoint["relabelings"], f"train-classifier(3:{item})") == {
            "fold": "3",
            "network": "mobilenetv2",
            "regime": regime,
            "control": control or "none",
            "seed": "12",
        }
    assert endpoint["port"] == "metrics" and "interval" not in endpoint
    every = {"metrics": {"podMonitor": {"enabled": True, "interval": "15s"}}}
    assert render(every)["PodMonitor", "mrigan"]["spec"]["podMetricsEndpoints"][0]["interval"] == "15s"


def test_argos_controller_is_read_where_it_is() -> None:
    values = {"enabled": True, "namespace": "workflows", "podLabels": {"app": None, "part": "controller"}}
    found = render({"metrics": {"argo": values}})["PodMonitor", "mrigan-argo"]
    assert found["metadata"]["namespace"] == "there"
    assert found["spec"]["namespaceSelector"] == {"matchNames": ["workflows"]}
    assert found["spec"]["selector"] == {"matchLabels": {"part": "controller"}}
    assert found["spec"]["podMetricsEndpoints"][0]["honorLabels"] is True


def test_the_rules_are_the_files_but_for_the_schedules() -> None:
    place = next(
        f"{group['name']} rules {number} expr"
        for group in in_file()
        for number, rule in enumerate(group["rules"])
        if rule.get("alert") == "MriganRetrainingMissed"
    )
    assert changed(in_file(), groups(SCHEDULED | EXPORTED, "mrigan")) == {place}


def test_a_namespace_takes_the_place_of_the_files() -> None:
    there, here = (groups(SCHEDULED | EXPORTED, namespace) for namespace in ("there", "mrigan"))
    assert json.dumps(there).replace(r"namespace=\"there\"", r"namespace=\"mrigan\"") == json.dumps(here)
    assert r"namespace=\"mrigan\"" not in json.dumps(there)


def test_a_schedule_is_missed_only_where_there_is_one() -> None:
    every = alerts(in_file()).keys()
    assert alerts(groups(EXPORTED)).keys() == every - {"MriganRetrainingMissed"}
    suspended = {"schedule": {"enabled": True, "suspend": True}}
    assert alerts(groups(EXPORTED | suspended)).keys() == alerts(groups(EXPORTED)).keys()
    found = alerts(groups(EXPORTED | SCHEDULED | {"rules": {"retrainingHours": 170}}))
    assert found.keys() == every
    expr = found["MriganRetrainingMissed"]["expr"]
    assert '(mrigan_last_success_timestamp_seconds{name="data", namespace="there"}) > 170 * 3600\n' in expr
    assert '(up{namespace="there", job="exporter"} offset 170h) == 1\n' in expr
    assert 'unless on (namespace) mrigan_last_success_timestamp_seconds{name="data", namespace="there"}\n' in expr
    assert "26" not in expr


def test_an_exporter_fails_only_where_there_is_one() -> None:
    assert alerts(in_file()).keys() - alerts(groups(SCHEDULED)).keys() == {"MriganExporterFailing"}


def test_a_missed_schedule_goes_by_the_name_of_its_dataset() -> None:
    def expr(**values: Json) -> str:
        return alerts(groups(values))["MriganRetrainingMissed"]["expr"]

    unnamed = {"enabled": True}
    assert 'name="mine"' in expr(schedule=unnamed, parameters={"name": "mine"})
    own = {"enabled": True, "parameters": {"name": "nightly"}}
    assert 'name="nightly"' in expr(schedule=own, parameters={"name": "mine"})
    assert "schedule.parameters.name" in refusal({"schedule": unnamed, "metrics": {"rules": {"enabled": True}}})


def test_an_alert_links_to_the_sites_runbook() -> None:
    prefix = "https://git.example.org/mrigan/blob/main/"
    linked = alerts(groups(SCHEDULED | EXPORTED | {"rules": {"runbookUrl": prefix}}))
    for name, rule in alerts(groups(SCHEDULED | EXPORTED)).items():
        url = rule["annotations"]["runbook_url"]
        assert linked[name]["annotations"]["runbook_url"] == prefix + url


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on PATH")
def test_promtool_takes_the_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": groups(SCHEDULED | EXPORTED)}))
    ended = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr


# ---- Grafana ---------------------------------------------------------------------------------------------------------


def test_dashboards_are_the_files_but_for_the_price(drawn: Path) -> None:
    found = render({"metrics": {"dashboards": {"enabled": True, "gpuHourPrice": 2.5}}}, chart=drawn)
    for path in (drawn / "dashboards").glob("*.json"):
        one = found["ConfigMap", f"mrigan-dashboard-{path.stem}"]
        assert one["metadata"]["labels"]["grafana_dashboard"] == "1"
        rendered, written = json.loads(one["data"][path.name]), json.loads(path.read_text())
        for dashboard in (rendered, written):
            for variable in dashboard["templating"]["list"]:
                if variable["name"] == "price":
                    assert variable.pop("query") == ("2.5" if dashboard is rendered else "0")
        assert rendered == written


# With 13 and 52 hours, one threshold becomes what the other was.
@pytest.mark.parametrize("hours", [13, 52, 170])
def test_a_dashboard_goes_by_the_hours_of_the_alert(hours: int) -> None:
    values = {"dashboards": {"enabled": True}, "rules": {"retrainingHours": hours}}
    text = render({"metrics": values})["ConfigMap", "mrigan-dashboard-fleet"]["data"]["fleet.json"]
    panels = {panel["title"]: panel for panel in json.loads(text)["panels"] if f"{hours} h" in str(panel)}
    limits = {
        title: [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
        for title, panel in panels.items()
    }
    assert limits == {
        "Since the last success": [None, 3600 * hours, 7200 * hours],
        "Since the last start and the last success": [None, 3600 * hours],
    }
    assert "26 h" not in text


# ---- the pods --------------------------------------------------------------------------------------------------------


def test_a_port_is_the_containers_and_the_jobs() -> None:
    rendered = render({"metrics": {"port": 9100}})["WorkflowTemplate", "mrigan"]["spec"]
    assert changed(plain("workflowtemplate.yaml"), rendered) == {
        "templateDefaults container ports metrics containerPort",
        "templateDefaults container env MRIGAN_METRICS_PORT value",
    }
    container = rendered["templateDefaults"]["container"]
    assert {one["name"]: one["value"] for one in container["env"]}["MRIGAN_METRICS_PORT"] == "9100"
    assert container["ports"] == [{"name": "metrics", "containerPort": 9100}]


def test_the_exporter_runs_as_the_jobs_do(monkeypatch: pytest.MonkeyPatch) -> None:
    resources = {"limits": {"memory": "9Mi"}, "requests": {"cpu": 1, "memory": "9Mi"}}
    more = {"exporter": {"enabled": True, "refreshSeconds": 300, "resources": resources}, "metrics": {"port": 9100}}
    rendered = render(EVERYTHING | more)
    spec = rendered["WorkflowTemplate", "other"]["spec"]
    deployment = rendered["Deployment", "other-exporter"]["spec"]
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    job = spec["templateDefaults"]["container"]
    same = set(job) - {"env", "ports"}
    expected = {name: job[name] for name in same} | {"image": "images.example.org/mrigan:cpu"}
    assert {name: container[name] for name in same} == expected
    assert (pod["securityContext"], pod["volumes"]) == (spec["securityContext"], spec["volumes"])
    assert pod["serviceAccountName"] == "other" and pod["automountServiceAccountToken"] is False
    assert (pod["imagePullSecrets"], pod["priorityClassName"]) == ([{"name": "registry"}], "batch")
    assert pod["nodeSelector"] == EVERYTHING["light"]["nodeSelector"]
    assert container["resources"] == resources

    assert container["ports"] == [{"name": "metrics", "containerPort": 9100}]
    assert container["readinessProbe"]["httpGet"] == {"path": "/metrics", "port": "metrics"}
    env = {one["name"]: one["value"] for one in container["env"]}
    assert len(env) == len(container["env"]) and "MRIGAN_METRICS_PORT" not in env
    of_jobs = {one["name"] for one in job["env"]} - {"MRIGAN_METRICS_PORT", "MRIGAN_LOG_FORMAT"}
    assert env.keys() - of_jobs == {
        *("MRIGAN_STORAGE", "MRIGAN_EXPORTER_PORT", "MRIGAN_REFRESH_SECONDS", "MRIGAN_LOG_FORMAT")
    }
    assert env["MRIGAN_LOG_FORMAT"] == "json"
    (job_name,) = container["args"]
    for name, value in env.items():
        if name.startswith("MRIGAN_") and name != "MRIGAN_LOG_FORMAT":
            monkeypatch.setenv(name, value)
    settings = read_settings(job_name, [])
    assert settings == ExporterSettings(storage="s3://bucket/some/prefix", exporter_port=9100, refresh_seconds=300)


def test_the_exporter_is_found_by_its_labels() -> None:
    values = EVERYTHING | {"exporter": {"enabled": True}, "metrics": {"podMonitor": {"enabled": True}}}
    rendered = render(values | {"podLabels": {"mrigan/job": "not-this", "queue": "mri"}})
    deployment = rendered["Deployment", "other-exporter"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert labels.items() >= {"mrigan/job": "exporter", "app.kubernetes.io/component": "exporter"}.items()
    assert deployment["template"]["metadata"]["annotations"] == EVERYTHING["podAnnotations"]
    monitor = rendered["PodMonitor", "other"]["spec"]["selector"]["matchLabels"]
    for chosen in (deployment["selector"]["matchLabels"], monitor):
        assert labels.items() >= chosen.items()
    assert (
        not rendered["Pod", "other-check"]["metadata"]["labels"].items()
        >= deployment["selector"]["matchLabels"].items()
    )

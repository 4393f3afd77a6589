"""What submit refuses before anything is sent, and how it ends like the workflow."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import create_model

from docs import write_settings
from jobs import cli, submit
from jobs.common import keys
from jobs.common.errors import MachineError, UserError
from jobs.common.fields import setting
from jobs.common.step import Step
from jobs.common.storage import open_storage
from jobs.settings import JOBS, MAIN, NAMES, Job, RunOfTasksSettings, SubmitSettings
from jobs.submit import checked, conclude, watch

TEMPLATE = yaml.safe_load((Path(__file__).parents[1] / "workflows" / "workflowtemplate.yaml").read_text())


def parameters() -> dict[str, dict[str, Any]]:
    """Return the parameters of the WorkflowTemplate by name."""
    return {one["name"]: one for one in TEMPLATE["spec"]["arguments"]["parameters"]}


def test_what_follows_from_the_settings_is_written() -> None:
    assert write_settings.TABLE.read_text() == write_settings.table(), "run `make settings`"
    text = write_settings.WORKFLOW.read_text()
    assert text == write_settings.workflow(text), "run `make settings`"
    assert {*parameters()} == {*(name.replace("_", "-") for name in MAIN), "gpus", "preset", "settings"}


def test_a_new_setting_of_pipeline_is_in_the_docs_and_goes_to_a_workflow(monkeypatch: pytest.MonkeyPatch) -> None:
    extended = create_model("Extended", __base__=RunOfTasksSettings, freckles=(int, setting(3, "freckles of a head")))
    monkeypatch.setattr(submit, "RunOfTasksSettings", extended)
    monkeypatch.setattr(submit, "NAMES", [*NAMES, "freckles"])
    monkeypatch.setitem(JOBS, "pipeline", Job(extended, ""))
    assert "| `freckles` | `3` | freckles of a head |" in write_settings.table()
    assert checked(["freckles=5", "folds=3"], TEMPLATE) == {"folds": "3", "settings": 'freckles: "5"'}
    with pytest.raises(UserError, match=r"^freckles: must be a whole number"):
        checked(["freckles=many"], TEMPLATE)


@pytest.mark.parametrize("gpus", ["one", "-1", ""])
def test_the_first_pod_refuses_a_wrong_number_of_gpus(gpus: str, tmp_path: Path) -> None:
    first = next(one for one in TEMPLATE["spec"]["templates"] if one["name"] == "preprocess")
    (tmp_path / "settings.yaml").touch()
    words = [word.replace("{{workflow.parameters.gpus}}", gpus) for word in first["container"]["args"]]
    job, *words = [word.replace("/tmp", str(tmp_path)) for word in words]
    assert job == "plan"
    with pytest.raises(UserError, match="--gpus-of-each: "):
        cli.read_settings(job, [*words, "--data", str(tmp_path)])


def test_what_is_right_is_passed_on_as_it_was_written() -> None:
    assert checked(["image-size=64", "regimes=synthetic,real", "groups=s3://b/a=b.csv", "gpus=2"], TEMPLATE) == {
        "image-size": "64",
        "gpus": "2",
        "regimes": "synthetic,real",
        "groups": "s3://b/a=b.csv",
    }


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("image-size", "image-size: give parameters as name=value"),
        ("image-sise=64", "no parameter image-sise: did you mean image-size?"),
        ("gan-epochs=ten", "^gan-epochs: must be a whole number, not 'ten'"),
        ("folds=1", "^folds: input should be greater than or equal to 2"),
        ("networks=vgg", "^networks: input should be"),
        ("preset=huge", "^preset: one of demo, quick, full, not 'huge'"),
        ("gpus=one", "^gpus: must be a whole number, not 'one'"),
        ("gpus=-1", "^gpus: input should be greater than or equal to 0"),
    ],
)
def test_what_is_wrong_is_named(word: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        checked([word], TEMPLATE)


def test_a_templates_own_rules_count() -> None:
    template = {
        "spec": {"arguments": {"parameters": [{"name": "site"}, {"name": "size", "enum": ["s", "m"], "value": "s"}]}}
    }
    with pytest.raises(UserError, match="site has no value: give site="):
        checked([], template)
    with pytest.raises(UserError, match="size: one of s, m, not 'l'"):
        checked(["site=a", "size=l"], template)
    assert checked(["site=a"], template) == {"site": "a"}
    data = {"spec": {"arguments": {"parameters": [{"name": "data", "value": ""}]}}}
    with pytest.raises(UserError, match="data has no value: give data="):
        checked([], data)


def test_parameters_may_stand_on_both_sides_of_a_flag() -> None:
    words = ["data=x", "--no-watch", "folds=2", "seed=1"]
    settings = cli.read_settings("submit", words)
    assert isinstance(settings, SubmitSettings) and not settings.watch
    assert settings.parameters == ("data=x", "folds=2", "seed=1")
    with pytest.raises(UserError, match="unknown setting --wait: did you mean --watch"):
        cli.read_settings("submit", ["data=x", "--wait", "folds=2"])


@pytest.mark.parametrize(("words", "message"), [([], "RUN is needed"), (["a", "b"], "name one RUN")])
def test_a_report_is_of_one_run(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_report_is_found_by_any_name_of_its_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    step = Step(
        open_storage(str(tmp_path / "s")),
        keys.report("mine"),
        job="evaluate",
        settings={"seed": 0, "seeds": 1},
        inputs={},
    )
    for name in ("report.json", "report.html"):
        step.write(name, b"{}")
    step.finish()
    words = ["--storage", str(tmp_path / "s"), "--report-folder", str(tmp_path / "RUN")]
    assert cli.main(["report", "mine", *words]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "mine" / "report.html")


def workflow(phase: str, *nodes: dict[str, Any]) -> dict[str, Any]:
    """Return a workflow as Argo 4.0 answers it, without what nobody reads."""
    full = [
        {"id": f"w-{number}", "name": f"w.{number}", "displayName": str(number), **node}
        for number, node in enumerate(nodes)
    ]
    status = {"phase": phase, "nodes": {node["id"]: node for node in full}}
    return {"metadata": {"name": "w"}, "status": status}


FAILED = {"type": "Pod", "phase": "Failed", "templateName": "preprocess"}
MISTAKE = FAILED | {
    "message": "main: Error (exit code 2): mrigan plan: --data: there is no folder x\n",
    "outputs": {"exitCode": "2"},
}


def test_a_mistake_ends_with_the_jobs_own_line() -> None:
    with pytest.raises(UserError, match=r"^w failed: mrigan plan: --data: there is no folder x$"):
        conclude(workflow("Failed", MISTAKE))


def test_another_failure_is_the_machines() -> None:
    with pytest.raises(MachineError, match=r"OOMKilled \(exit code 137\)"):
        conclude(
            workflow("Failed", FAILED | {"message": "main: OOMKilled (exit code 137)", "outputs": {"exitCode": "137"}})
        )
    with pytest.raises(MachineError, match=r"^w error: invalid spec"):
        found = workflow("Error")
        found["status"]["message"] = "invalid spec"
        conclude(found)


def test_a_failure_that_a_retry_made_up_for_is_none() -> None:
    retry = {"type": "Retry", "phase": "Succeeded", "children": ["w-1"], "templateName": "train-gan"}
    lost = FAILED | {"phase": "Error", "message": "pod deleted"}
    with pytest.raises(UserError) as caught:
        conclude(workflow("Failed", retry, lost, MISTAKE))
    assert "pod deleted" not in str(caught.value)
    conclude(workflow("Succeeded", retry, lost))


class Flaky:
    """A cluster whose server does not answer every time."""

    namespace = "n"

    def __init__(self, *answers: dict[str, Any] | None) -> None:
        self.answers = list(answers)

    def workflow(self, name: str) -> dict[str, Any]:
        """Return the next answer; None is none."""
        answer = self.answers.pop(0)
        if answer is None:
            raise MachineError("no answer from the cluster")
        return answer


def test_a_lost_watch_goes_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(submit, "POLL_SECONDS", 0)
    ended = workflow("Succeeded")
    assert watch(Flaky(workflow("Running"), None, None, ended), "w") == ended  # type: ignore[arg-type]
    assert capsys.readouterr().err.count("retrying") == 1
    monkeypatch.setattr(submit, "LOST_SECONDS", -1)
    with pytest.raises(MachineError, match="no answer"):
        watch(Flaky(None), "w")  # type: ignore[arg-type]

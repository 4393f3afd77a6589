"""What holds for the pods of every workflow file."""

from pathlib import Path

import pytest
import yaml

FILES = sorted((Path(__file__).parents[1] / "workflows").rglob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_pod_gets_the_variables_of_services(path: Path) -> None:
    spec = yaml.safe_load(path.read_text())["spec"]
    spec = spec.get("workflowSpec", spec)
    if spec.get("workflowTemplateRef") == {"name": "mrigan"}:
        assert "podSpecPatch" not in spec and "templates" not in spec, (
            "the WorkflowTemplate's pods are no longer its own"
        )
        return
    assert yaml.safe_load(spec["podSpecPatch"])["enableServiceLinks"] is False
    for template in spec["templates"]:
        assert "enableServiceLinks" not in template.get("podSpecPatch", "")

"""How large a Workflow becomes: beside one that was measured, and at the limit of Argo."""

import base64
import gzip
import json
from pathlib import Path

import pytest
import yaml

from jobs.argo import size
from jobs.plan import STAGES, stages
from tests.test_plan import plan

TEMPLATE = Path(__file__).parents[2] / "workflows" / "workflowtemplate.yaml"
# The workflow of tests/cluster: GANs of two classes, two regimes, two folds.
SMALL = {
    "folds": 2,
    "networks": ("mobilenetv2",),
    "regimes": ("synthetic", "real"),
    "seeds": 1,
    "controls": False,
    "gan_conditional": False,
    "phantoms": 16,
}
MANY = {"folds": 10, "seeds": 3, "controls": False}
CLASSES = [f"class-{number}" for number in range(20)]


def items(labels: list[str] | None = None, **settings: object) -> dict[str, list[str]]:
    return stages(plan(labels, **settings), {})


def test_the_estimate_is_near_a_workflow_that_was_measured() -> None:
    """tests/cluster on Argo 4.0.2, one pod of which was killed: 18 pods, nodes of 42 kB, 4.9 kB compressed."""
    found = size.of(items(**SMALL))
    assert found.pods == 17
    assert found.nodes * 18 / 17 == pytest.approx(42_000, rel=0.15)
    assert found.compressed * 18 / 17 == pytest.approx(4_900, rel=0.15)


def test_a_finished_run_has_one_pod() -> None:
    assert size.of({stage: [] for stage in ("folds", *STAGES)}).pods == 1


@pytest.mark.parametrize("conditional", [True, False])
def test_twenty_classes_ten_folds_two_networks_and_three_seeds_fit(conditional: bool) -> None:
    found = size.of(items(CLASSES, **MANY, gan_conditional=conditional))
    assert found.pods == 6 + 10 * (20 + (1 if conditional else 20) + 18) + 2
    assert found.fits and not size.advice(found)
    assert found.is_compressed != conditional
    assert f"{found.pods} pods" in size.words(found)


def test_a_plan_past_the_limit_is_told_what_to_do() -> None:
    found = size.of(items(CLASSES, **MANY | {"folds": 100, "seeds": 10}))
    assert found.compressed > size.LIMIT and not found.fits
    assert "fewer seeds" in size.advice(found) and "nodeStatusOffLoad" in size.advice(found)


def test_nodes_are_compressed_as_argo_reads_them() -> None:
    nodes = size.workflow_nodes(items(**SMALL))
    packed = size.compressed(json.dumps(nodes).encode())
    assert json.loads(gzip.decompress(base64.b64decode(packed))) == nodes


def test_every_child_is_a_node() -> None:
    """But for the one after a pod, of which only the size matters."""
    nodes = size.workflow_nodes(items(**SMALL))
    for node in nodes.values():
        found = [*node.get("children", ())[: 1 if node["type"] == "Retry" else None], *node.get("outboundNodes", ())]
        assert set(found) <= nodes.keys(), node["name"]
    assert len({node["name"] for node in nodes.values()}) == len(nodes)


def test_the_rest_has_room_for_the_template() -> None:
    spec = yaml.safe_load(TEMPLATE.read_text())["spec"]
    assert 1.2 < size.REST / len(json.dumps(spec, separators=(",", ":"))) < 2

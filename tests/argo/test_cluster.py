"""What is refused before a server is asked, and what a server's answer is unpacked from."""

import base64
import gzip
import json
from pathlib import Path

import pytest

from jobs.argo.cluster import _unpacked, connect
from jobs.common.errors import UserError


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the caller's cluster out of the tests."""
    for name in ("ARGO_SERVER", "ARGO_TOKEN", "ARGO_NAMESPACE", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("text", [None, "", "a: [", "- a list"])
def test_a_kubeconfig_that_is_none_is_a_mistake(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kubeconfig"
    if text is not None:
        path.write_text(text)
    # The client keeps the default path that it saw when it was imported.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    with pytest.raises(UserError, match="no cluster: set KUBECONFIG, or ARGO_SERVER"):
        connect("")


def test_an_argo_server_needs_no_kubeconfig_but_a_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    monkeypatch.setenv("ARGO_SERVER", "localhost:2746")
    assert connect("").namespace == "default"
    monkeypatch.setenv("ARGO_NAMESPACE", "brains")
    assert connect("").namespace == "brains"
    assert connect("other").namespace == "other"
    monkeypatch.setenv("ARGO_SERVER", "https://localhost:2746")
    with pytest.raises(UserError, match="ARGO_SERVER must be host:port"):
        connect("")


def test_nodes_that_the_controller_packed_are_seen() -> None:
    nodes = {"w-1": {"id": "w-1", "type": "Pod"}}
    packed = base64.b64encode(gzip.compress(json.dumps(nodes).encode())).decode()
    assert _unpacked({"status": {"compressedNodes": packed}})["status"]["nodes"] == nodes
    assert _unpacked({"metadata": {}}) == {"metadata": {}}

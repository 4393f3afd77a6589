"""Workflows in a cluster, through the Kubernetes API or, with ARGO_SERVER set, through the Argo server.

Objects are the dicts of the servers' responses. Both clients use the configuration of the usual command line tools: a
kubeconfig or a pod's service account; ARGO_SERVER, ARGO_TOKEN, ARGO_SECURE, ARGO_BASE_HREF, ARGO_INSECURE_SKIP_VERIFY
and ARGO_NAMESPACE.
"""

import base64
import gzip
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import argo_workflows
import urllib3
import yaml
from kubernetes import client, config

from jobs.common.errors import MachineError, UserError

GROUP, VERSION = "argoproj.io", "v1alpha1"
SECONDS = 30  # timeout of a request
POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

Json = dict[str, Any]


class Cluster(Protocol):
    """The interface of both clients.

    Methods raise UserError if the caller has no permission or the object does not exist, MachineError if the server
    fails.
    """

    namespace: str

    def template(self, name: str) -> Json:
        """Return the WorkflowTemplate."""

    def create(self, workflow: Json) -> Json:
        """Create the Workflow and return it with its name."""

    def workflow(self, name: str) -> Json:
        """Return the Workflow."""

    def workflows(self) -> list[Json]:
        """Return the namespace's Workflows."""

    def pod(self, name: str) -> Json | None:
        """Return the Pod, None if it no longer exists or this client cannot read pods."""


def connect(namespace: str) -> Cluster:
    """Return the cluster that the environment specifies; if `namespace` is empty, the environment's namespace is used.

    Raises UserError if the environment specifies no cluster.
    """
    namespace = namespace or os.environ.get("ARGO_NAMESPACE", "")
    there: Cluster = ArgoServer(namespace) if os.environ.get("ARGO_SERVER") else KubernetesApi(namespace)
    # urllib3 would log every attempt before the final error. The clients set this level when they are created.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    return there


class KubernetesApi(Cluster):
    """The Kubernetes API, with a kubeconfig, or in a pod with its service account."""

    def __init__(self, namespace: str) -> None:
        try:
            if _in_pod():
                config.load_incluster_config()
            else:
                config.load_kube_config()
            self.namespace = namespace or _own_namespace()
        except (config.ConfigException, OSError, TypeError, ValueError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"no cluster: set KUBECONFIG, or ARGO_SERVER for an Argo server ({reason}). "
                "For a run on one machine, use mrigan plan"
            ) from error
        self._objects = client.CustomObjectsApi()
        self._core = client.CoreV1Api()

    def template(self, name: str) -> Json:
        return self._get("workflowtemplates", name)

    def create(self, workflow: Json) -> Json:
        return self._request("create workflows", self._objects.create_namespaced_custom_object, "workflows", workflow)

    def workflow(self, name: str) -> Json:
        return _unpacked(self._get("workflows", name))

    def workflows(self) -> list[Json]:
        return self._request("list workflows", self._objects.list_namespaced_custom_object, "workflows")["items"]

    def pod(self, name: str) -> Json | None:
        try:
            found = _call(
                lambda: self._core.read_namespaced_pod(name, self.namespace, _request_timeout=SECONDS),
                f"get pod {name} in {self.namespace}",
            )
        except UserError:
            return None
        return self._core.api_client.sanitize_for_serialization(found)

    def _get(self, plural: str, name: str) -> Json:
        return self._request(f"get {plural} {name}", self._objects.get_namespaced_custom_object, plural, name)

    def _request(self, what: str, method: Callable[..., Any], *arguments: Any) -> Any:
        where = (GROUP, VERSION, self.namespace)
        return _call(lambda: method(*where, *arguments, _request_timeout=SECONDS), f"{what} in {self.namespace}")


class ArgoServer(Cluster):
    """The Argo server, for users who cannot reach the Kubernetes API."""

    def __init__(self, namespace: str) -> None:
        if "://" in os.environ["ARGO_SERVER"]:
            raise UserError("ARGO_SERVER must be host:port, without http:// or https://")
        self.namespace = namespace or _namespace_of_kubeconfig()
        secure = os.environ.get("ARGO_SECURE", "true").lower() != "false"
        base = os.environ.get("ARGO_BASE_HREF", "").strip("/")
        host = f"{'https' if secure else 'http'}://{os.environ['ARGO_SERVER']}{'/' + base if base else ''}"
        configuration = argo_workflows.Configuration(host=host)
        configuration.ssl_ca_cert = os.environ.get("SSL_CERT_FILE") or os.environ.get("REQUESTS_CA_BUNDLE")
        configuration.verify_ssl = os.environ.get("ARGO_INSECURE_SKIP_VERIFY", "false").lower() != "true"
        if not configuration.verify_ssl:
            # The user has set the variable deliberately; the warning would repeat for every request.
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        token = os.environ.get("ARGO_TOKEN", "")
        configuration.api_key = {"BearerToken": token}
        # A server without authentication needs no token, and the client cannot send an empty one.
        self._authentication = ["BearerToken"] if token else []
        self._client = argo_workflows.ApiClient(configuration)

    def template(self, name: str) -> Json:
        place = f"workflow-templates/{self.namespace}/{quote(name, '')}"
        return self._request("GET", place, f"get workflowtemplates {name}")

    def create(self, workflow: Json) -> Json:
        return self._request("POST", f"workflows/{self.namespace}", "create workflows", {"workflow": workflow})

    def workflow(self, name: str) -> Json:
        return self._request("GET", f"workflows/{self.namespace}/{quote(name, '')}", f"get workflows {name}")

    def workflows(self) -> list[Json]:
        return self._request("GET", f"workflows/{self.namespace}", "list workflows").get("items") or []

    def pod(self, name: str) -> Json | None:
        return None

    def _request(self, method: str, path: str, what: str, body: Json | None = None) -> Json:
        # The client's models are for an older Argo, and would reject unknown fields.
        answer = _call(
            lambda: self._client.call_api(
                f"/api/v1/{path}",
                method,
                header_params={"Accept": "application/json", "Content-Type": "application/json"},
                body=body,
                auth_settings=self._authentication,
                _preload_content=False,
                _return_http_data_only=True,
                _request_timeout=SECONDS,
            ),
            f"{what} in {self.namespace}",
        )
        try:
            return json.loads(answer.data)
        except ValueError:
            # For an unknown path, the server returns its web page.
            raise UserError(
                f"cannot {what} in {self.namespace}: this is not an Argo API: check ARGO_SERVER and ARGO_BASE_HREF"
            ) from None


def _in_pod() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ


def _own_namespace() -> str:
    """Return the namespace of this pod, or of the kubeconfig's context."""
    if _in_pod():
        return POD_NAMESPACE.read_text().strip()
    return config.list_kube_config_contexts()[1]["context"].get("namespace", "default")


def _namespace_of_kubeconfig() -> str:
    """Return the namespace of this pod or of the kubeconfig, or `default`: the Argo server needs no kubeconfig."""
    try:
        return _own_namespace()
    except (config.ConfigException, OSError, TypeError, ValueError, yaml.YAMLError):
        return "default"


def _unpacked(workflow: Json) -> Json:
    """Return a Workflow with its nodes, which the controller compresses if the object would be too large for etcd."""
    packed = workflow.get("status", {}).get("compressedNodes")
    if packed:
        workflow["status"]["nodes"] = json.loads(gzip.decompress(base64.b64decode(packed)))
    return workflow


def _call(request: Callable[[], Any], what: str) -> Any:
    """Return the result of `request`, or raise the error for its failure; `what` describes it: `get pod x in y`."""
    try:
        return request()
    except (client.ApiException, argo_workflows.ApiException) as error:
        reason = _reason(error)
        if error.status == 401:
            advice = 'check the kubeconfig\'s user or ARGO_TOKEN="Bearer …"'
            raise UserError(f"the cluster rejects the credentials: {advice} ({reason})") from error
        if error.status == 403:
            raise UserError(f"no permission to {what}: ask for a role with this permission ({reason})") from error
        if error.status == 404 and what.startswith("get workflowtemplates "):
            name, _, namespace = what.removeprefix("get workflowtemplates ").partition(" in ")
            raise UserError(
                f"there is no WorkflowTemplate {name} in namespace {namespace}: install it with Helm, or use another "
                f"with --template or --namespace ({reason})"
            ) from error
        if error.status == 404:
            raise UserError(f"cannot {what}: there is none ({reason})") from error
        if error.status in (400, 422):
            raise UserError(f"cannot {what}: {reason}") from error
        raise MachineError(f"cannot {what}: the server responds with status {error.status}: {reason}") from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        cause = getattr(error, "reason", None) or error
        reason = " ".join(str(cause).split())
        if isinstance(cause, urllib3.exceptions.SSLError):
            raise UserError(
                f"cannot {what}: {reason}: specify the file of the server's certificate authority, in SSL_CERT_FILE "
                "for an Argo server, in the kubeconfig for Kubernetes"
            ) from error
        raise MachineError(
            f"cannot {what}: no response from the cluster: {reason}: check its address and the network"
        ) from error


def _reason(error: Any) -> str:
    """Return the server's message, on one line."""
    try:
        message = json.loads(error.body).get("message")
    except (TypeError, ValueError, AttributeError):
        message = ""
    return " ".join(str(message or error.reason).split())

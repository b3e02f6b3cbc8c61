"""A real API server accepts everything that is rendered, under strict validation."""

import json
from pathlib import Path

import pytest

from tests.rendering.scene import everything

from .kubectl import kubectl

pytestmark = pytest.mark.apiserver


@pytest.mark.parametrize("name", sorted(everything()))
def test_a_rendered_object_is_accepted_as_it_is(name: str, kubeconfig: Path, namespace: str) -> None:
    body = everything()[name]
    body["metadata"]["namespace"] = namespace
    for subject in body.get("subjects", []):
        subject["namespace"] = namespace
    kubectl("apply", "--server-side", "--validate=strict", "-f", "-", kubeconfig=kubeconfig, text=json.dumps(body))
    stored = json.loads(kubectl("get", body["kind"], body["metadata"]["name"], "-n", namespace, "-o", "json", kubeconfig=kubeconfig))
    assert stored["metadata"]["labels"] == body["metadata"]["labels"]
    if body["kind"] == "ConfigMap":
        assert stored["data"] == body["data"]


@pytest.mark.parametrize("name", ["deployment", "deployment-with-mounts", "probe", "trickle", "workload-deployment", "workload-probe"])
def test_pods_pass_the_restricted_pod_security_standard(name: str, kubeconfig: Path, namespace: str) -> None:
    label = "pod-security.kubernetes.io/enforce=restricted"
    kubectl("label", "namespace", namespace, label, kubeconfig=kubeconfig)
    template = everything()[name]["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"] | {"name": name}, "spec": template["spec"]}
    assert "created" in kubectl("create", "-n", namespace, "-f", "-", kubeconfig=kubeconfig, text=json.dumps(pod))

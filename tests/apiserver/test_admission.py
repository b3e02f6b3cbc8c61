"""What a real API server accepts and refuses, and in which words: the table of tests/crds."""

import json
from pathlib import Path

import pytest
import yaml

from backstop.api.fallbackpolicy import FallbackPolicySpec
from backstop.api.problems import InputError, parse_strictly
from tests.crds.manifests import SPECS, Manifest, invalid, valid

from .kubectl import Refused, kubectl

pytestmark = pytest.mark.apiserver

SAMPLES = sorted((Path(__file__).parents[2] / "manifests" / "samples").rglob("*.yaml"))


def apply(document: object, *, kubeconfig: Path, namespace: str) -> str:
    return kubectl("apply", "--validate=strict", "-n", namespace, "-f", "-", kubeconfig=kubeconfig, text=yaml.safe_dump(document))


def create(document: object, *, kubeconfig: Path, namespace: str) -> str:
    """What is stored, as JSON. Nulls reach the API server, whereas `kubectl apply` drops them by itself."""
    return kubectl(
        "create", "--validate=strict", "-o", "json", "-n", namespace, "-f", "-", kubeconfig=kubeconfig, text=yaml.safe_dump(document)
    )


@pytest.mark.parametrize("manifest", valid(), ids=lambda m: m.name)
def test_a_valid_manifest_is_accepted(manifest: Manifest, kubeconfig: Path, namespace: str) -> None:
    for document in manifest.documents:
        assert document["metadata"]["name"] in apply(document, kubeconfig=kubeconfig, namespace=namespace)


@pytest.mark.parametrize("manifest", invalid(), ids=lambda m: m.name)
def test_a08_an_invalid_manifest_is_refused_in_one_sentence_that_names_the_field(
    manifest: Manifest, kubeconfig: Path, namespace: str
) -> None:
    *before, last = manifest.documents
    for document in before:
        apply(document, kubeconfig=kubeconfig, namespace=namespace)
    with pytest.raises(Refused) as refused:
        apply(last, kubeconfig=kubeconfig, namespace=namespace)
    assert manifest.expected in str(refused.value)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_a_sample_is_accepted_as_it_is(sample: Path, kubeconfig: Path, namespace: str) -> None:
    text = sample.read_text(encoding="utf-8")
    kubectl("apply", "--validate=strict", "-n", namespace, "-f", "-", kubeconfig=kubeconfig, text=text)
    kinds = {document["kind"] for document in yaml.safe_load_all(text)}
    assert kinds & SPECS.keys()


def test_there_is_a_sample_of_every_kind() -> None:
    assert {d["kind"] for sample in SAMPLES for d in yaml.safe_load_all(sample.read_text(encoding="utf-8"))} >= SPECS.keys()


def test_what_is_stored_is_what_the_models_fill_in(kubeconfig: Path, namespace: str) -> None:
    (least,) = (manifest for manifest in valid() if manifest.name == "policy-least")
    (document,) = least.documents
    apply(document, kubeconfig=kubeconfig, namespace=namespace)
    stored = json.loads(kubectl("get", "fbp", document["metadata"]["name"], "-n", namespace, "-o", "json", kubeconfig=kubeconfig))
    assert FallbackPolicySpec.model_validate(stored["spec"]) == FallbackPolicySpec.model_validate(document["spec"])
    assert stored["spec"]["canary"]["steps"][-1] == {"weight": 100, "holdSeconds": 60, "approval": False}


@pytest.mark.parametrize("manifest", [m for m in valid() if "null" in m.name], ids=lambda m: m.name)
def test_a_field_that_is_null_is_stored_as_one_that_is_not_set(manifest: Manifest, kubeconfig: Path, namespace: str) -> None:
    (document,) = manifest.documents
    stored = json.loads(create(document, kubeconfig=kubeconfig, namespace=namespace))
    model = SPECS[document["kind"]]
    assert model.model_validate(stored["spec"]) == parse_strictly(model, document["spec"], prefix="spec")


def test_an_unknown_field_is_refused_although_it_is_null(kubeconfig: Path, namespace: str) -> None:
    (least,) = (manifest for manifest in valid() if manifest.name == "policy-least")
    document = least.documents[0] | {"spec": least.documents[0]["spec"] | {"fallbacks": None}}
    with pytest.raises(Refused, match=r'unknown field "spec\.fallbacks"'):
        create(document, kubeconfig=kubeconfig, namespace=namespace)
    with pytest.raises(InputError, match=r"`spec\.fallbacks` is not a known field"):
        parse_strictly(FallbackPolicySpec, document["spec"], prefix="spec")


def test_status_is_apart_from_spec(kubeconfig: Path, namespace: str) -> None:
    (least,) = (manifest for manifest in valid() if manifest.name == "policy-least")
    apply(least.documents[0] | {"status": {"phase": "Mine"}}, kubeconfig=kubeconfig, namespace=namespace)
    stored = json.loads(kubectl("get", "fbp", "support", "-n", namespace, "-o", "json", kubeconfig=kubeconfig))
    assert stored["status"] == {"observedGeneration": -1}


STATUS = {
    "phase": "Progressing",
    "reason": "Holding",
    "stable": {"revision": "0a1b2c3d4e", "promptVersion": "answer-1-0-0"},
    "canary": {"revision": "1a1b2c3d4e", "promptVersion": "answer-2-0-0", "step": 1, "weight": 25},
    "slos": [
        {"name": "latency", "state": "Healthy", "limit": "5"},
        {"name": "errors", "state": "Breaching", "limit": "1"},
    ],
    "decidingSLO": "errors",
    "router": "Builtin",
}


def test_the_columns_tell_a_rollout(kubeconfig: Path, namespace: str) -> None:
    (least,) = (manifest for manifest in valid() if manifest.name == "policy-least")
    apply(least.documents[0], kubeconfig=kubeconfig, namespace=namespace)
    patch = json.dumps({"status": STATUS})
    kubectl("patch", "fbp", "support", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch, kubeconfig=kubeconfig)
    head, row = kubectl("get", "fbp", "-n", namespace, kubeconfig=kubeconfig).splitlines()
    assert head.split() == ["NAME", "STABLE", "CANARY", "WEIGHT", "PHASE", "REASON", "AGE"]
    assert row.split()[:-1] == ["support", "answer-1-0-0", "answer-2-0-0", "25", "Progressing", "Holding"]
    head, row = kubectl("get", "fbp", "-n", namespace, "-o", "wide", kubeconfig=kubeconfig).splitlines()
    assert head.split() == ["NAME", "STABLE", "CANARY", "WEIGHT", "PHASE", "REASON", "STEP", "SLO", "ROUTER", "AGE"]
    assert row.split()[-4:-1] == ["1", "errors", "Builtin"]


def test_every_field_is_explained(kubeconfig: Path, namespace: str) -> None:
    explained = kubectl("explain", "fallbackpolicy.spec.canary.steps", "--recursive", kubeconfig=kubeconfig)
    assert "The weights in order" in explained
    assert "<no description>" not in explained


def test_a_prompt_of_a_megabyte_is_checked_and_stays_immutable(kubeconfig: Path, namespace: str) -> None:
    def prompt(last: str) -> dict[str, object]:
        content = [{"role": "user", "content": "x" * 250_000} for _ in range(4)] + [{"role": "user", "content": last}]
        spec = {"prompt": "long", "version": "1.0.0", "messages": content}
        return {"apiVersion": "backstop.dev/v1alpha1", "kind": "PromptVersion", "metadata": {"name": "long"}, "spec": spec}

    def create(body: object, *, verb: str) -> str:
        return kubectl(verb, "--validate=strict", "-n", namespace, "-f", "-", kubeconfig=kubeconfig, text=json.dumps(body))

    create(prompt("a"), verb="create")
    create(prompt("a"), verb="replace")
    with pytest.raises(Refused, match="`spec` is immutable"):
        create(prompt("b"), verb="replace")

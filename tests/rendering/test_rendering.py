"""What is rendered, against files that were read by people, and against what the gateway and the API ask for.

`python -m tests.rendering.golden` writes the files anew; the difference is for review.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from backstop.api import traffic as contract
from backstop.api.fallbackpolicy import FallbackPolicySpec
from backstop.api.gatewayvariable import GatewayVariable
from backstop.api.names import RECORD_KEY, TEMPLATE_KEY
from backstop.api.podtemplate import PodTemplate
from backstop.api.probe import Probe
from backstop.api.problems import parse_strictly
from backstop.api.promptversion import PromptVersionSpec
from backstop.api.record import RevisionRecord, build_record
from backstop.gateway.manifests import read_record
from backstop.rendering.pod import DRAIN_SECONDS
from backstop.rendering.probe import probe_object
from backstop.rendering.revision import RevisionTooLarge, deployment, template_of
from backstop.rendering.services import caller_services
from tests.rendering.scene import IMAGE, OWNER, POD_TEMPLATE, POLICY, PROMPT, TOLD, everything, record, revision_of

GOLDEN = Path(__file__).parent / "golden"


def changed(**fields: Any) -> FallbackPolicySpec:
    return FallbackPolicySpec.model_validate(POLICY.model_dump(exclude_unset=True) | fields)


def pod_of(body: dict[str, Any]) -> Any:
    return template_of(body)["spec"]


@pytest.mark.parametrize("name", sorted(everything()))
def test_an_object_is_rendered_as_its_golden_file_says(name: str) -> None:
    assert everything()[name] == yaml.safe_load((GOLDEN / f"{name}.yaml").read_text(encoding="utf-8"))


def test_there_is_no_golden_file_of_nothing() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(everything())


@pytest.mark.parametrize("name", sorted(everything()))
def test_every_object_is_owned_labelled_and_in_the_policys_namespace(name: str) -> None:
    metadata = everything()[name]["metadata"]
    assert metadata["namespace"] == OWNER.namespace
    assert metadata["labels"].items() >= {"app.kubernetes.io/managed-by": "backstop", "backstop.dev/policy": OWNER.name}.items()
    (owner,) = metadata["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == ("FallbackPolicy", OWNER.name, OWNER.uid, True)


def test_the_gateway_reads_back_the_record_that_was_built() -> None:
    stored = json.loads(record()["data"][RECORD_KEY])
    built = build_record(namespace=OWNER.namespace, name=OWNER.name, policy=POLICY, prompt=PROMPT)
    assert parse_strictly(RevisionRecord, stored, prefix="") == built
    assert stored["scheme"] == built.scheme


@pytest.mark.parametrize("content", ["\x7f\x85\ufffe", "🙂 \u2028", '"\\n" {{', "- a: [b\n\tc"], ids=["control", "wide", "quotes", "yaml"])
def test_the_gateway_reads_back_any_text_that_a_prompt_may_hold(content: str, tmp_path: Path) -> None:
    messages = [{"role": "system", "content": content}]
    prompt = PromptVersionSpec.model_validate({"prompt": "odd", "version": "1.0.0", "messages": messages})
    (tmp_path / RECORD_KEY).write_text(record(prompt=prompt)["data"][RECORD_KEY], encoding="utf-8")
    assert read_record(tmp_path / RECORD_KEY).prompt == prompt


def test_a_record_leaves_out_defaults_so_that_an_older_gateway_reads_it() -> None:
    stored = json.loads(record()["data"][RECORD_KEY])
    assert stored["chain"][1]["timeouts"] == {"firstTokenMilliseconds": 150, "totalSeconds": 30}


def test_a_deployment_is_made_from_the_stored_template_whatever_would_be_rendered_today() -> None:
    stored = record()
    stored["data"][TEMPLATE_KEY] = json.dumps({"metadata": {"labels": {"x": "y"}}, "spec": {"containers": []}})
    body = deployment(OWNER, revision=revision_of(stored), template=template_of(stored))
    assert body["spec"]["template"] == {"metadata": {"labels": {"x": "y"}}, "spec": {"containers": []}}


def test_a_new_default_image_or_size_changes_no_revision() -> None:
    assert revision_of(record(image="registry.example/backstop:2.0.0")) == revision_of(record())
    assert revision_of(record(changed(serving={"replicas": 9}))) == revision_of(record())


def test_who_answers_for_a_policy_and_how_many_reports_are_kept_changes_no_revision() -> None:
    assert revision_of(record(changed(owner={"team": "ml-platform"}, rollback={"reportHistoryLimit": 3}))) == revision_of(record())


def test_secrets_for_pulling_are_named_in_the_pods_and_change_no_revision() -> None:
    secured = record(pull_secrets=("registry", "mirror"))
    assert pod_of(secured)["imagePullSecrets"] == [{"name": "registry"}, {"name": "mirror"}]
    assert "imagePullSecrets" not in pod_of(record())
    assert revision_of(secured) == revision_of(record())
    assert secured["data"][RECORD_KEY] == record()["data"][RECORD_KEY]


def test_variables_of_the_policy_come_before_those_of_the_installation_and_are_part_of_the_revision() -> None:
    headers = {"name": "OTEL_EXPORTER_OTLP_HEADERS", "secretKeyRef": {"name": "collector", "key": "headers"}}
    of_installation = [
        GatewayVariable(name="OTEL_EXPORTER_OTLP_ENDPOINT", value="http://$(NODE_IP):4318"),
        GatewayVariable(name="OTEL_TRACES_SAMPLER", value="always_off"),
    ]
    own = changed(serving={"env": [{"name": "OTEL_TRACES_SAMPLER", "value": "parentbased_always_on"}, headers]})
    rendered = record(own, variables=of_installation)
    node, *declared = pod_of(rendered)["containers"][0]["env"][-4:]
    assert node == {"name": "NODE_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}, "what refers to it stands behind it"
    assert declared == [
        {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://$(NODE_IP):4318"},
        {"name": "OTEL_TRACES_SAMPLER", "value": "parentbased_always_on"},
        {"name": "OTEL_EXPORTER_OTLP_HEADERS", "valueFrom": {"secretKeyRef": headers["secretKeyRef"]}},
    ]
    assert revision_of(rendered) == revision_of(record(own)) != revision_of(record())
    assert revision_of(record(variables=of_installation)) == revision_of(record())
    assert "NODE_IP" not in str(record())


def test_the_image_of_the_policy_comes_before_that_of_the_operator() -> None:
    (container,) = pod_of(record(changed(serving={"image": "mine:1"})))["containers"]
    assert container["image"] == "mine:1"
    assert pod_of(record())["containers"][0]["image"] == IMAGE


def test_keys_of_scorers_and_of_feedback_reach_the_environment_alone() -> None:
    scorer = {"name": "judge", "type": "HTTP", "http": {"url": "http://judge", "apiKeyRef": {"name": "judge", "key": "token"}}}
    quality = {"scorers": [{"name": "words", "type": "Lexical"}, scorer]}
    rendered = record(changed(quality=quality, feedback={"keyRef": {"name": "feedback", "key": "keys"}}))
    given = {variable["name"]: variable.get("valueFrom") for variable in pod_of(rendered)["containers"][0]["env"]}
    assert given["BACKSTOP_SCORER_KEY_1"] == {"secretKeyRef": {"name": "judge", "key": "token"}}
    assert given["BACKSTOP_FEEDBACK_KEY"] == {"secretKeyRef": {"name": "feedback", "key": "keys"}}
    assert revision_of(rendered) != revision_of(record())


def test_an_api_key_reaches_only_the_environment_of_its_tier() -> None:
    keys = [variable for variable in pod_of(record())["containers"][0]["env"] if variable["name"].startswith("BACKSTOP_API_KEY")]
    assert keys == [{"name": "BACKSTOP_API_KEY_0", "valueFrom": {"secretKeyRef": {"name": "llm-keys", "key": "primary"}}}]


def test_headers_of_a_target_reach_the_environment_alone() -> None:
    first, *others = (t.model_dump(mode="json", exclude_defaults=True) for t in POLICY.chain)
    first["model"]["headersFrom"] = [{"header": name, "secretRef": {"name": "llm", "key": name}} for name in ("api-key", "project")]
    given = {v["name"]: v.get("valueFrom") for v in pod_of(record(changed(chain=[first, *others])))["containers"][0]["env"]}
    assert given["BACKSTOP_HEADER_0_0"] == {"secretKeyRef": {"name": "llm", "key": "api-key"}}
    assert given["BACKSTOP_HEADER_0_1"] == {"secretKeyRef": {"name": "llm", "key": "project"}}


def test_the_address_of_a_shared_cache_reaches_the_gateways_from_its_secret_alone() -> None:
    redis = {"addressRef": {"name": "answers", "key": "url"}}
    chain = [t.model_dump(mode="json", exclude_defaults=True) for t in POLICY.chain]
    shared = {"name": "kept", "cache": {"hot": {}, "warm": {"redis": redis}}}
    rendered = record(changed(latencyBudgetMilliseconds=1000, chain=[chain[0], shared, *chain[1:]]))
    given = {variable["name"]: variable.get("valueFrom") for variable in pod_of(rendered)["containers"][0]["env"]}
    assert given["BACKSTOP_REDIS_ADDRESS_1"] == {"secretKeyRef": {"name": "answers", "key": "url"}}
    assert given["BACKSTOP_API_KEY_0"] == {"secretKeyRef": {"name": "llm-keys", "key": "primary"}}


def test_callers_keys_are_mounted_where_the_policy_asks_for_them_and_are_a_revision_of_their_own() -> None:
    rendered = record(changed(access={"callerKeysRef": {"name": "callers"}}))
    pod = pod_of(rendered)
    (container,) = pod["containers"]
    assert {"name": "callers", "secret": {"secretName": "callers"}} in pod["volumes"]
    assert {"name": "callers", "mountPath": "/etc/backstop-callers", "readOnly": True} in container["volumeMounts"]
    assert container["args"][-2:] == ["--callers", "/etc/backstop-callers"]
    without = pod_of(record(changed(access={"tenantHeader": "x-tenant"})))
    assert [volume["name"] for volume in without["volumes"]] == ["record"]
    assert "--callers" not in without["containers"][0]["args"]
    assert len({revision_of(body) for body in (rendered, record(), record(changed(access={"tenantHeader": "x-tenant"})))}) == 3


@pytest.mark.parametrize("claim", [None, "answers"])
def test_a_cold_cache_has_a_volume_of_each_pod_or_the_claim_that_is_named(claim: str | None) -> None:
    volume = {"volume": {"claimName": claim}} if claim else {}
    chain = [t.model_dump(mode="json", exclude_defaults=True) for t in POLICY.chain]
    kept = {"name": "kept", "cache": {"hot": {}, "cold": {"maxMebibytes": 100, **volume}}}
    pod = pod_of(record(changed(latencyBudgetMilliseconds=1000, chain=[chain[0], kept, *chain[1:]])))
    (container,) = pod["containers"]
    source = {"persistentVolumeClaim": {"claimName": "answers"}} if claim else {"emptyDir": {"sizeLimit": "132Mi"}}
    assert {"name": "answers", **source} in pod["volumes"]
    assert {"name": "answers", "mountPath": "/var/cache/backstop"} in container["volumeMounts"]
    assert container["args"][-2:] == ["--cache-folder", "/var/cache/backstop"]
    assert pod["securityContext"].get("fsGroup") == (65532 if claim else None), "a claim's files are root's otherwise"


@pytest.mark.parametrize("claim", [None, "tickets"])
def test_a_tier_of_people_has_a_volume_of_each_pod_or_the_claim_that_is_named_and_its_secret(claim: str | None) -> None:
    volume = {"volume": {"claimName": claim}} if claim else {}
    chain = [t.model_dump(mode="json", exclude_defaults=True) for t in POLICY.chain]
    hook = {"url": "https://desk.example/", "secretRef": {"name": "desk", "key": "secret"}}
    people = {"name": "people", "human": {"webhook": hook, "acknowledgement": "See {{ticket}}.", "queueLimit": 8, **volume}}
    pod = pod_of(record(changed(chain=[chain[0], people, *chain[1:]])))
    (container,) = pod["containers"]
    source = {"persistentVolumeClaim": {"claimName": "tickets"}} if claim else {"emptyDir": {"sizeLimit": f"{33 * 1024}Ki"}}
    assert {"name": "tickets", **source} in pod["volumes"]
    assert {"name": "tickets", "mountPath": "/var/lib/backstop"} in container["volumeMounts"]
    assert container["args"][-2:] == ["--tickets-folder", "/var/lib/backstop"]
    secret = {"secretKeyRef": {"name": "desk", "key": "secret"}}
    assert {"name": "BACKSTOP_WEBHOOK_SECRET_1", "valueFrom": secret} in container["env"]
    assert pod["securityContext"].get("fsGroup") == (65532 if claim else None), "a claim's files are root's otherwise"


def test_a_probe_beside_callers_has_a_callers_key() -> None:
    probe = Probe.model_validate(
        {"name": "synthetic", "when": "DuringTraffic", "requestsPerSecond": 2, "apiKeyRef": {"name": "callers", "key": "probe"}}
    )
    job = probe_object(OWNER, revision="7f9c0a1b2c", prompt_version="answer-1", rollout="now", probe=probe, image=IMAGE, pull_secrets=())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert {"name": "BACKSTOP_REQUEST_KEY", "valueFrom": {"secretKeyRef": {"name": "callers", "key": "probe"}}} in container["env"]


def test_a_pod_is_killed_only_after_the_longest_answer_it_may_have_accepted_while_draining() -> None:
    pod = pod_of(record())
    arguments = pod["containers"][0]["args"]
    assert arguments[arguments.index("--drain-seconds") + 1] == str(DRAIN_SECONDS)
    assert arguments[arguments.index("--grace-seconds") + 1] == str(pod["terminationGracePeriodSeconds"])
    # 60 s is the longest `totalSeconds` of the chain; 5 s before its end the gateway closes what still streams.
    assert pod["terminationGracePeriodSeconds"] - 5 >= DRAIN_SECONDS + 60


def test_a_policy_of_static_answers_ends_within_seconds() -> None:
    static = changed(chain=[{"name": "static", "static": {"default": "Closed."}}])
    assert pod_of(record(static))["terminationGracePeriodSeconds"] < 15


def test_what_an_author_adds_to_the_pods_is_in_their_template_and_takes_nothing_out_of_it() -> None:
    plain, template = template_of(record()), template_of(record(TOLD))
    spec = template["spec"]
    for field in ("nodeSelector", "tolerations", "affinity", "priorityClassName", "runtimeClassName"):
        assert spec.pop(field) == POD_TEMPLATE[field]
    assert [(s["topologyKey"], s["maxSkew"], s["whenUnsatisfiable"]) for s in spec["topologySpreadConstraints"]] == [
        ("topology.kubernetes.io/zone", 1, "DoNotSchedule"),
        ("kubernetes.io/hostname", 2, "ScheduleAnyway"),
    ]
    labels = template["metadata"]["labels"]
    assert all(s["labelSelector"]["matchLabels"].items() <= labels.items() for s in spec["topologySpreadConstraints"])
    assert POD_TEMPLATE["labels"].items() <= labels.items()
    assert POD_TEMPLATE["annotations"].items() <= template["metadata"]["annotations"].items()
    plain_labels = plain["metadata"]["labels"]
    assert plain_labels.keys() <= labels.keys()
    same = {"serviceAccountName", "securityContext", "terminationGracePeriodSeconds", "enableServiceLinks"}
    assert {field: spec[field] for field in same} == {field: plain["spec"][field] for field in same}
    (container,), (plain_container,) = spec["containers"], plain["spec"]["containers"]
    assert container["securityContext"] == plain_container["securityContext"]
    assert container["readinessProbe"] == plain_container["readinessProbe"]
    assert container["ports"] == plain_container["ports"]


def test_our_labels_and_annotations_win_even_where_a_policy_slipped_past_the_rules() -> None:
    plain = template_of(record())["metadata"]
    theirs = {name: dict.fromkeys(plain[name], "theirs") for name in ("labels", "annotations")}
    serving = POLICY.serving.model_copy(update={"podTemplate": PodTemplate().model_copy(update=theirs)})
    body = record(POLICY.model_copy(update={"serving": serving}))
    own = {"backstop.dev/revision": revision_of(body)}
    assert template_of(body)["metadata"] == plain | {"labels": plain["labels"] | own}


def test_a_pod_template_is_part_of_the_revision_and_an_autoscaler_is_not() -> None:
    assert revision_of(record(changed(serving={"podTemplate": {"labels": {"team": "shop"}}}))) != revision_of(record())
    assert revision_of(record(changed(serving={"autoscaling": {"maxReplicas": 9}}))) == revision_of(record())


def test_limits_that_are_not_set_are_not_rendered() -> None:
    (container,) = pod_of(record())["containers"]
    assert container["resources"] == {"requests": {"cpu": "100m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}}


def test_without_a_canary_its_service_selects_no_revision_there_can_be() -> None:
    *_, canary = caller_services(OWNER, serving="0a1b2c3d4e", canary=None)
    assert canary["spec"]["selector"]["backstop.dev/revision"] == "none"


def test_the_selector_of_a_deployment_selects_its_own_pods() -> None:
    spec = everything()["deployment"]["spec"]
    assert spec["template"]["metadata"]["labels"].items() >= spec["selector"]["matchLabels"].items()


def test_the_traffic_object_says_what_the_contract_reads() -> None:
    state = contract.parse(everything()["traffic"]["data"])
    assert (state.generation, state.stable, state.permille) == (3, "0a1b2c3d4e", 50)
    assert state.aborted is not None
    assert state.aborted.reason == "LatencyBreach"


def test_a_record_that_no_configmap_holds_is_refused_in_one_sentence() -> None:
    long = PromptVersionSpec.model_validate(
        {
            "prompt": "long",
            "version": "1.0.0",
            "messages": [{"role": "system", "content": "é" * 250_000}, {"role": "user", "content": "é" * 250_000}],
        }
    )
    with pytest.raises(
        RevisionTooLarge, match=r"^the revision of PromptVersion `support-answer-1-4-0` takes 9\d\d KiB, of which 900 KiB fit"
    ):
        record(prompt=long)


def test_a_record_holds_what_its_policy_refers_to_within_the_same_bound() -> None:
    static = {"default": "Later.", "knowledgeBaseRef": {"name": "kb", "key": "answers.yaml"}}
    policy = changed(chain=[{"name": "static", "static": static}])
    text = "entries:\n- {keywords: [a], answer: é}\n"
    body = record(policy, contents={"static": text})
    assert json.loads(body["data"]["revision.json"])["contents"] == {"static": text}
    with pytest.raises(RevisionTooLarge, match=r"or what `spec.chain` and `spec.quality` hold or refer to$"):
        record(policy, contents={"static": "é" * 450 * 1024})

"""The hash that names a revision: golden values, worked out from JSON that was written by hand."""

import hashlib
import json
from typing import Any

import pytest
from pydantic import ValidationError

from backstop.api.fallbackpolicy import FallbackPolicySpec
from backstop.api.promptversion import PromptVersionSpec
from backstop.api.record import RevisionRecord, build_record, references_of, revision_hash, secrets_of_record, short_image
from backstop.api.refs import SecretKeyRef

PROMPT = '{"messages":[{"content":"Be kind.","role":"system"}],"prompt":"answer","version":"1.0.0"}'
CHAIN = '[{"model":{"baseURL":"http://models:8000/v1","name":"m"},"name":"primary"}]'
SMALL = '{"model":{"baseURL":"http://models:8000/v1","name":"m"},"name":"small"}'
PLACED = '{"model":{"baseURL":"http://models:8000/v1","jurisdiction":"EU","name":"m"},"name":"primary"}'
RESIDENCY = '"residency":{"allowedJurisdictions":["EU"]},'
TELLING = '{"model":{"askUsage":true,"baseURL":"http://models:8000/v1","name":"m"},"name":"primary"}'
KEPT = '{"cache":{"hot":{},"warm":{"redis":{"addressRef":{"key":"url","name":"cache"}}}},"name":"kept"}'
RESOURCES = '{"limits":{"memory":"1Gi"}}'
POD_TEMPLATE = '{"labels":{"team":"shop"},"tolerations":[{"operator":"Exists"}]}'
BETWEEN = f'"latencyBudgetMilliseconds":400,"prompt":{PROMPT},"scheme":1'
IMAGE = "registry.example/backstop:1.2.3"


def spec(**serving: Any) -> dict[str, Any]:
    whole = {"promptVersion": "answer-1-0-0", "latencyBudgetMilliseconds": 400, "chain": json.loads(CHAIN)}
    return whole | ({"serving": serving} if serving else {})


def named(canonical: str) -> str:
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


GOLDEN = [
    (spec(), f'{{"chain":{CHAIN},{BETWEEN}}}'),
    (
        spec(image=IMAGE, resources=json.loads(RESOURCES)),
        f'{{"chain":{CHAIN},{BETWEEN},"serving":{{"image":"{IMAGE}","resources":{RESOURCES}}}}}',
    ),
    (
        spec() | {"chain": [*json.loads(CHAIN), {"name": "kept", "cache": {"hot": {"maxMebibytes": 32}, "staleIfErrorSeconds": 0}}]},
        f'{{"chain":[{CHAIN[1:-1]},{{"cache":{{"hot":{{}},"staleIfErrorSeconds":0}},"name":"kept"}}],{BETWEEN}}}',
    ),
    (
        spec() | {"chain": [{"name": "static", "static": {"default": "Later."}}]},
        f'{{"chain":[{{"name":"static","static":{{"default":"Later."}}}}],{BETWEEN}}}',
    ),
    (
        spec() | {"stream": {"onInterruption": "Fail", "holdBackMilliseconds": 50}},
        f'{{"chain":{CHAIN},{BETWEEN},"stream":{{"holdBackMilliseconds":50}}}}',
    ),
    (
        spec() | {"spend": {"periodDays": 30, "tokenAllowance": 5, "onExhausted": "HandOff"}, "chain": json.loads(f"[{TELLING},{KEPT}]")},
        f'{{"chain":[{TELLING},{KEPT}],{BETWEEN},"spend":{{"tokenAllowance":5}}}}',
    ),
    (
        spec() | {"chain": [json.loads(PLACED)], "residency": {"allowedJurisdictions": ["EU"], "tenants": []}},
        f'{{"chain":[{PLACED}],{BETWEEN.replace(chr(34) + "scheme", RESIDENCY + chr(34) + "scheme")}}}',
    ),
    (
        spec(podTemplate=json.loads(POD_TEMPLATE)),
        f'{{"chain":{CHAIN},{BETWEEN},"serving":{{"podTemplate":{POD_TEMPLATE}}}}}',
    ),
    (
        spec()
        | {"chain": [json.loads(CHAIN)[0] | {"timeouts": {"firstTokenMilliseconds": 90}, "hedgeAfterMilliseconds": 60}, json.loads(SMALL)]},
        f'{{"chain":[{{"hedgeAfterMilliseconds":60,{CHAIN[2:-2]},"timeouts":{{"firstTokenMilliseconds":90}}}},{SMALL}],{BETWEEN}}}',
    ),
    (
        spec() | {"chain": [json.loads(CHAIN)[0] | {"retries": 2, "circuitBreaker": {"openSeconds": 9, "minRequests": 20}}]},
        f'{{"chain":[{{"circuitBreaker":{{"openSeconds":9}},{CHAIN[2:-2]},"retries":2}}],{BETWEEN}}}',
    ),
]


def test_scorers_and_feedback_are_part_of_the_revision_and_their_secrets_reach_its_pods() -> None:
    quality = '{"samplePercent":50,"scorers":[{"http":{"apiKeyRef":{"key":"token","name":"judge"},"url":"http://judge"},"name":"j","type":"HTTP"}]}'
    feedback = '{"keyRef":{"key":"keys","name":"feedback"}}'
    declared = spec() | {"quality": json.loads(quality), "feedback": json.loads(feedback) | {"maxAgeSeconds": 86_400}}
    policy, prompt = FallbackPolicySpec.model_validate(declared), PromptVersionSpec.model_validate_json(PROMPT)
    built = build_record(namespace="shop", name="p", policy=policy, prompt=prompt)
    between = f'"latencyBudgetMilliseconds":400,"prompt":{PROMPT}'
    assert built.revision == named(f'{{"chain":{CHAIN},"feedback":{feedback},{between},"quality":{quality},"scheme":1}}')
    assert (built.quality, built.feedback) == (policy.quality, policy.feedback)
    assert secrets_of_record(built) == {
        "BACKSTOP_SCORER_KEY_0": SecretKeyRef(name="judge", key="token"),
        "BACKSTOP_FEEDBACK_KEY": SecretKeyRef(name="feedback", key="keys"),
    }


STATIC = '{"name":"static","static":{"default":"Later."}}'
EXACT = '{"name":"static","static":{"default":"Later.","match":"Exact"}}'


@pytest.mark.parametrize(("tier", "match"), [(STATIC, "Keyword"), (EXACT, "Exact")])
def test_c08_what_a_revision_refers_to_counts_by_its_content_and_not_by_its_name(tier: str, match: str) -> None:
    prompt = PromptVersionSpec.model_validate_json(PROMPT)
    digest = "sha256:" + hashlib.sha256(b"entries: []").hexdigest()
    for name in ("kb", "kb-7f9c"):
        static = {"default": "Later.", "knowledgeBaseRef": {"name": name, "key": "answers.yaml"}, "match": match}
        policy = FallbackPolicySpec.model_validate(spec() | {"chain": [{"name": "static", "static": static}]})
        canonical = f'{{"chain":[{tier}],"contents":{{"static":"{digest}"}},{BETWEEN}}}'
        assert revision_hash(policy, prompt=prompt, digests={"static": digest}) == named(canonical)
        built = build_record(namespace="shop", name="p", policy=policy, prompt=prompt, contents={"static": "entries: []"})
        assert (built.revision, built.contents) == (named(canonical), {"static": "entries: []"})


def test_authorities_count_by_their_content_and_not_by_the_name_of_what_holds_them() -> None:
    prompt = PromptVersionSpec.model_validate_json(PROMPT)
    secured = CHAIN.replace("http:", "https:")
    quality = '{"scorers":[{"http":{"url":"https://judge"},"name":"j","type":"HTTP"}]}'
    texts = {"primary": "of the model", "scorers/j": "of the scorer", "serving/traces": "of the collector"}
    digests = ",".join(f'"{name}":"sha256:{hashlib.sha256(text.encode()).hexdigest()}"' for name, text in texts.items())
    between = f'"contents":{{{digests}}},"latencyBudgetMilliseconds":400,"prompt":{PROMPT},"quality":{quality}'
    canonical = f'{{"chain":{secured},{between},"scheme":1}}'
    for name in ("authorities", "authorities-7f9c"):
        declared = spec() | {"chain": json.loads(secured), "quality": json.loads(quality)}
        declared["chain"][0]["model"]["caBundleRef"] = {"name": name, "key": "ca.crt"}
        declared["quality"]["scorers"][0]["http"]["caBundleRef"] = {"name": name, "key": "judge.crt"}
        declared["serving"] = {"traces": {"caBundleRef": {"name": name, "key": "collector.crt"}}}
        policy = FallbackPolicySpec.model_validate(declared)
        assert [reference.path for reference in references_of(policy).values()] == [
            "spec.chain[0].model.caBundleRef",
            "spec.quality.scorers[0].http.caBundleRef",
            "spec.serving.traces.caBundleRef",
        ]
        built = build_record(namespace="shop", name="p", policy=policy, prompt=prompt, contents=texts)
        assert (built.revision, built.contents) == (named(canonical), texts)


@pytest.mark.parametrize(("declared", "canonical"), GOLDEN)
def test_c07_a_revision_is_named_by_what_was_declared_and_by_nothing_that_a_newer_operator_adds(
    declared: dict[str, Any], canonical: str
) -> None:
    policy, prompt = FallbackPolicySpec.model_validate(declared), PromptVersionSpec.model_validate_json(PROMPT)
    assert revision_hash(policy, prompt=prompt) == named(canonical)
    stored = FallbackPolicySpec.model_validate(policy.model_dump(mode="json"))  # with every default filled in
    kept = PromptVersionSpec.model_validate(prompt.model_dump(mode="json"))
    assert revision_hash(stored, prompt=kept) == named(canonical)


OWN = {"serving": {"workload": {"image": "registry.example:5000/shop/w:1", "port": 8000}}}


@pytest.mark.parametrize(
    ("serving", "canonical"),
    [
        ({}, '{"scheme":1,"serving":{"workload":{"image":"registry.example:5000/shop/w:1","port":8000}}}'),
        (
            {"replicas": 9, "autoscaling": {"maxReplicas": 9}},
            '{"scheme":1,"serving":{"workload":{"image":"registry.example:5000/shop/w:1","port":8000}}}',
        ),
        (
            {"workload": {"image": "w:2", "port": 80, "args": ["-v"]}},
            '{"scheme":1,"serving":{"workload":{"args":["-v"],"image":"w:2","port":80}}}',
        ),
    ],
)
def test_c07_an_own_workload_is_named_by_what_was_declared_of_it(serving: dict[str, Any], canonical: str) -> None:
    policy = FallbackPolicySpec.model_validate({"serving": OWN["serving"] | serving})
    assert revision_hash(policy, prompt=None) == named(canonical)
    assert revision_hash(FallbackPolicySpec.model_validate(policy.model_dump(mode="json", exclude={"chain"})), prompt=None) == named(
        canonical
    )


@pytest.mark.parametrize(
    ("image", "short"),
    [
        ("w", "w"),
        ("registry.example:5000/shop/w:1.4", "w:1.4"),
        ("registry.example/w@sha256:0123456789abcdef0123", "w@sha256:0123456789ab"),
        ("registry.example/w:1@sha256:0123456789abcdef0123", "w:1@sha256:0123456789ab"),
    ],
)
def test_an_image_is_called_by_its_last_name(image: str, short: str) -> None:
    assert short_image(image) == short


@pytest.mark.parametrize(
    "changes",
    [
        {"serving": {"replicas": 9}},
        {"serving": {"autoscaling": {"maxReplicas": 9}}},
        {"serving": {"podTemplate": {}}},
        {"slos": [{"name": "errors", "indicator": "ErrorRate", "maxPercent": "1"}]},
        {"canary": {"steps": [{"weight": 100, "holdSeconds": 1}], "paused": True}},
        {"rollback": {"mode": "DryRun", "keepPreviousSeconds": 60}},
        {"metricsSource": "elsewhere"},
    ],
)
def test_c06_what_changes_no_answer_changes_no_revision(changes: dict[str, Any]) -> None:
    prompt = PromptVersionSpec.model_validate_json(PROMPT)
    assert revision_hash(FallbackPolicySpec.model_validate(spec() | changes), prompt=prompt) == named(GOLDEN[0][1])


def test_c07_a_price_is_no_part_of_a_revision_nor_of_its_record() -> None:
    prompt = PromptVersionSpec.model_validate_json(PROMPT)
    price = {"inputPerMillionTokens": "2.50", "outputPerMillionTokens": "10.00", "currency": "USD"}
    priced = FallbackPolicySpec.model_validate(spec() | {"chain": [json.loads(CHAIN)[0] | {"price": price}]})
    assert revision_hash(priced, prompt=prompt) == named(f'{{"chain":{CHAIN},{BETWEEN}}}')
    plain = FallbackPolicySpec.model_validate(spec())
    records = [build_record(namespace="shop", name="p", policy=policy, prompt=prompt) for policy in (priced, plain)]
    assert records[0] == records[1]
    assert priced.chain[0].price is not None, "the policy keeps it"


@pytest.mark.parametrize("bounds", ["[1.0, 0.1]", "[0.1, 0.1]", "[0.0, 0.1]", "[0.1, Infinity]", "[NaN, 0.1]"])
def test_bounds_by_which_requests_would_be_counted_wrong_are_refused(bounds: str) -> None:
    policy, prompt = FallbackPolicySpec.model_validate(spec()), PromptVersionSpec.model_validate_json(PROMPT)
    record = build_record(namespace="shop", name="p", policy=policy, prompt=prompt)
    text = json.dumps(record.model_dump(mode="json") | {"latencyBounds": json.loads(bounds)})
    with pytest.raises(ValidationError, match=r"latencyBounds\n.*must be finite, above 0 and rising, each above the one before"):
        RevisionRecord.model_validate_json(text)

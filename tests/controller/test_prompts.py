"""What a PromptVersion's status says, and what a policy can ask for."""

from collections.abc import Sequence
from typing import Any

import pytest

from backstop.api.fallbackpolicy import FallbackPolicySpec
from backstop.api.reasons import Reason
from backstop.controller import prompts
from backstop.controller.blocked import blocked_status
from backstop.controller.prompts import REJECTIONS_KEPT, digest_of, rejected_status, withdrawn_status
from backstop.controller.seen import Declared, declared
from backstop.controller.wanted import Wish, wish_of, without_spec
from backstop.controller.written import read_policy
from backstop.kube.resources import POLICIES, PROMPT_VERSIONS, Body, Resource
from backstop.rollout.observed import Known, Unresolved
from backstop.rollout.place import Revision
from backstop.rollout.verdict import Verdict
from backstop.traffic.router import GATEWAYS, REPLICAS, Router, router_of

from .world import policy_spec

SPEC = {"prompt": "support", "version": "1.0.0", "messages": [{"role": "system", "content": "Be kind."}]}
SOURCES = frozenset({"default"})


def declare(resource: Resource, *, spec: Body, status: Body | None = None, name: str = "v1") -> Declared:
    metadata = {"name": name, "namespace": "shop", "uid": "u", "resourceVersion": "1", "generation": 4}
    return declared({"metadata": metadata, "spec": spec, "status": status or {}}, resource=resource)


def prompt(spec: Body = SPEC, status: Body | None = None) -> Declared:
    return declare(PROMPT_VERSIONS, spec=spec, status=status)


def policy(**changes: Any) -> Declared:
    return declare(POLICIES, spec=policy_spec("v1") | changes, name="support")


def verdict(at: float = 1000.0) -> Verdict:
    return Verdict(Revision("abc", prompt_version="v1", prompt_digest="sha256:x"), reason="LatencyBreach", message="too slow", at=at)


def judged_status(of: Declared, *, now: float, older: Sequence[Declared] = (), users: Sequence[Declared] = ()) -> Body:
    return prompts.judged_status(of, older=older, users=users, now=now)


def said(status: Body, kind: str) -> tuple[str, str]:
    return next((c["status"], c["reason"]) for c in status["conditions"] if c["type"] == kind)


def test_a_valid_version_is_accepted_with_its_digest_and_judging_it_again_changes_nothing() -> None:
    first = judged_status(prompt(), now=1000.0)
    assert said(first, "Accepted") == ("True", "Accepted")
    assert first["digest"].startswith("sha256:")
    assert judged_status(prompt(status=first), now=2000.0) == first


def test_judging_a_rejected_version_again_changes_nothing() -> None:
    rejected = rejected_status(prompt(status=judged_status(prompt(), now=1000.0)), policy="support", verdict=verdict(), now=1100.0)
    assert judged_status(prompt(status=rejected), now=2000.0) == rejected


def test_a_template_that_does_not_compile_is_told_in_the_condition() -> None:
    broken = SPEC | {"messages": [{"role": "system", "content": "Hello {{who}}"}]}
    status = judged_status(prompt(broken), now=1000.0)
    assert said(status, "Accepted") == ("False", "TemplateInvalid")
    assert "digest" not in status


def test_a_version_that_says_no_digest_yet_is_known_by_what_it_says() -> None:
    assert digest_of(prompt()) == judged_status(prompt(), now=1000.0)["digest"]
    assert digest_of(prompt(status={"digest": "sha256:told"})) == "sha256:told"
    assert digest_of(prompt(SPEC | {"messages": [{"role": "system", "content": "Hello {{who}}"}]})) is None
    assert digest_of(prompt({"version": "1.0.0"})) is None


def test_a_rejection_is_written_once_and_survives_another_judging() -> None:
    first = rejected_status(prompt(), policy="support", verdict=verdict(), now=1000.0)
    assert said(first, "Rejected") == ("True", "RolledBack")
    assert rejected_status(prompt(status=first), policy="support", verdict=verdict(), now=2000.0) == first
    assert judged_status(prompt(status=first), now=3000.0)["rejections"] == first["rejections"]


def test_two_policies_do_not_push_each_others_rejections_out_in_turn() -> None:
    status: Body = {}
    for number in range(REJECTIONS_KEPT):
        status = rejected_status(prompt(status=status), policy=f"p{number}", verdict=verdict(at=2000.0 + number), now=2000.0)
    assert rejected_status(prompt(status=status), policy="late-to-tell", verdict=verdict(at=1000.0), now=3000.0) == status
    newer = rejected_status(prompt(status=status), policy="newer", verdict=verdict(at=9000.0), now=9000.0)
    assert [r["policy"] for r in newer["rejections"]] == [f"p{n}" for n in range(1, REJECTIONS_KEPT)] + ["newer"]


def test_rejections_of_one_moment_do_not_push_each_other_out_for_ever() -> None:
    """One evaluation may reject many policies' canaries at once: each tells it again at every pass."""
    status: Body = {}
    policies = [f"p{number:02}" for number in range(REJECTIONS_KEPT + 5)]
    for name in policies:
        status = rejected_status(prompt(status=status), policy=name, verdict=verdict(), now=2000.0)
    for name in policies:
        assert rejected_status(prompt(status=status), policy=name, verdict=verdict(), now=3000.0) == status
    assert len(status["rejections"]) == REJECTIONS_KEPT


def test_a_withdrawn_rejection_leaves_those_of_others_and_the_condition_goes_with_the_last() -> None:
    status = rejected_status(prompt(), policy="one", verdict=verdict(at=1000.0), now=1000.0)
    status = rejected_status(prompt(status=status), policy="two", verdict=verdict(at=2000.0), now=2000.0)
    status = withdrawn_status(prompt(status=status), policy="two", revision="abc", now=3000.0)
    assert [r["policy"] for r in status["rejections"]] == ["one"]
    assert said(status, "Rejected") == ("True", "RolledBack")
    status = withdrawn_status(prompt(status=status), policy="one", revision="abc", now=4000.0)
    assert status["rejections"] == []
    assert [c for c in status["conditions"] if c["type"] == "Rejected"] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latencyBudgetMilliseconds": "fast"}, "`spec.latencyBudgetMilliseconds`"),
        ({"surprise": 1}, "`spec.surprise` is not known to this operator, which is older"),
        ({"chain": []}, "`spec.chain`"),
    ],
)
def test_a_malformed_spec_is_told_in_one_sentence_with_the_fields_name(changes: Body, message: str) -> None:
    wish = wish_of(policy(**changes), prompt=prompt(), sources=SOURCES)
    assert isinstance(wish, Unresolved)
    assert wish.reason is Reason.INVALID
    assert message in wish.message
    assert "\n" not in wish.message


def sending(*requests: str) -> dict[str, Any]:
    probes = [{"name": f"p{n}", "when": "DuringTraffic", "requestsPerSecond": 1, "request": text} for n, text in enumerate(requests)]
    return {"probes": probes}


def test_what_a_probe_cannot_send_is_told_and_not_sent_and_the_rest_of_the_spec_holds() -> None:
    wish = wish_of(policy(canary=sending('{"messages": []}', "Hello")), prompt=prompt(), sources=SOURCES)
    assert isinstance(wish, Wish)
    message = "`spec.canary.probes[1].request` must be a JSON object with a list `messages`; correct it"
    assert wish.revision == Unresolved(Reason.INVALID, message)
    assert [probe.name for probe in wish.spec.canary.probes] == ["p0"]
    assert wish.spec.slos == FallbackPolicySpec.model_validate(policy_spec("v1")).slos != []


def test_every_probe_that_cannot_be_sent_is_told_and_what_else_is_missing_with_them() -> None:
    wish = wish_of(policy(canary=sending("no", '{"messages": []}', "chat")), prompt=None, sources=SOURCES)
    assert isinstance(wish, Wish)
    assert isinstance(wish.revision, Unresolved)
    assert wish.revision.reason is Reason.INVALID
    first, besides = wish.revision.message.split("; besides, ")
    assert first == (
        "`spec.canary.probes[0].request`, `spec.canary.probes[2].request` must be a JSON object with a list `messages`; correct them"
    )
    assert "`spec.promptVersion` names `v1`, which does not exist" in besides
    assert [probe.name for probe in wish.spec.canary.probes] == ["p1"]


def test_of_very_many_probes_that_cannot_be_sent_as_many_are_named_as_anybody_reads() -> None:
    wish = wish_of(policy(canary=sending(*["Hello"] * 6)), prompt=prompt(), sources=SOURCES)
    assert isinstance(wish, Wish)
    assert isinstance(wish.revision, Unresolved)
    assert "`spec.canary.probes[3].request` and 2 more must be" in wish.revision.message


@pytest.mark.parametrize(("serving", "router"), [({"replicas": 1}, GATEWAYS), ({"workload": {"newer": 1}}, REPLICAS), ("?", GATEWAYS)])
def test_of_a_spec_that_cannot_be_read_the_kind_of_route_is_known(serving: object, router: Router) -> None:
    unreadable = policy(serving=serving, newer=1)
    why = wish_of(unreadable, prompt=prompt(), sources=SOURCES)
    assert isinstance(why, Unresolved)
    wish = without_spec(unreadable, why=why)
    assert wish.revision is why
    assert router_of(wish.spec) is router


def test_a_metrics_source_is_only_needed_where_something_is_judged() -> None:
    wish = wish_of(policy(metricsSource="elsewhere", slos=[]), prompt=prompt(), sources=SOURCES)
    assert isinstance(wish, Wish)
    assert isinstance(wish.revision, Known)


def test_what_blocks_a_policy_is_added_to_its_status_and_takes_nothing_away() -> None:
    before = declare(POLICIES, spec={}, status={"stable": {"revision": "abc", "promptVersion": "v1", "since": "2026-01-01T00:00:00.000Z"}})
    read = read_policy(before)
    assert not isinstance(read, Unresolved)
    status = blocked_status(read[0], why=Unresolved(Reason.INVALID, "`spec.x` is not a known field"), generation=4, now=1000.0)
    document = status.model_dump(mode="json", exclude_none=True)
    assert document["stable"]["revision"] == "abc"
    assert said(document, "Accepted") == said(document, "Ready") == ("False", "Invalid")
    assert said(document, "Stalled") == ("True", "Invalid")


@pytest.mark.parametrize("status", [{"stable": {"revision": 5}}, {"stable": {"revision": "a", "promptVersion": "v", "since": "yesterday"}}])
def test_a_status_that_cannot_be_read_is_said_and_not_guessed_at(status: Body) -> None:
    read = read_policy(declare(POLICIES, spec={}, status=status))
    assert isinstance(read, Unresolved)
    assert "`status` cannot be read" in read.message

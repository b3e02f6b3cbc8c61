"""Warnings to which the table of reasons adds no advice: each says what to do next by itself, or is only ever told as something else."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from backstop.analysis.evidence import bound_missing
from backstop.analysis.reading import Waiting
from backstop.api.fallbackpolicy import FallbackPolicySpec
from backstop.api.names import API_VERSION
from backstop.api.promptversion import PromptVersionSpec
from backstop.api.reasons import Reason
from backstop.api.record import ContentError, check_content, references_of
from backstop.controller.contents import Bad, Content, MapKey, NoMap
from backstop.controller.references import MapName
from backstop.controller.seen import Declared, seen
from backstop.controller.subject import not_ours
from backstop.controller.wanted import conflict_of, wish_of
from backstop.kube.resources import CONFIG_MAPS, POLICIES, PROMPT_VERSIONS
from backstop.rendering.owner import Owner
from backstop.rendering.revision import RevisionTooLarge, record_object
from backstop.rollout.observed import ProbeState, Unresolved
from tests.api.test_reasons import SAY_IT_THEMSELVES
from tests.rollout.test_way_back import waiting
from tests.rollout.world import BREACHED, GATEWAYS, World, in_rollout, policy, started

LATE = 130  # a deadline and some more


def declared(resource: Any, *, name: str, spec: Any) -> Declared:
    """An object of this API, as a watch tells of it."""
    metadata = {"name": name, "namespace": "shop", "uid": f"uid-{name}", "resourceVersion": "1", "generation": 1}
    found = seen({"apiVersion": API_VERSION, "kind": resource.kind, "metadata": metadata, "spec": spec}, resource=resource)
    assert isinstance(found, Declared)
    return found


def prompt(name: str = "v1", *, text: str = "Be kind.", **more: Any) -> Declared:
    spec = {"prompt": "support", "version": "1.0.0", "messages": [{"role": "system", "content": text}]} | more
    return declared(PROMPT_VERSIONS, name=name, spec=spec)


def unresolved(of: Declared | None, *, content: str | None = None, **spec: Any) -> str:
    """What a policy that cannot be followed says. `content`: of the ConfigMap that it refers to; None: there is none."""
    whole = {"latencyBudgetMilliseconds": 400} | GATEWAYS | spec
    contents: dict[MapKey, Content] = {}
    for reference in references_of(FallbackPolicySpec.model_validate(whole)).values() if "canary" not in spec else ():
        at = MapKey(MapName("shop", reference.key.name), reference.key.key, reference.kind)
        contents[at] = NoMap()
        if content is not None:
            with pytest.raises(ContentError) as problem:
                check_content(content, kind=reference.kind)
            contents[at] = Bad(str(problem.value))
    wish = wish_of(declared(POLICIES, name="support", spec=whole), prompt=of, sources=frozenset({"default"}), contents=contents)
    found = wish if isinstance(wish, Unresolved) else wish.revision
    assert isinstance(found, Unresolved)
    return found.message


def referring(tier: str) -> list[dict[str, Any]]:
    """A chain whose last tier answers from a ConfigMap."""
    primary = {"name": "primary", "model": {"baseURL": "http://model/v1", "name": "m"}}
    if tier == "rules":
        return [primary, {"name": "rules", "ruleEngine": {"rulesRef": {"name": "texts", "key": "texts.yaml"}}}]
    return [primary, {"name": "static", "static": {"default": "Sorry.", "knowledgeBaseRef": {"name": "texts", "key": "texts.yaml"}}}]


def conflicting() -> str:
    found = conflict_of(prompt("v2", text="Be brief."), older=[prompt("v1")])
    assert found is not None
    return found.message


def too_large() -> str:
    text = PromptVersionSpec.model_validate(
        {"prompt": "support", "version": "1.0.0", "messages": [{"role": "system", "content": "x" * 60_000} for _ in range(16)]}
    )
    with pytest.raises(RevisionTooLarge) as problem:
        record_object(Owner("shop", "support", "uid"), policy=policy(), prompt=text, image="gateway:1", pull_secrets=())
    return str(problem.value)


def told(world: World, reason: Reason) -> str:
    """The newest message of this reason."""
    return next(announcement.message for announcement in reversed(world.told) if announcement.reason is reason)


def halted() -> str:
    world = in_rollout(policy=policy(mode="Pause"))
    world.judged = BREACHED
    world.run(5)
    return told(world, Reason.HALTED)


def first_is_late() -> str:
    world = World(broken={"rev1"})
    world.run(LATE, tick=5)
    return told(world, Reason.FIRST_UNAVAILABLE)


def return_is_late() -> str:
    return told(waiting(seconds=LATE), Reason.RETURN_UNAVAILABLE)


def token_for_nothing() -> str:
    world = started()
    world.ask(approve="1")
    world.run(1)
    return told(world, Reason.TOKEN_WITHOUT_EFFECT)


def failed_probe() -> str:
    world = World(policy=policy(probes=("golden",)), come_to={"golden": ProbeState.FAILED})
    world.run(10)
    return told(world, Reason.PROBE_FAILED)


def unreadable() -> str:
    world = in_rollout()
    world.unread = True
    return next(c.message for c in world.decide().conditions if c.reason is Reason.TRAFFIC_UNREADABLE)


# How each goes on to what is to be done.
SAID: dict[Reason, tuple[Callable[[], str], str]] = {
    Reason.VERSION_CONFLICT: (conflicting, "; create this one anew with another `spec.version`"),
    Reason.INVALID: (lambda: unresolved(prompt(), canary={"steps": [{"weight": 50}]}), "must"),
    Reason.TEMPLATE_INVALID: (lambda: unresolved(prompt(text="Hello {{name")), "; close the tag"),
    Reason.REVISION_TOO_LARGE: (too_large, "; shorten "),
    Reason.PROMPT_VERSION_NOT_FOUND: (lambda: unresolved(None), "; create it"),
    Reason.PROMPT_VERSION_INVALID: (lambda: unresolved(prompt(text="Hello {{name")), "; close the tag"),
    Reason.METRICS_SOURCE_NOT_FOUND: (lambda: unresolved(prompt(), metricsSource="other"), "; correct the name, or add the source"),
    Reason.CONFIG_MAP_NOT_FOUND: (lambda: unresolved(prompt(), chain=referring("static")), "; create it"),
    Reason.KNOWLEDGE_BASE_INVALID: (lambda: unresolved(prompt(), chain=referring("static"), content="[]"), "; begin with `entries:`"),
    Reason.RULES_INVALID: (lambda: unresolved(prompt(), chain=referring("rules"), content="[]"), "; begin with `entries:`"),
    Reason.OBJECT_NOT_OURS: (lambda: not_ours(CONFIG_MAPS, name="x").message, "; rename the policy or take that object away"),
    Reason.HALTED: (halted, "waits for a new value of the annotation `backstop.dev/retry` or `backstop.dev/abort`"),
    Reason.FIRST_UNAVAILABLE: (first_is_late, ": see to its pods, or change the spec"),
    Reason.RETURN_UNAVAILABLE: (return_is_late, "; see to its pods, name another version in the spec, or keep what serves"),
    Reason.TOKEN_WITHOUT_EFFECT: (token_for_nothing, "; a new value asks again"),
    Reason.BUCKET_BOUNDARY_MISSING: (lambda: bound_missing(seconds=0.15, seen=(0.1, 0.2)).why, ": use one of them"),
    Reason.TRAFFIC_UNREADABLE: (unreadable, "; delete the traffic object to have it written anew"),
    Reason.PROBE_FAILED: (failed_probe, "; change the spec to go on"),
}
# Why something is rolled back or halted.
TOLD_AS_SOMETHING_ELSE = SAY_IT_THEMSELVES - SAID.keys()


@pytest.mark.parametrize("reason", SAID, ids=str)
def test_a_warning_without_advice_says_what_to_do_by_itself(reason: Reason) -> None:
    message, what = SAID[reason]
    assert what in message()


@pytest.mark.parametrize("reason", sorted(TOLD_AS_SOMETHING_ELSE - {Reason.CANARY_UNAVAILABLE, Reason.HELD_TOO_LONG}), ids=str)
def test_a_breach_is_told_as_what_follows_from_it(reason: Reason) -> None:
    world = in_rollout()
    world.judged = replace(BREACHED, reason=reason)
    world.run(5)
    assert reason not in world.reasons()
    assert "RolledBack" in world.reasons()


def test_a_canary_without_pods_is_told_as_rolled_back_with_what_the_scheduler_says() -> None:
    world = started()
    world.broken.add("rev2")
    world.want("2")
    world.run(2)
    world.arms["rev2"] = replace(world.arms["rev2"], trouble="not scheduled: 0/3 nodes are available: 3 Insufficient cpu.")
    world.run(LATE, tick=5)
    assert Reason.CANARY_UNAVAILABLE not in world.reasons()
    assert "(not scheduled: 0/3 nodes are available: 3 Insufficient cpu.)" in told(world, Reason.ROLLED_BACK)
    assert world.place.last is not None
    assert world.place.last.reason == Reason.CANARY_UNAVAILABLE


def test_a_step_that_was_held_for_too_long_is_told_as_rolled_back() -> None:
    spec = policy()
    analysis = spec.canary.analysis.model_copy(update={"maxHoldSeconds": 10})
    world = in_rollout(policy=spec.model_copy(update={"canary": spec.canary.model_copy(update={"analysis": analysis})}))
    world.judged = replace(BREACHED, state=Waiting(20))
    world.run(120)
    assert Reason.HELD_TOO_LONG not in world.reasons()
    assert "`spec.canary.analysis.maxHoldSeconds`" in told(world, Reason.ROLLED_BACK)

"""Probes of a canary: what stands between ready pods and the first weight, and which of them must run now.

A probe that was seen to pass stays passed for its rollout, whatever becomes of its Job. What is unknown neither passes nor fails.
"""

from dataclasses import replace

from backstop.api.fallbackpolicy import FallbackPolicySpec, RollbackMode
from backstop.api.probe import ProbeWhen
from backstop.api.reasons import Reason
from backstop.api.traffic import is_aborted

from .look import Look
from .move import Move, told
from .observed import Known, ProbeSeen, ProbeState, Unknown
from .place import CanaryPlace
from .safety import against


def missing(look: Look, canary: CanaryPlace) -> tuple[str, ...]:
    """Names of the probes that have to pass before the first weight, and have not yet."""
    # Callers could reach it already, or a person has decided.
    if canary.exits_before is not None or canary.promoting_since is not None:
        return ()
    return not_passed(look.policy, passed=canary.passed)


def not_passed(policy: FallbackPolicySpec, *, passed: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the probes before traffic that are not among these marks: one that was edited has not passed."""
    before = [probe for probe in policy.canary.probes if probe.when is ProbeWhen.BEFORE_TRAFFIC]
    return tuple(probe.name for probe in before if probe.mark not in passed)


def marks(policy: FallbackPolicySpec) -> tuple[str, ...]:
    """Of all probes that are declared."""
    return tuple(probe.mark for probe in policy.canary.probes)


def mark(policy: FallbackPolicySpec, name: str) -> str:
    """Of the probe of this name."""
    return next(probe.mark for probe in policy.canary.probes if probe.name == name)


def ends(look: Look, names: tuple[str, ...]) -> list[tuple[str, ProbeSeen]]:
    """What was seen of these probes as they are declared now: of one that was edited, what ran before says nothing."""
    found = [(name, seen.value) for name in names if isinstance(seen := look.observed.probes.get(name), Known)]
    return [(name, probe) for name, probe in found if probe.mark == mark(look.policy, name)]


def failures(seen: list[tuple[str, ProbeSeen]]) -> str | None:
    """How those failed that did, as many as anybody reads; None where none has."""
    failed = [f"probe `{name}` {probe.how}" for name, probe in seen if probe.state is ProbeState.FAILED]
    more = f"; and {len(failed) - _TOLD} more failed" if len(failed) > _TOLD else ""
    return "; ".join(failed[:_TOLD]) + more if failed else None


def with_passed(policy: FallbackPolicySpec, *, passed: tuple[str, ...], name: str) -> tuple[str, ...]:
    """The marks, with that of one more probe."""
    return (*passed, mark(policy, name))[-_KEPT:]


def failed(look: Look, canary: CanaryPlace) -> tuple[str, ...]:
    """Names of the probes that failed as they are declared now, in `DryRun`: nothing else follows than that the canary gets no weight."""
    if look.policy.rollback.mode is not RollbackMode.DRY_RUN:
        return ()
    names = missing(look, canary)
    if Reason.PROBE_FAILED in canary.reported and not canary.failed:
        return names  # an operator of an earlier version has not written which
    return tuple(name for name in names if mark(look.policy, name) in canary.failed)


def to_run(look: Look) -> tuple[str, ...]:
    """Names of the probes that must run now, or have ended."""
    canary = look.place.canary
    if canary is None or canary.halted is not None or failed(look, canary):
        return ()
    if look.policy.canary.paused or look.observed.leaving:
        return ()
    if canary.weight > 0 and canary.promoting_since is None:
        return _declared(look.policy, when=ProbeWhen.DURING_TRAFFIC)
    return () if canary.probes_at is None else missing(look, canary)


def ended(look: Look, canary: CanaryPlace) -> Move | None:
    """A probe has ended: one that failed speaks against the canary, one that passed is remembered."""
    if canary.halted is not None:
        return None
    seen, known = ends(look, missing(look, canary)), failed(look, canary) if canary.failed else ()
    if (how := failures([(name, probe) for name, probe in seen if name not in known])) is not None:
        marks_failed = tuple(probe.mark for name, probe in seen if probe.state is ProbeState.FAILED and name not in known)
        others = tuple(reason for reason in canary.reported if reason != Reason.PROBE_FAILED)
        noted = replace(canary, failed=(*canary.failed, *marks_failed)[-_KEPT:], reported=others)
        return against(look, noted, reason=Reason.PROBE_FAILED, message=how)
    for name, probe in seen:
        if probe.state is ProbeState.PASSED:
            passed = replace(canary, passed=with_passed(look.policy, passed=canary.passed, name=name))
            return told(replace(look.place, canary=passed), Reason.PROBE_PASSED, f"{canary.revision.name} has passed probe `{name}`")
    return None


def fell_silent(look: Look, canary: CanaryPlace) -> Move | None:
    """What sends requests beside callers' has used up its restarts: told once, and nothing is decided by it.

    Its Job goes an hour later, and is made anew.
    """
    if canary.halted is not None or canary.weight == 0:
        return None
    for name, probe in ends(look, _declared(look.policy, when=ProbeWhen.DURING_TRAFFIC)):
        runs, is_silent = probe.state is ProbeState.RUNNING, probe.mark in canary.silent
        if runs and is_silent:
            others = tuple(known for known in canary.silent if known != probe.mark)
            return Move(replace(look.place, canary=replace(canary, silent=others)))
        if not runs and not is_silent:
            silent = replace(canary, silent=(*canary.silent, probe.mark)[-_KEPT:])
            message = f"probe `{name}` sends nothing to {canary.revision.name} any more: it {probe.how or 'has ended'}"
            return told(replace(look.place, canary=silent), Reason.PROBE_ENDED, message)
    return None


def silent_words(look: Look, canary: CanaryPlace) -> str:
    """That probes were to send requests and do not; empty where all do."""
    names = [probe.name for probe in look.policy.canary.probes if probe.mark in canary.silent]
    return f"; {listed(tuple(names))} sent requests and ended" if names else ""


def begin(look: Look, canary: CanaryPlace) -> Move | None:
    """Enough pods are ready, and every gateway was seen to know the canary: only then does a pin reach it."""
    names = missing(look, canary)
    if not names or canary.probes_at is not None or look.ready(canary) < look.pods_needed(canary):
        return None
    route = look.observed.route
    if not isinstance(route, Known) or route.value is None or route.value.canary != canary.revision.name:
        return None
    if is_aborted(canary.revision.name, state=route.value):
        return None
    if canary.generation is None:
        return Move(replace(look.place, canary=replace(canary, generation=route.value.generation)))
    if not look.acts_on(canary.generation):
        return None
    begun = replace(canary, probes_at=look.now, generation=None)
    message = f"before its first weight, {canary.revision.prompt_version} ({canary.revision.name}) has to pass {listed(names)}"
    return told(replace(look.place, canary=begun), Reason.WAITING_FOR_PROBES, message)


def said(look: Look, canary: CanaryPlace) -> str:
    """What is waited for, in words that do not change from second to second."""
    names = missing(look, canary)
    if stopped := failed(look, canary):
        return (
            f"{listed(stopped)} did not pass, and `spec.rollback.mode` is `DryRun`: no weight before; edit `spec.canary.probes` to run "
            "what is edited anew; a new value of the annotation `backstop.dev/retry` runs all again, `backstop.dev/promote` goes on without"
        )
    if canary.probes_at is None:
        if look.by_replicas:
            return f"the endpoints of the Service have to be stable's alone before {listed(names)} can run"
        return f"every gateway has to know the canary {canary.revision.name} before {listed(names)} can run"
    unseen = [(name, seen.why) for name in names if isinstance(seen := look.observed.probes.get(name), Unknown)]
    return f"waiting for {listed(names)} to pass" + "".join(f"; `{name}` cannot be seen: {why}" for name, why in unseen)


# More than a policy can declare at a time: those of former edits are forgotten first.
_KEPT = 32
_TOLD = 3


def _declared(policy: FallbackPolicySpec, *, when: ProbeWhen) -> tuple[str, ...]:
    return tuple(probe.name for probe in policy.canary.probes if probe.when is when)


def listed(names: tuple[str, ...]) -> str:
    """In a sentence."""
    return ("probe " if len(names) == 1 else "probes ") + ", ".join(f"`{name}`" for name in names)

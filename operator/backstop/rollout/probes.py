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
from .observed import Known, ProbeState, Unknown
from .place import CanaryPlace
from .safety import against


def missing(look: Look, canary: CanaryPlace) -> tuple[str, ...]:
    """Names of the probes that have to pass before the first weight, and have not yet."""
    # Callers could reach it already, or a person has decided.
    if canary.exits_before is not None or canary.promoting_since is not None:
        return ()
    return tuple(name for name in _declared(look.policy, when=ProbeWhen.BEFORE_TRAFFIC) if name not in canary.passed)


def to_run(look: Look) -> tuple[str, ...]:
    """Names of the probes that must run now, or have ended."""
    canary = look.place.canary
    if canary is None or canary.halted is not None or _has_failed(look, canary):
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
    ends = [(name, seen.value) for name in missing(look, canary) if isinstance(seen := look.observed.probes.get(name), Known)]
    for name, probe in ends:
        if probe.state is ProbeState.FAILED:
            return against(look, canary, reason=Reason.PROBE_FAILED, message=f"probe `{name}` {probe.how}")
    for name, probe in ends:
        if probe.state is ProbeState.PASSED:
            passed = replace(canary, passed=(*canary.passed, name)[-_KEPT:])
            return told(replace(look.place, canary=passed), Reason.PROBE_PASSED, f"{canary.revision.name} has passed probe `{name}`")
    return None


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
    message = f"before its first weight, {canary.revision.prompt_version} ({canary.revision.name}) has to pass {_listed(names)}"
    return told(replace(look.place, canary=begun), Reason.WAITING_FOR_PROBES, message)


def said(look: Look, canary: CanaryPlace) -> str:
    """What is waited for, in words that do not change from second to second."""
    names = missing(look, canary)
    if _has_failed(look, canary):
        return (
            f"{_listed(names)} did not pass, and `spec.rollback.mode` is `DryRun`: no weight before; a new value of the annotation "
            "`backstop.dev/retry` runs again, `backstop.dev/promote` goes on without"
        )
    if canary.probes_at is None:
        if look.by_replicas:
            return f"the endpoints of the Service have to be stable's alone before {_listed(names)} can run"
        return f"every gateway has to know the canary {canary.revision.name} before {_listed(names)} can run"
    unseen = [(name, seen.why) for name in names if isinstance(seen := look.observed.probes.get(name), Unknown)]
    return f"waiting for {_listed(names)} to pass" + "".join(f"; `{name}` cannot be seen: {why}" for name, why in unseen)


# More than a policy can declare at a time: those of former edits are forgotten first.
_KEPT = 32


def _declared(policy: FallbackPolicySpec, *, when: ProbeWhen) -> tuple[str, ...]:
    return tuple(probe.name for probe in policy.canary.probes if probe.when is when)


def _has_failed(look: Look, canary: CanaryPlace) -> bool:
    """In `DryRun`, where a failure has no other consequence than that the canary gets no weight."""
    return canary.reported == Reason.PROBE_FAILED and look.policy.rollback.mode is RollbackMode.DRY_RUN


def _listed(names: tuple[str, ...]) -> str:
    return ("probe " if len(names) == 1 else "probes ") + ", ".join(f"`{name}`" for name in names)

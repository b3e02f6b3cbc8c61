"""Gates for a policy that nothing has served for yet: its first revision becomes stable without a canary, once its probes have passed.

There is nothing to be judged against, and nobody calls yet: the Services that callers reach are made when it is stable.
"""

from dataclasses import replace

from backstop.api.reasons import WAY_BACK, Reason

from . import probes
from .look import Look
from .move import Move, told
from .observed import Known, ProbeState
from .place import FirstPlace, FirstWait, Halt, Revision, StablePlace
from .rest import first_guard, is_unknown_what_serves, recalled, serves_already


def first_revision(look: Look) -> Move | None:
    """Nothing has ever run: the wanted revision becomes stable as soon as it can serve, and has passed what it has to pass."""
    wanted = _starting(look)
    if wanted is None or look.observed.arm(wanted.name).ready == 0 or missing(look, wanted):
        return None
    message = f"{wanted.prompt_version} ({wanted.name}) is the first revision and serves as stable"
    stable = StablePlace(wanted, since=look.now)
    return told(
        replace(look.place, stable=stable, rejected=recalled(look), guard=first_guard(look), first=None), Reason.FIRST_REVISION, message
    )


def wait(look: Look) -> Move | None:
    """No pod of the first revision is ready: since when, and after the progress deadline it is told once. It goes on being tried."""
    wanted, waiting = _starting(look), look.place.waiting
    if wanted is None or look.observed.arm(wanted.name).ready > 0:
        return Move(replace(look.place, waiting=None)) if waiting is not None else None
    if waiting is None or waiting.revision != wanted.name:
        return Move(replace(look.place, waiting=FirstWait(wanted.name, since=look.now)))
    if waiting.told or look.now - waiting.since < look.policy.canary.progressDeadlineSeconds:
        return None
    return told(replace(look.place, waiting=replace(waiting, told=True)), Reason.FIRST_UNAVAILABLE, late_words(look, wanted))


def is_late(look: Look) -> bool:
    """Whether it was told that the wanted first revision has no ready pod for longer than it may."""
    wanted, waiting = _starting(look), look.place.waiting
    return wanted is not None and waiting is not None and waiting.told and waiting.revision == wanted.name


def late_words(look: Look, wanted: Revision) -> str:
    """What a first revision waits for in vain, and what a person can do."""
    trouble = look.observed.arm(wanted.name).trouble
    return (
        f"no pod of {wanted.prompt_version} ({wanted.name}), the first revision, was ready after "
        f"{look.policy.canary.progressDeadlineSeconds} s (`spec.canary.progressDeadlineSeconds`){f' ({trouble})' if trouble else ''}; "
        "nothing serves, and it goes on being tried: see to its pods, or change the spec"
    )


def begin_probes(look: Look) -> Move | None:
    """A pod of the first revision is ready: its probes begin. Anew for another revision, or when the probe that failed was edited."""
    wanted, first = _starting(look), look.place.first
    if wanted is None or look.observed.arm(wanted.name).ready == 0 or not (names := missing(look, wanted)):
        return None
    if first is not None and first.revision.name == wanted.name and not _is_edited(look, first):
        return None
    message = f"before it is stable, {wanted.prompt_version} ({wanted.name}) has to pass {probes.listed(names)}"
    return told(replace(look.place, first=FirstPlace(wanted, started_at=look.now)), Reason.WAITING_FOR_PROBES, message)


def probe_ended(look: Look) -> Move | None:
    """A probe of the first revision has ended: one that failed keeps it from being stable, one that passed is remembered."""
    wanted, first = _starting(look), look.place.first
    if wanted is None or first is None or first.revision.name != wanted.name or first.failed is not None:
        return None
    ends = probes.ends(look, missing(look, wanted))
    if (how := probes.failures(ends)) is not None:
        why = f"{wanted.prompt_version} ({wanted.name}) is not made stable: {how}"
        name = next(name for name, probe in ends if probe.state is ProbeState.FAILED)
        failed = Halt(look.now, reason=str(Reason.PROBE_FAILED), message=why)
        place = replace(look.place, first=replace(first, failed=failed, failed_on=probes.mark(look.policy, name)))
        return told(place, Reason.PROBE_FAILED, f"{why}; {WAY_BACK}")
    for name, probe in ends:
        if probe.state is ProbeState.PASSED:
            passed = replace(first, passed=probes.with_passed(look.policy, passed=first.passed, name=name))
            return told(replace(look.place, first=passed), Reason.PROBE_PASSED, f"{wanted.name} has passed probe `{name}`")
    return None


def missing(look: Look, wanted: Revision) -> tuple[str, ...]:
    """Names of the probes that this first revision still has to pass; none once it is stable, or served before status was lost."""
    first = look.place.first
    if look.place.stable is not None or serves_already(look) is not None:
        return ()
    passed = first.passed if first is not None and first.revision.name == wanted.name else ()
    return probes.not_passed(look.policy, passed=passed)


def failed(look: Look) -> Halt | None:
    """How the wanted first revision failed; None: it has not."""
    wanted, first = look.wanted, look.place.first
    if wanted is None or first is None or look.place.stable is not None or first.revision.name != wanted.name or _is_edited(look, first):
        return None
    return first.failed


def to_run(look: Look) -> tuple[str, ...]:
    """Names of the probes that must run now, or have ended."""
    wanted, first = _starting(look), look.place.first
    if wanted is None or first is None or first.revision.name != wanted.name or first.failed is not None or look.observed.leaving:
        return ()
    return missing(look, wanted)


def said(look: Look, wanted: Revision) -> str:
    """What is waited for, in words that do not change from second to second."""
    names = missing(look, wanted)
    unseen = [(name, seen.why) for name in names if (seen := look.observed.probes.get(name)) is not None and not isinstance(seen, Known)]
    return f"waiting for {probes.listed(names)} to pass" + "".join(f"; `{name}` cannot be seen: {why}" for name, why in unseen)


def _starting(look: Look) -> Revision | None:
    """The wanted revision, if it is to be the first; not one that was rejected before, nor where anything has served before."""
    wanted = look.wanted
    if look.place.stable is not None or wanted is None or look.place.rejection_of(wanted.name) is not None:
        return None
    return wanted if serves_already(look) is None and not is_unknown_what_serves(look) else None


def _is_edited(look: Look, first: FirstPlace) -> bool:
    """Whether the probe that failed is another one by now, or is not asked for any more."""
    return first.failed is not None and first.failed_on not in probes.marks(look.policy)

"""A way back that waits for pods: how long it may, and what is said of one that has waited for longer."""

from .look import Look
from .place import Guard, PreviousPlace, StablePlace


def is_late(look: Look, guard: Guard) -> bool:
    """Whether a way back has waited for its pods for as long as a canary may."""
    return guard.returning is not None and look.now - guard.returning.at >= look.policy.canary.progressDeadlineSeconds


def late_words(look: Look, *, stable: StablePlace, previous: PreviousPlace, breach: str) -> str:
    """What it waits for, for how long, and what a person can do. `breach`: why stable is to be left."""
    back, serving = previous.revision, stable.revision
    trouble = look.observed.arm(back.name).trouble
    seconds = look.policy.canary.progressDeadlineSeconds
    return (
        f"{serving.prompt_version} ({serving.name}) serves on although it breaches: no pod of {back.prompt_version} ({back.name}) was "
        f"ready after {seconds} s (`spec.canary.progressDeadlineSeconds`){f' ({trouble})' if trouble else ''}; "
        "see to its pods, name another version in the spec, or keep what serves by a new value of the annotation "
        f"`backstop.dev/promote`: {breach}"
    )

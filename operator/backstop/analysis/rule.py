"""What goes into every rule and what comes out: it folds closed blocks, in order, each once, into a small state and judges from that alone.

`Threshold` and `Sequential` are the two, each with a state of its own; `rules` says which of them judges an objective.
"""

from dataclasses import dataclass

from .reading import Breached, Breaching, Counts, Healthy


@dataclass(frozen=True)
class BoundCounts:
    """Both arms, as they are compared with each other: requests over a further latency bound, or those that a model was asked for."""

    canary: Counts
    stable: Counts | None


@dataclass(frozen=True)
class ArmBlock:
    """One objective's counts of one closed block: what came in after `start`, up to `end` (seconds since the epoch).

    `after_gap`: more than two scrapes were missing on every target, so the block does not continue the one before.
    `bounds`: the latency bounds that are compared beside the limit, always in the same order. `stable_pods`: stable's counts by the
    pod that served; empty where they are not known, and then bursts are measured on the sum. `compared`: the arms as they are compared
    with each other, where that is not as they are held against the limit.
    """

    start: float
    end: float
    canary: Counts
    stable: Counts | None
    after_gap: bool = False
    bounds: tuple[BoundCounts, ...] = ()
    stable_pods: tuple[Counts, ...] = ()
    compared: BoundCounts | None = None


Verdict = Healthy | Breaching | Breached

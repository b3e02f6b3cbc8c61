"""At which latency bound a breach is dated and told, where an increase over stable is judged: the limit, unless another has the evidence.

The test is the mean over the limit and the bounds beside it (`relative`), and a slow-down may show at one of those alone: as where fast
requests become slow, and slow ones no slower. While the evidence is over √(1/α) and the comparison that is followed is not, the
strongest one is followed from then on; also where there is nothing bad at the bound that is followed any more, and another has twenty
times its evidence. The limit is followed again once the evidence is no more than √(1/α). Bounds that are followed date a breach and are
told. How much evidence there is, and that it is valid, is no matter of this.

Of a breach that must last, the time counts anew with another bound: it must have lasted at one of them. Else only what was counted does,
and the beginning too where the bound that is left had no evidence of it, as a few slow requests by chance are no beginning, or comes no
more.
"""

import math
from dataclasses import replace

from ..reading import Counts
from ..rule import ArmBlock, BoundCounts
from .logspace import log_mean
from .relative import log_relative
from .state import SequentialState

# By so much more another bound has to speak than one whose newest block is good.
LN_CLEARLY = math.log(20)


def at_bound(block: ArmBlock, *, followed: int) -> ArmBlock:
    """The block with the counts of the bound that is followed, 0 for the limit; no requests where the bound is missing."""
    if followed == 0:
        return block
    at = followed - 1
    counts = block.bounds[at] if at < len(block.bounds) else BoundCounts(Counts(), stable=None)
    return replace(block, canary=counts.canary, stable=counts.stable)


def following(state: SequentialState, *, block: ArmBlock, planned: int, ln_pass: float, level: float, sustained: bool) -> SequentialState:
    """The state, tested with this block, with the bound that is followed from it on.

    `level`: the share, at the bound that is followed, above which the block is bad. `sustained`: whether a breach must last.
    """
    if block.canary.total == 0:
        return state
    each = evidence_at_bounds(state, planned=planned)
    counted = [index for index in range(len(each)) if at_bound(block, followed=index).canary.total > 0]
    now = state.followed
    strongest = max(counted, key=each.__getitem__)
    here = at_bound(block, followed=now)
    # Where few pods have it, a block may have no request of the canary's.
    is_there = here.canary.total > 0 or (here.stable or Counts()).total > 0
    nothing_bad = here.canary.bad <= level * here.canary.total
    if log_mean(each) <= ln_pass:
        found = 0
    elif is_there and each[now] > ln_pass and not (nothing_bad and each[strongest] > each[now] + LN_CLEARLY):
        found = now
    else:
        found = strongest if each[strongest] > ln_pass else 0
    if found == now:
        return state
    if sustained or state.episode is None or each[now] <= 0 or not is_there:
        return replace(state, followed=found, window=(), episode=None, drift=0.0)
    return replace(state, followed=found, window=(), episode=replace(state.episode, canary=Counts(), stable=None))


def evidence_at_bounds(state: SequentialState, *, planned: int) -> list[float]:
    """ln of the evidence that the canary is worse than stable, at the limit and at each bound beside it."""
    return [log_relative(one, planned=planned) for one in state.relatives]

"""How far back the guesses reach: twenty minutes at least, once there is so much, and forty at most.

What a block's counts are divided by (`bursts`), and what stable's share is guessed to be (`relative`), comes from sums over past blocks.
They are kept in two generations. When the newer one has lasted GENERATION_SECONDS and GENERATION_BLOCKS it becomes the older, and what
was older is forgotten whole: an incident does not fade, it goes. Only blocks in which stable had a request make a generation older, so
that nothing is forgotten of which there is nothing newer.

No promise of the tests hangs on it. Both figures are known before the block that they are used for, and a two-sample e-value has a mean
of 1 at most whatever is guessed and divided by (`twosample`, `bursts`), so also when it is known from newer blocks alone. What is
known of bursts is never less than what the tests began with. As long as it is too little (`bursts_are_known`), a limit is bet against
by blocks where stable has no requests to compare with (`betting`). Evidence is not forgotten here: that is of `restarts`.

Symbols and sources: as `bursts` and `relative`.
"""

from collections.abc import Iterable
from dataclasses import replace

from ..rule import ArmBlock
from .bursts import ENOUGH_BLOCKS, Bursts, Succession, correlation, duration, joined, joined_succession, with_pod_block, with_share
from .relative import Seen
from .state import Older, SequentialState

GENERATION_SECONDS = 1200.0
GENERATION_BLOCKS = 120
# Scrapes are not exactly periodic: so much short of it is as good.
SLACK_SECONDS = 1.0


def learned(state: SequentialState, *, block: ArmBlock) -> SequentialState:
    """What one more block says of stable's bursts."""
    stable = block.stable
    if stable is None or stable.total <= 0:
        return state
    bursts = state.bursts
    for pod in block.stable_pods or (stable,):
        bursts = with_pod_block(bursts, bad=pod.bad, total=pod.total)
    succession = with_share(state.succession, bad=stable.bad, total=stable.total)
    return replace(state, bursts=bursts, succession=succession, remembered=state.remembered + max(0.0, block.end - block.start))


def turned(state: SequentialState) -> SequentialState:
    """The state, with a new generation begun where the newer one is full."""
    if state.remembered < GENERATION_SECONDS - SLACK_SECONDS or state.succession.blocks < GENERATION_BLOCKS:
        return state
    return replace(
        state,
        older=Older(bursts=state.bursts, succession=state.succession, seen=tuple(one.seen for one in state.relatives)),
        bursts=Bursts(),
        succession=Succession(),
        relatives=tuple(replace(one, seen=Seen()) for one in state.relatives),
        remembered=0.0,
    )


def knowing_bursts_of(state: SequentialState, *, other: SequentialState) -> SequentialState:
    """The state, which has seen nothing, with what another one of the same requests knows of stable's bursts."""
    older = None if other.older is None else replace(other.older, seen=tuple(Seen() for _ in state.relatives))
    return replace(state, bursts=other.bursts, succession=other.succession, remembered=other.remembered, older=older)


def bursts_are_known(state: SequentialState) -> bool:
    """Whether stable's blocks can tell how bad requests come in bursts: there are enough, and of more than one request each."""
    return True if state.older is not None else _blocks_that_tell(state) >= ENOUGH_BLOCKS


def _blocks_that_tell(state: SequentialState) -> float:
    """Stable's blocks; where they have hardly a request each, as many as there are pairs of requests in one."""
    return min(state.succession.blocks, state.bursts.total_squares - state.bursts.total)


def burst_correlation(state: SequentialState, *, seconds: float) -> float:
    """ρ̂·τ for a block of so many seconds, from both generations."""
    older = state.older
    bursts = state.bursts if older is None else joined(older.bursts, state.bursts)
    found = correlation(bursts)
    if found <= 0:
        return 0.0
    return found * duration(state.succession if older is None else joined_succession(older.succession, state.succession), seconds=seconds)


def seen_before(state: SequentialState) -> Iterable[Seen]:
    """What the older generation saw at each bound that is compared."""
    return (Seen() for _ in state.relatives) if state.older is None else state.older.seen

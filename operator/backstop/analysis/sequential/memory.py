"""How far back the guesses reach: twenty minutes at least, once there is so much, and forty at most. But not back to what stable was.

What a block's counts are divided by (`bursts`), and what stable's share is guessed to be (`relative`), comes from sums over past blocks.
They are kept in two generations; what stable did before the canary came is the first, and where it changed in that time, the second
begins there. When the newer one has lasted GENERATION_SECONDS and GENERATION_BLOCKS it becomes the older, and what was older is forgotten
whole: an incident does not fade, it goes. Only blocks in which stable had a request make a generation older, so that nothing is forgotten
of which there is nothing newer. Where stable's shares of the two are further apart than the bursts of each explain, stable has changed in
between, and the older one goes at once: taken together they would look like one long burst, and what is worse than stable as it is now
would look better than stable.

No promise of the tests hangs on it. Both figures are known before the block that they are used for, and a two-sample e-value has a mean
of 1 at most whatever is guessed and divided by (`twosample`, `bursts`), so also when it is known from newer blocks alone. Nothing is
forgotten before what is newer tells enough of bursts by itself, or is a whole generation. As long as too little is known of them
(`bursts_are_known`), a limit is bet against by blocks where stable has no requests to compare with (`betting`). Evidence is not forgotten
here: that is of `restarts`.

Symbols and sources: as `bursts` and `relative`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..reading import Counts
from ..rule import ArmBlock
from .bursts import (
    ENOUGH_BLOCKS,
    Bursts,
    Succession,
    correlation,
    duration,
    independent,
    joined,
    joined_succession,
    with_pod_block,
    with_share,
)
from .relative import Seen, together
from .state import Older, SequentialState

GENERATION_SECONDS = 1200.0
GENERATION_BLOCKS = 120
# Scrapes are not exactly periodic: so much short of it is as good.
SLACK_SECONDS = 1.0
# Standard errors between the shares of two generations of one stable. Bursts of a minute are further apart at times.
MOST_APART = 6.0
# Every so many blocks of stable's they are compared.
COMPARED_BLOCKS = 12
# A change in stable's history is looked for so far from its ends.
LEAST_BLOCKS = 24


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


def remembering(state: SequentialState, *, history: SequentialState, changed: SequentialState | None = None) -> SequentialState:
    """The state, with what was learned of stable before its first block: a generation of its own. `changed`: what stable was from a change
    in its history on, which begins the newer one.
    """
    older = Older(bursts=history.bursts, succession=history.succession, seen=tuple(one.seen for one in history.relatives))
    if (known := state.older) is not None:
        older = Older(
            bursts=joined(older.bursts, known.bursts),
            succession=joined_succession(older.succession, known.succession),
            seen=tuple(map(together, older.seen, known.seen)),
        )
    if changed is None:
        return replace(state, older=older)
    return replace(
        state,
        older=older,
        bursts=joined(changed.bursts, state.bursts),
        succession=joined_succession(changed.succession, state.succession),
        relatives=tuple(
            replace(one, seen=together(new.seen, one.seen)) for new, one in zip(changed.relatives, state.relatives, strict=True)
        ),
        remembered=changed.remembered + state.remembered,
    )


def changed_at(history: Sequence[ArmBlock], *, nothing: SequentialState) -> int:
    """Before which block stable has changed: there both parts are furthest apart. 0: nowhere. `nothing`: a state to begin with."""

    def apart_at(cut: int) -> float:
        before, since = nothing, nothing
        for block in history[:cut]:
            before = learned(before, block=block)
        for block in history[cut:]:
            since = learned(since, block=block)
        return _apart(before.bursts, before.succession, since=since)

    cuts = range(LEAST_BLOCKS, len(history) - LEAST_BLOCKS + 1, COMPARED_BLOCKS)
    found, cut = max(((apart_at(cut), cut) for cut in cuts), default=(0.0, 0))
    return cut if found > MOST_APART else 0


def brought_up_to_date(state: SequentialState) -> SequentialState:
    """The state after a block: without what was before where stable is another by now; with a new generation begun where the newer one is
    full.
    """
    return turned(replace(state, older=None, history=Counts()) if _has_changed(state) else state)


def _has_changed(state: SequentialState) -> bool:
    """Whether stable is another than in the older generation, and the newer one tells enough by itself."""
    if state.older is None or state.succession.blocks % COMPARED_BLOCKS or not bursts_are_known(replace(state, older=None)):
        return False
    return _apart(state.older.bursts, state.older.succession, since=state) > MOST_APART


def _apart(bursts: Bursts, succession: Succession, *, since: SequentialState) -> float:
    """By how many standard errors stable's share of before differs from the newer generation's: two proportions, bursts divided out."""
    if since.succession.blocks == 0:
        return 0.0
    seconds = since.remembered / since.succession.blocks  # the newest block may be of a minute
    before = independent(bursts, succession=succession, seconds=seconds)
    now = independent(since.bursts, succession=since.succession, seconds=seconds)
    if before <= 0 or now <= 0:
        return 0.0
    both = joined(bursts, since.bursts)
    share = (both.bad + 0.5) / (both.total + 1)
    error = math.sqrt(share * (1 - share) * (1 / before + 1 / now))
    return abs(bursts.bad / bursts.total - since.bursts.bad / since.bursts.total) / error


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
    """Whether stable's blocks can tell how bad requests come in bursts: there are enough; of hardly a request each, their pairs count."""
    blocks, pairs = state.succession.blocks, _pairs(state.bursts)
    if state.older is not None:
        blocks, pairs = blocks + state.older.succession.blocks, pairs + _pairs(state.older.bursts)
    return min(blocks, pairs) >= ENOUGH_BLOCKS


def _pairs(bursts: Bursts) -> float:
    """Pairs of requests of one block."""
    return bursts.total_squares - bursts.total


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

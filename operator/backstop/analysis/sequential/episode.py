"""When a breach episode of a rule with `for_seconds` begins and ends, where counts are too few for a window to tell.

At 1 request per second a window of twenty requests reaches 20 s back: into a failure that is over, which a stray error would then go on
with; and stray errors just before a failure would be its beginning. So the newest 10 s end an episode when they could be within the limit
by chance, and are a thousand times likelier there than at the episode's share; and an episode that could be chance begins anew with a
block that is twenty times likelier at a share of its own. They date an episode; how much evidence there is, and that it is valid, is no
matter of this.

With ln Λ(p : q) = k·ln(p/q) + (n − k)·ln((1 − p)/(1 − q)) of the counts that are asked about, an episode is over where those of the newest
10 s have Λ(p0 : p̂_e) ≥ 1000 and Λ(p̂ : p0) < 20; it begins anew where its own have Λ(p̂_e : p0) < 20, and those of a block that is worse
Λ(p̂ : p̂_e) ≥ 20. Shares are guessed as p̂ = (k + ½)/(n + 1), of the one block k/n.

Symbols: k bad of n requests, p0 the level above which a block is bad, p̂ guess of what is asked about, p̂_e of the episode before it.
Source: A. Wald, "Sequential Analysis" (1947), ch. 3, the ratio of the likelihoods of two shares against fixed bounds. As the shares are
guessed, 1000 and 20 promise no risk; what they come to was simulated.
"""

import math

from ..reading import Counts
from ..rule import ArmBlock
from ..threshold import Episode, both
from .likelihood import log_ratio
from .odds import inside
from .window import Span, canary_of, newest_of

LN_OVER = math.log(1000)
LN_CLEARLY = math.log(20)


def continued(episode: Episode | None, *, block: ArmBlock, bad: bool) -> Episode:
    """The episode with one more block; a new one where there was none."""
    if episode is None:
        return Episode(first_bad=block.end, newest_bad=block.end, canary=block.canary, stable=block.stable)
    return Episode(
        first_bad=episode.first_bad,
        newest_bad=block.end if bad else episode.newest_bad,
        canary=episode.canary + block.canary,
        stable=both(episode.stable, block.stable),
    )


def is_over(episode: Episode, *, block: ArmBlock, window: tuple[Span, ...], level: float) -> bool:
    """Whether the newest 10 s of the window are far likelier at the limit than at the share that the episode had before them.

    `window`: with the block. Shares from 0 to 1; `level` is what is allowed.
    """
    newest = canary_of(newest_of(window))
    seen = episode.canary + block.canary
    before = Counts(bad=seen.bad - newest.bad, total=seen.total - newest.total)
    limit = inside(level)
    if before.total <= 0 or _guess(before) <= limit:
        return False
    could_be_within = _log_ratio(newest, null=limit, alternative=_guess(newest)) < LN_CLEARLY
    return could_be_within and _log_ratio(newest, null=_guess(before), alternative=limit) >= LN_OVER


def begins_now(episode: Episode, *, block: ArmBlock, level: float) -> bool:
    """Whether the block is far worse than the episode was, and the episode could have been chance."""
    before, limit = episode.canary, inside(level)
    if _log_ratio(before, null=limit, alternative=_guess(before)) >= LN_CLEARLY:
        return False
    newest = block.canary
    worse = newest.bad * before.total > before.bad * newest.total
    return worse and _log_ratio(newest, null=_guess(before), alternative=inside(newest.bad / newest.total)) >= LN_CLEARLY


def _guess(counts: Counts) -> float:
    """The bad share that so many requests have, inside (0, 1)."""
    return inside((counts.bad + 0.5) / (counts.total + 1))


def _log_ratio(counts: Counts, *, null: float, alternative: float) -> float:
    return log_ratio(bad=counts.bad, total=counts.total, null=null, alternative=alternative)

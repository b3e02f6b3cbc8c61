"""When a policy has to be asked for again. Pure.

A block closes when the last target has given a new scrape, and scrapes come at a steady pace: until that one can be there, an answer
tells nothing new.
"""

from .samples import Fetched, Sample
from .state import AnalysisState, target_key


def due_at(fetched: Fetched, *, state: AnalysisState, now: float, scrape_interval: float) -> float:
    """When the next block can close, in seconds since the epoch; at most one scrape interval from `now`, when `fetched` was asked for.

    `state`: after the evaluation of `fetched`. In the past, or `now`: as soon as may be.
    """
    newest = _newest(fetched)
    if not newest or not state.watermarks:
        return now
    waited_for = [at for target, at in newest.items() if at <= state.watermarks.get(target, float("-inf"))]
    # A target that fell silent lies behind all others. Where every one has something new, a block is about to close.
    return min(max(waited_for, default=now - scrape_interval), now) + scrape_interval


def _newest(fetched: Fetched) -> dict[str, float]:
    newest: dict[str, float] = {}
    for _, target, at in fetched.newest if isinstance(fetched, Sample) else ():
        newest[target] = max(newest.get(target, 0.0), at)
    return {target_key(target): at for target, at in newest.items()}

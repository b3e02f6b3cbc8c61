"""Which levels a revision's cache has below memory, wired: from the fastest on."""

from collections.abc import Callable

from ..api.metricnames import CacheLevel
from .lowerlevel import LevelSettings, LowerLevel
from .metrics import GatewayMetrics
from .revision import Revision


def lower_levels(
    revision: Revision, *, metrics: GatewayMetrics, clock: Callable[[], float], now: Callable[[], float]
) -> tuple[LowerLevel, ...]:
    """The levels of `revision`. `clock` is monotonic, `now` the wall clock, in seconds."""
    tier = revision.cache
    if tier is None or tier.warm is None:
        return ()
    from .warmcache import RedisStore  # the client takes some MiB, which most gateways need not have

    warm = LevelSettings(CacheLevel.WARM, fresh=tier.warm.fresh, stale=tier.stale, timeout=tier.warm.timeout)
    store = RedisStore(tier.warm.address, prefix=f"backstop:{revision.namespace}:{revision.policy}:")
    return (LowerLevel(warm, tier=tier.name, store=store, metrics=metrics, clock=clock, now=now),)

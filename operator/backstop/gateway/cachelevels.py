"""Which levels a revision's cache has below memory, wired: from the fastest on."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..api.metricnames import CacheLevel
from .counting import Counter
from .dial import Dial
from .lowerlevel import LevelSettings, LowerLevel
from .metrics import GatewayMetrics
from .revision import CacheTier, ColdTier, Revision, WarmTier


def lower_levels(
    revision: Revision,
    *,
    folder: Path | None,
    dial: Dial,
    metrics: GatewayMetrics,
    clock: Callable[[], float],
    now: Callable[[], float],
) -> tuple[LowerLevel, ...]:
    """The levels of `revision`. `folder`: of a cold level's file. `clock` is monotonic, `now` the wall clock, in seconds."""
    tier = revision.cache
    if tier is None:
        return ()
    level = partial(LowerLevel, tier=tier.name, metrics=metrics, clock=clock, now=now)
    levels = []
    if tier.warm is not None:
        levels.append(_warm(tier.warm, tier=tier, revision=revision, dial=dial, level=level))
    if tier.cold is not None:
        assert folder is not None, "a cold level has a folder"
        levels.append(_cold(tier.cold, tier=tier, folder=folder, level=level, now=now))
    return tuple(levels)


def shared_counter(revision: Revision, *, dial: Dial) -> Counter:
    """Where the gateways of the policy count together: the Redis of the warm level, by connections of its own."""
    from .warmcache import RedisStore

    assert revision.cache is not None, "an allowance has a Redis"
    assert revision.cache.warm is not None, "an allowance has a Redis"
    return RedisStore(revision.cache.warm.address, prefix=_prefix(revision), dial=dial)


def _prefix(revision: Revision) -> str:
    return f"backstop:{revision.namespace}:{revision.policy}:"


def _warm(warm: WarmTier, *, tier: CacheTier, revision: Revision, dial: Dial, level: Callable[..., LowerLevel]) -> LowerLevel:
    from .warmcache import RedisStore  # the client takes some MiB, which most gateways need not have

    store = RedisStore(warm.address, prefix=_prefix(revision), dial=dial)
    settings = LevelSettings(CacheLevel.WARM, fresh=warm.fresh, stale=tier.stale, timeout=warm.timeout, jurisdiction=warm.jurisdiction)
    return level(settings, store=store)


def _cold(cold: ColdTier, *, tier: CacheTier, folder: Path, level: Callable[..., LowerLevel], now: Callable[[], float]) -> LowerLevel:
    from .coldcache import SQLiteStore  # its library too

    store = SQLiteStore(folder, capacity=cold.bytes, now=now)
    settings = LevelSettings(CacheLevel.COLD, fresh=cold.fresh, stale=tier.stale, timeout=cold.timeout)
    return level(settings, store=store, held=lambda: store.held, tend=store.take_over)

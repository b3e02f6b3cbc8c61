"""The shares of a container's memory, which have to fit into it together."""

import pytest

from backstop.api.cachetier import HotCache
from backstop.api.serving import Resources, amount
from backstop.gateway.exchange import MAX_BODY_BYTES
from backstop.gateway.shares import BODY_COPIES, PROCESS, Shares, most_for_cache, share

MIB = 1 << 20


@pytest.mark.parametrize(
    ("limit", "cache", "connections", "heads", "bodies"),
    [
        (256 * MIB, 0, 32, 16, 28),
        (256 * MIB, 32 * MIB, 32, 16, 20),
        (512 * MIB, 128 * MIB, 64, 32, 48),
        (64 * MIB, 0, 8, 4, 1),
        (None, 32 * MIB, 128, 64, 176),
    ],
)
def test_bodies_get_what_the_others_leave(limit: int | None, cache: int, connections: int, heads: int, bodies: int) -> None:
    assert share(limit, cache=cache) == Shares(connections * MIB, heads * MIB, bodies * MIB)


@pytest.mark.parametrize("limit", [180 * MIB, 256 * MIB, 1024 * MIB, 65_536 * MIB])
@pytest.mark.parametrize("part", [0.0, 0.5, 1.0], ids=["no cache", "half", "the largest"])
def test_all_shares_together_fit_into_the_limit(limit: int, part: float) -> None:
    cache = int((most_for_cache(limit) or 0) * part)
    shares = share(limit, cache=cache)
    assert PROCESS + cache + shares.connections + shares.heads + BODY_COPIES * shares.bodies <= limit


def test_a_cache_may_take_a_quarter() -> None:
    assert (most_for_cache(256 * MIB), most_for_cache(None)) == (64 * MIB, None)


def test_w44_by_default_the_longest_body_fits_beside_a_cache() -> None:
    amounts = Resources()
    assert amounts.requests.memory is not None
    assert amounts.limits.memory is not None
    limit = amount(amounts.limits.memory)
    assert limit is not None
    assert amount(amounts.requests.memory) == PROCESS
    assert share(int(limit), cache=HotCache().maxMebibytes << 20).bodies >= MAX_BODY_BYTES

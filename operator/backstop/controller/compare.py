"""Compares what an object should be with what it is. Pure."""

from collections.abc import Mapping
from typing import Any

from ..api.serving import amount


def covers(live: Any, *, wanted: Any) -> bool:
    """Whether `live` says everything that `wanted` says; what else it says are defaults and other owners' fields."""
    match wanted:
        case Mapping():
            # An empty value is often not stored.
            if not wanted and live is None:
                return True
            return isinstance(live, Mapping) and all(covers(live.get(key), wanted=value) for key, value in wanted.items())
        case list() | tuple():
            if not wanted and live is None:
                return True
            return isinstance(live, list | tuple) and len(live) == len(wanted) and all(map(_covers, live, wanted))
        case str():
            return live == wanted or (isinstance(live, str) and _same_quantity(live, wanted))
        case None:
            return live in (None, "", [], {})
        case _:
            return bool(live == wanted)


def _covers(live: Any, wanted: Any) -> bool:
    return covers(live, wanted=wanted)


def _same_quantity(one: str, other: str) -> bool:
    """The API server writes `1000m` as `1`."""
    left = amount(one)
    return left is not None and left == amount(other)

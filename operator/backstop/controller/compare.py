"""Compares what an object should be with what it is. Pure."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

_QUANTITY: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
_FACTOR: Final = {
    "": Decimal(1), "m": Decimal("0.001"), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
}  # fmt: skip


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
    left, right = _QUANTITY.fullmatch(one), _QUANTITY.fullmatch(other)
    if left is None or right is None:
        return False
    return Decimal(left[1]) * _FACTOR[left[2] or ""] == Decimal(right[1]) * _FACTOR[right[2] or ""]

"""`Retry-After`: how long a target wants to be left alone. PURE."""

import re
from datetime import UTC, datetime
from typing import Final

# Quotas are commonly counted by the minute. Who says longer is asked once a minute, by one request.
LONGEST_SECONDS: Final = 60.0
_SECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_DATE: Final = "%a, %d %b %Y %H:%M:%S GMT"


def seconds_to_wait(said: str | None, *, date: str | None) -> float:
    """Seconds that a `Retry-After` header asks for, at most LONGEST_SECONDS; 0 where it asks for nothing that can be understood.

    A point in time is compared with the answer's own `Date`, so that no two clocks have to agree.
    """
    if said is None:
        return 0.0
    text = said.strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), LONGEST_SECONDS)
    until, sent = _moment(text), _moment((date or "").strip())
    if until is None or sent is None:
        return 0.0
    return min(max((until - sent).total_seconds(), 0.0), LONGEST_SECONDS)


def _moment(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, _DATE).replace(tzinfo=UTC)
    except ValueError:
        return None

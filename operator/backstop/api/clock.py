"""Times as the API spells them: RFC 3339, UTC, milliseconds. Knows the spelling, never what time it is."""

from datetime import UTC, datetime


def render_time(seconds: float) -> str:
    """Seconds since the epoch → `2026-01-31T09:30:00.123Z`."""
    moment = datetime.fromtimestamp(round(seconds, 3), UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def parse_time(text: str) -> float:
    """RFC 3339 with or without a fraction → seconds since the epoch. Raises ValueError for anything else."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"time without a zone: {text!r}")
    return moment.timestamp()

"""Times as the API spells them: RFC 3339, UTC, milliseconds. Knows the spelling, never what time it is."""

from datetime import UTC, datetime


def render_time(seconds: float) -> str:
    """Seconds since the epoch → `2026-01-31T09:30:00.123Z`."""
    return datetime.fromtimestamp(round(seconds, 3), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> float:
    """RFC 3339 with or without a fraction → seconds since the epoch. Raises ValueError for anything else."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"time without a zone: {text!r}")
    return moment.timestamp()

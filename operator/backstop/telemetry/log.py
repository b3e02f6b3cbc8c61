"""Structured logging: one JSON object per line on standard error."""

import json
import logging
import sys
from typing import Any

from ..api.clock import render_time

FIELDS = "fields"


class JsonLines(logging.Formatter):
    """A record as one line of JSON; `fields` of `extra` are members of their own."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": render_time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, FIELDS, {})
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up_logging(level: int = logging.INFO) -> None:
    """Log to standard error; kopf only when something is wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for quiet in ("kopf", "asyncio", "aiohttp", "urllib3"):
        logging.getLogger(quiet).setLevel(max(level, logging.WARNING))
    # It says at every start that it leaves signals to others, as it should.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)


def fields(**values: Any) -> dict[str, Any]:
    """`extra` of a log call."""
    return {FIELDS: values}

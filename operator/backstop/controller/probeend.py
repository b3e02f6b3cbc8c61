"""How a probe failed, in one sentence: from its Job, its pod and the end of its log. Pure."""

import re
from collections.abc import Mapping
from typing import Any, Final

from ..kube.resources import Body
from .seen import JobSeen, pod

LAST_LINES: Final = 8
MOST_LOG_BYTES: Final = 16_384
MOST_CHARACTERS: Final = 800
_COLOURS: Final = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


def how_failed(job: JobSeen, *, ran: Body | None, log: str) -> str:
    """As in "probe `golden` …". `ran`: its pod, if there is one; `log`: what is known of its log, in words."""
    return f"{_end_of(job, ran=ran)}; {log}"


def last_lines(raw: bytes) -> str:
    """The last lines of a log that hold anything, printable and bounded, on one line."""
    text = _COLOURS.sub("", raw.decode(errors="replace"))
    printable = ("".join(c if c.isprintable() else " " for c in line).strip() for line in text.splitlines())
    lines = [line for line in printable if line][-LAST_LINES:]
    if not lines:
        return "it wrote nothing to its log"
    said = " ⏎ ".join(lines)
    return "its last lines: " + (said if len(said) <= MOST_CHARACTERS else "…" + said[-MOST_CHARACTERS:])


def _end_of(job: JobSeen, *, ran: Body | None) -> str:
    status: Mapping[str, Any] = (ran or {}).get("status") or {}
    if ran is not None and status.get("reason") == "DeadlineExceeded":
        trouble = pod(ran).trouble if _terminated(status) is None else None
        seconds = ran["spec"].get("activeDeadlineSeconds")
        return f"did not end within {seconds} s (`timeoutSeconds`)" + (f", {trouble}" if trouble else "")
    terminated = _terminated(status)
    if terminated is not None and terminated.get("reason") == "OOMKilled":
        return "was killed because it used more memory than its `resources.limits.memory`"
    if terminated is not None:
        return f"exited with code {terminated.get('exitCode', 'unknown')}"
    if job.ended == "DeadlineExceeded":
        return "did not end in time (`timeoutSeconds`), nor did a node take its pod"
    return f"failed ({job.ended or 'no reason given'})"


def _terminated(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for container in status.get("containerStatuses") or ():
        found = (container.get("state") or {}).get("terminated")
        if isinstance(found, Mapping):
            return found
    return None

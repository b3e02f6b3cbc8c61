"""What the demo shows: both revisions as they move, events as they come, and the figures at the end."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from e2e.demo.summary import DETECTION_TARGET_SECONDS, SHIFT_TARGET_SECONDS, Summary
from e2e.load import Answer, percentile

BAR = 40
WINDOW_SECONDS = 5.0


class Screen:
    """A live panel on a terminal; plain lines where there is none."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._quiet_until = 0.0

    def __enter__(self) -> "Screen":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def chapter(self, text: str) -> None:
        """A new part of the story."""
        self._console.print()
        self._console.print(Text(f"▌ {text}", style="bold"))

    def say(self, text: str) -> None:
        """One line of the story."""
        self._console.print(Text(f"  {text}"))

    def event(self, clock: str, *, reason: str, message: str, warning: bool) -> None:
        """An event of the policy."""
        line = Text(f"  {clock}  ", style="dim")
        line.append(f"{reason:<18} ", style="bold red" if warning else "bold green")
        line.append(message, style="default")
        self._console.print(line)

    def show(self, *, status: Mapping[str, Any], answers: Sequence[Answer], now: float, limit_seconds: float) -> None:
        """Weights and latency at this moment."""
        if self._live is not None:
            self._live.update(_panel(status, answers=answers, now=now, limit_seconds=limit_seconds))
        elif now >= self._quiet_until:
            self._quiet_until = now + WINDOW_SECONDS
            self._console.print(Text("  " + _line(status, answers=answers, now=now), style="dim"))


def _arms(status: Mapping[str, Any]) -> list[tuple[str, str, str, int]]:
    """(role, version, revision, weight) of what gets traffic."""
    canary, stable = status.get("canary"), status.get("stable")
    weight = int(canary.get("weight", 0)) if canary else 0
    arms = []
    if stable:
        arms.append(("stable", stable["promptVersion"], stable["revision"], 100 - weight))
    if canary:
        arms.append(("canary", canary["promptVersion"], canary["revision"], weight))
    return arms


def _recent(answers: Sequence[Answer], *, revision: str, now: float) -> list[Answer]:
    return [a for a in answers[-4000:] if a.revision == revision and a.began >= now - WINDOW_SECONDS]


def _p95(recent: Sequence[Answer]) -> str:
    value = percentile([answer.seconds for answer in recent], percent=95)
    return "–" if value is None else f"{value * 1000:.0f} ms"


def _line(status: Mapping[str, Any], *, answers: Sequence[Answer], now: float) -> str:
    parts = []
    for role, version, revision, weight in _arms(status):
        recent = _recent(answers, revision=revision, now=now)
        parts.append(f"{role} {version} {weight} % p95 {_p95(recent)} ({len(recent) / WINDOW_SECONDS:.0f}/s)")
    return " | ".join(parts)


def _panel(status: Mapping[str, Any], *, answers: Sequence[Answer], now: float, limit_seconds: float) -> Panel:
    table = Table(box=None, padding=(0, 2))
    for column in ("", "version", "share", "", "requests/s", f"p95 (limit {limit_seconds * 1000:.0f} ms)"):
        table.add_column(column)
    for role, version, revision, weight in _arms(status):
        recent = _recent(answers, revision=revision, now=now)
        slow = (percentile([a.seconds for a in recent], percent=95) or 0) > limit_seconds
        bar = Text("█" * round(weight * BAR / 100), style="yellow" if role == "canary" else "green")
        p95 = Text(_p95(recent), style="bold red" if slow else "default")
        table.add_row(role, version, f"{weight} %", bar, f"{len(recent) / WINDOW_SECONDS:.0f}", p95)
    slos = Text()
    for slo in status.get("slos", []):
        style = {"Healthy": "green", "Breaching": "bold yellow", "Breached": "bold red"}.get(slo["state"], "dim")
        slos.append(f"  {slo['name']}: {slo['state']}", style=style)
        slos.append(f" {slo.get('value') or '–'} % bad, {slo['limit']} % allowed\n", style="dim")
    failed = sum(answer.failed for answer in answers)
    slos.append(f"  requests {len(answers):,}, failed {failed}", style="dim" if not failed else "bold red")
    return Panel(Group(table, slos), title=f"fallbackpolicy/support · {status.get('phase', '')}", title_align="left")


def show_summary(console: Console, *, summary: Summary) -> None:
    """The figures at the end, beside what they should be."""
    table = Table(title="What was seen", title_justify="left", box=None, padding=(0, 2))
    table.add_column("")
    table.add_column("", justify="right")
    table.add_column("", style="dim")
    figures = summary.as_json()
    shift = max(summary.shift_seconds, 0.0)
    table.add_row("breach began", str(figures["breachBeganAt"]), "first answer of the canary over the limit")
    table.add_row(
        "detected", f"{summary.detection_seconds:.1f} s later", f"target ≤ {DETECTION_TARGET_SECONDS:.0f} s: 30 s of breach, a scrape, 2 s"
    )
    table.add_row("last canary request", f"{shift:.2f} s after that", f"target ≤ {SHIFT_TARGET_SECONDS:.0f} s")
    table.add_row("rolled back", summary.rolled_back, "")
    table.add_row("promoted", summary.promoted, "")
    table.add_row("requests", f"{summary.requests:,}", f"{summary.canary_requests:,} of them answered by the bad canary")
    table.add_row("callers that saw an error", str(summary.failed), "must be 0")
    console.print()
    console.print(table)

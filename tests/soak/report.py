"""What a soak has come to: a table for people, and what is wrong. PURE."""

import itertools
import statistics
from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from .ledger import PRIMARY, Seen
from .reckoning import Account

MOST_GROWTH: Final = 0.05  # of memory
SLACK_MEBIBYTES: Final = 6.0
SLACK_FILES: Final = 8
SHOWN_PROBLEMS: Final = 20


@dataclass(frozen=True)
class Look:
    """What the gateway's process held at a time (seconds since the beginning), and which models it left alone."""

    at: float
    mebibytes: float
    files: int
    tasks: int
    left_alone: frozenset[str]


@dataclass
class Observed:
    """All that there is to be told of one soak. `unwell`: what had not recovered at its end; `unknown`: counters that nobody compares."""

    seen: Seen
    first: Look
    idle: Look
    looks: list[Look] = field(default_factory=list)
    early: Sequence[Account] = ()  # before anybody has left
    late: Sequence[Account] = ()
    unknown: Sequence[str] = ()
    unwell: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """What is printed, and what is wrong."""

    lines: Sequence[str]
    problems: Sequence[str]


def openings(looks: Sequence[Look]) -> Tally[str]:
    """How often each model was seen to begin to be left alone."""
    return Tally(target for before, after in itertools.pairwise(looks) for target in after.left_alone - before.left_alone)


def report(observed: Observed, *, seconds: float) -> Report:
    """Of a soak that took so long."""
    seen, first, idle, looks = observed.seen, observed.first, observed.idle, observed.looks
    sixth = seconds / 6
    early = statistics.median(look.mebibytes for look in looks if sixth < look.at <= 2 * sixth)
    late = statistics.median(look.mebibytes for look in looks if look.at > 5 * sixth)
    problems = [*seen.problems[:SHOWN_PROBLEMS], *_sums(observed), *observed.unwell]
    if len(seen.problems) > SHOWN_PROBLEMS:
        problems.append(f"… and {len(seen.problems) - SHOWN_PROBLEMS} more")
    if late > early * (1 + MOST_GROWTH) + SLACK_MEBIBYTES:
        problems.append(f"memory grows: {early:.1f} MiB in the second sixth of the time, {late:.1f} MiB in the last")
    if idle.tasks > first.tasks:
        problems.append(f"{idle.tasks} tasks are left at rest, of {first.tasks} at the start")
    if idle.files > first.files + SLACK_FILES:
        problems.append(f"{idle.files} files are open at rest, {first.files} at the start")
    files, tasks = max(look.files for look in looks), max(look.tasks for look in looks)
    lines = [
        f"{seen.kinds.total():,} requests in {seconds / 60:g} min: {_told(seen.kinds)}",
        f"answered by tier: {_told(seen.tiers)}",
        f"seen by callers: {_told(seen.outcomes)}",
        f"memory: {first.mebibytes:.1f} MiB at the start, {early:.1f} in the second sixth, {late:.1f} in the last",
        f"files: {first.files} at the start, at most {files}, {idle.files} at rest",
        f"tasks: {first.tasks} at the start, at most {tasks}, {idle.tasks} at rest",
        "",
        *_table(observed.early, late=observed.late),
    ]
    return Report(lines, problems)


def _sums(observed: Observed) -> Iterator[str]:
    for when, accounts in (("before anybody has left", observed.early), ("at the end", observed.late)):
        for account in accounts:
            if not account.adds_up:
                yield f"{when}, {account.what}: {account.counted} were counted, and it is {_between(account)} by {account.by}"
    for name in observed.unknown:
        yield f"`{name}` is compared with nothing; give it its account in tests/soak/reckoning.py"
    if not openings(observed.looks)[PRIMARY]:
        yield f"the breaker of `{PRIMARY}` was never seen to open: it does not, or the soak was too short"


def _table(early: Sequence[Account], *, late: Sequence[Account]) -> list[str]:
    """What the gateway has counted, and others; of each series of a counter there is no line, but of the counter."""
    before = {account.what: account for account in early}
    shown = [(account, before[account.what]) for account in late if not account.part]
    wide = max(len(account.what) for account, _ in shown)
    return [
        f"{'':{wide}}  {'before anybody leaves':>26}  {'at the end':>28}",
        f"{'':{wide}}  {'gateway':>9}  {'others':>15}  {'gateway':>9}  {'others':>17}",
        *(f"{a.what:{wide}}  {b.counted:9,}  {_between(b):>15}  {a.counted:9,}  {_between(a):>17}  {a.by}" for a, b in shown),
    ]


def _between(account: Account) -> str:
    least, most = max(0, account.least), account.most
    return f"{most:,}" if least == most else f"{least:,}–{most:,}"


def _told(tally: Tally[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(tally.items()))

"""The story of the demo: a good version serves, a bad one is rolled back, a good one is promoted; all under steady traffic.

Says what it sees, and fails when something of the story is missing.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from backstop.kube.client import Client
from backstop.kube.connection import Connection, connect
from backstop.kube.resources import EVENTS, POLICIES
from e2e.callers import Callers, calling
from e2e.demo.screen import Screen, show_summary
from e2e.demo.summary import NotSeen, Summary, summarise

NAMESPACE = "demo"
POLICY = "support"
RATE = 60
LIMIT_SECONDS = 0.150
LOOK_SECONDS = 0.25

Status = Mapping[str, Any]


@dataclass(frozen=True)
class Ends:
    """How both rollouts ended: `status.lastRollout` of each, and which revision the bad one was."""

    bad_revision: str
    rolled_back: dict[str, str]
    promoted: dict[str, str]


class Story:
    """One run: the API, the callers, the screen, and what has been told."""

    def __init__(self, client: Client, *, screen: Screen) -> None:
        self._client = client
        self._callers = Callers()
        self._screen = screen
        self._told: set[str] = set()

    async def begin(self) -> None:
        """The first version is stable. Raises NotSeen."""
        await self._until(lambda status: _is_stable(status, version="support-1-0-0"), seconds=90, what="version 1 stable")

    async def tell(self, callers: Callers) -> Ends:
        """Name the versions one after the other and see each through to its end, while `callers` call. Raises NotSeen."""
        self._callers = callers
        # Long enough for Prometheus to have found the new pods and scraped them: it looks for pods every 5 s.
        await self._watch(12)
        self._screen.chapter("support-2-0-0: its prompt makes the model slow (300 ms; the SLO allows 150 ms for 5 % of the requests)")
        await self._want("support-2-0-0")
        bad = await self._until(lambda status: status.get("canary"), seconds=30, what="a canary of version 2")
        rolled_back = await self._until(lambda status: _ended(status, revision=bad["revision"]), seconds=120, what="version 2 rolled back")
        await self._watch(5)
        self._screen.chapter("support-3-0-0: a good one")
        await self._want("support-3-0-0")
        good = await self._until(lambda status: status.get("canary"), seconds=30, what="a canary of version 3")
        promoted = await self._until(lambda status: _ended(status, revision=good["revision"]), seconds=180, what="version 3 promoted")
        await self._until(lambda status: _is_stable(status, version="support-3-0-0"), seconds=20, what="version 3 stable")
        # Long enough for every connection of a caller to have met the pods of the old revision.
        await self._watch(12)
        return Ends(bad["revision"], rolled_back=rolled_back, promoted=promoted)

    async def _want(self, version: str) -> None:
        body = {
            "apiVersion": POLICIES.api_version,
            "kind": POLICIES.kind,
            "metadata": {"name": POLICY, "namespace": NAMESPACE},
            "spec": {"promptVersion": version},
        }
        await self._client.apply(POLICIES, body=body, manager="demo")

    async def _watch(self, seconds: float) -> None:
        end = time.time() + seconds
        while time.time() < end:
            await self._look()

    async def _until(self, seen: Callable[[Status], Any], *, seconds: float, what: str) -> Any:
        end = time.time() + seconds
        while time.time() < end:
            if found := seen(await self._look()):
                return found
        raise NotSeen(f"{what} was not seen within {seconds:.0f} s; the policy says: {json.dumps(await self._look(), indent=1)}")

    async def _look(self) -> Status:
        """One look: the policy's status to the screen, and events that are new."""
        status: Status = (await self._client.get(POLICIES, namespace=NAMESPACE, name=POLICY)).get("status", {})
        events, _ = await self._client.list(EVENTS, namespace=NAMESPACE)
        mine = [event for event in events if event.get("regarding", {}).get("kind") == POLICIES.kind]
        for event in sorted(mine, key=lambda event: str(event.get("eventTime"))):
            if event["metadata"]["name"] not in self._told:
                self._told.add(event["metadata"]["name"])
                clock = str(event.get("eventTime"))[11:19]
                self._screen.event(clock, reason=event["reason"], message=event.get("note", ""), warning=event["type"] == "Warning")
        self._screen.show(status=status, answers=self._callers.answers, now=time.time(), limit_seconds=LIMIT_SECONDS)
        await asyncio.sleep(LOOK_SECONDS)
        return status


def _is_stable(status: Status, *, version: str) -> bool:
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", []))
    return ready and status.get("stable", {}).get("promptVersion") == version


def _ended(status: Status, *, revision: str) -> dict[str, str] | None:
    last = status.get("lastRollout") or {}
    return last if last.get("revision") == revision and last.get("shiftedAt") else None


async def play(*, kubeconfig: Path, out: Path, console: Console) -> None:
    """Tell the story, show the summary and write it to `out`. Raises NotSeen when something of it was not seen."""
    connection = await connect(kubeconfig)
    client = Client(connection.api_client(), timeout=5.0)
    try:
        with Screen(console) as screen:
            callers, ends = await _tell(connection, client, screen=screen)
    finally:
        await client.close()
    summary = summarise(
        callers.answers, bad_revision=ends.bad_revision, limit_seconds=LIMIT_SECONDS, rollback=ends.rolled_back, promotion=ends.promoted
    )
    _record(summary, out=out)
    show_summary(console, summary=summary)
    if summary.failed:
        failed = next(answer for answer in callers.answers if answer.failed)
        raise NotSeen(f"{summary.failed} callers saw an error; the first: status {failed.status} {failed.error}")


async def _tell(connection: Connection, client: Client, *, screen: Screen) -> tuple[Callers, Ends]:
    screen.chapter(f"support-1-0-0 serves; {RATE} requests a second go through the Service")
    story = Story(client, screen=screen)
    await story.begin()
    arguments = ["--url", f"http://{POLICY}.{NAMESPACE}.svc:8080", "--rate", str(RATE)]
    async with calling(connection, client, namespace=NAMESPACE, arguments=arguments) as callers:
        ends = await story.tell(callers)
    return callers, ends


def _record(summary: Summary, *, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(summary.as_json(), indent=2) + "\n", encoding="utf-8")

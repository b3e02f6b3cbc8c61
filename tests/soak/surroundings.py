"""What a gateway under test stands between: two models, a Valkey, a scorer and people, each of which gets into trouble and out of it again.

Each counts what it was asked and what it said, so that the gateway's own counters can be held against it.
"""

import asyncio
import contextlib
import itertools
from collections import Counter as Tally
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import msgspec
from aiohttp import web

from backstop.api.metricnames import FailureMode
from e2e.fakemodel.app import FakeModel
from e2e.fakemodel.script import Fault, Rule
from tests.gateway.harness import listening
from tests.gateway.valkey import Line, Valkey, line_to, valkey

TROUBLE_SECONDS: Final = 3.0
NOBODY_PORT: Final = 1
WELL: Final = Rule()
TROUBLES: Final = (
    WELL,
    Rule(latency_milliseconds=80, jitter_milliseconds=79, token_interval_milliseconds=3),
    Rule(error_percent=40, error_status=500),
    Rule(error_percent=100, error_status=429, error_retry_after="1"),
    Rule(fault=Fault.HANG),
    Rule(fault=Fault.RESET),
    Rule(fault=Fault.MALFORMED),
    Rule(fault=Fault.ERROR_BODY),
    Rule(fault=Fault.EMPTY),
    Rule(fault=Fault.ROLE_ONLY),
    Rule(fault=Fault.CUT, cut_after_tokens=2),
    Rule(fault=Fault.STALL, cut_after_tokens=2),
    Rule(fault=Fault.GARBAGE, cut_after_tokens=2),
    Rule(fault=Fault.NO_DONE),
    Rule(slice_bytes=7, line_end="\r\n"),
    Rule(error_percent=30, error_status=400),
)
SUCCESS: Final = "success"
PASSED_BACK: Final = "passed_back"
_BY_STATUS: Final = {
    400: PASSED_BACK,
    429: FailureMode.RESOURCE_EXHAUSTION.value,
    500: FailureMode.DEPENDENCY_FAILURE.value,
}
_BY_FAULT: Final = {
    Fault.HANG: FailureMode.LATENCY_BREACH.value,
    Fault.RESET: FailureMode.DEPENDENCY_FAILURE.value,
    Fault.MALFORMED: FailureMode.MALFORMED_ANSWER.value,
    Fault.ERROR_BODY: FailureMode.MALFORMED_ANSWER.value,
    Fault.EMPTY: FailureMode.MALFORMED_ANSWER.value,
}


class WatchedModel:
    """The fake model, which says what it is asked; and what each of its answers was, as the gateway counts attempts."""

    def __init__(self, *, random: Random) -> None:
        self._fake = FakeModel(random=random)
        self.address = ""
        self.did: Tally[str] = Tally()
        self.suffers(WELL)

    def suffers(self, trouble: Rule) -> None:
        """From now on."""
        self._fake.rules = (msgspec.structs.replace(trouble, echo=True, calls_tools=True),)

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = self._fake.application()
        app.middlewares.append(self._watch)
        return app

    @web.middleware
    async def _watch(self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        body = await request.read()
        (rule,), is_chat = self._fake.rules, request.path.endswith("/chat/completions")
        did = SUCCESS
        if is_chat:
            silent = rule.fault is Fault.ROLE_ONLY and b'"stream":true' in body.replace(b" ", b"")
            did = FailureMode.LATENCY_BREACH.value if silent else _BY_FAULT.get(rule.fault, SUCCESS)
        try:
            response = await handler(request)
            did = _BY_STATUS.get(response.status, did)
            return response
        finally:
            self.did[did] += 1


class Helpers:
    """A scorer and the people's webhook. `labels`: verdicts that were given; `tickets`: answers by whether they took one."""

    def __init__(self, *, random: Random) -> None:
        self._random = random
        self.address = ""
        self.well = True
        self.labels: Tally[str] = Tally()
        self.tickets: Tally[str] = Tally()

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=1 << 20)
        app.router.add_post("/score", self._score)
        app.router.add_post("/tickets", self._ticket)
        return app

    async def _score(self, request: web.Request) -> web.Response:
        await request.read()
        if not self.well:
            trouble = self._random.choice(("status", "text", "silence"))
            if trouble == "silence":
                await asyncio.Event().wait()
            return web.Response(status=500 if trouble == "status" else 200, text="no verdict")
        label = self._random.choice(("pass", "fail", "skip"))
        self.labels[label] += 1
        return web.json_response({"label": label})

    async def _ticket(self, request: web.Request) -> web.Response:
        await request.read()
        self.tickets["delivered" if self.well else "failed"] += 1
        return web.Response(status=204 if self.well else 503)


@dataclass
class Store:
    """A Valkey that is taken away and comes back empty, behind a line that is held."""

    server: Valkey
    line: Line
    _gone: bool = False
    _kept_before: int = 0

    async def suffers(self, trouble: str) -> None:
        """From now on: `silence`, `death`, or nothing."""
        if trouble == "silence":
            self.line.open.clear()
        else:
            self.line.open.set()
        if trouble == "death" and not self._gone:
            self.line.to = NOBODY_PORT  # so that nothing is kept after what was is counted
            await self.server.redis.client_kill_filter(_type="normal", skipme=True)
            self._kept_before = await self.kept()
            await self.server.stop()
            self._gone = True
        if trouble != "death" and self._gone:
            await self.server.start()
            self.line.to, self._gone = self.server.port, False

    async def kept(self) -> int:
        """How often it was told to keep something, in all its lives."""
        if self._gone:
            return self._kept_before
        stats = await self.server.redis.info("commandstats")
        return self._kept_before + int(stats.get("cmdstat_set", {}).get("calls", 0))


@dataclass
class Surroundings:
    """All of them."""

    primary: WatchedModel
    other: WatchedModel
    helpers: Helpers
    store: Store

    async def suffer(self, *, random: Random, over: asyncio.Event) -> None:
        """Every few seconds something else: each trouble of the primary in turn, and by chance one of the others'. Then they are well."""
        for number in itertools.count():
            if over.is_set():
                break
            self.primary.suffers(TROUBLES[number % len(TROUBLES)])
            self.other.suffers(random.choice(TROUBLES) if random.random() < 0.3 else WELL)
            self.helpers.well = random.random() > 0.2
            await self.store.suffers(random.choices(("", "silence", "death"), weights=(6, 2, 2))[0])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TROUBLE_SECONDS):
                    await over.wait()
        self.primary.suffers(WELL)
        self.other.suffers(WELL)
        self.helpers.well = True
        await self.store.suffers("")


@contextlib.asynccontextmanager
async def surroundings(folder: Path, *, seed: int) -> AsyncIterator[Surroundings]:
    """All of them, without trouble yet."""
    async with AsyncExitStack() as stack:
        primary, other = WatchedModel(random=Random(seed)), WatchedModel(random=Random(seed + 1))
        for model in (primary, other):
            model.address = await stack.enter_async_context(listening(model.application()))
        helpers = Helpers(random=Random(seed))
        helpers.address = await stack.enter_async_context(listening(helpers.application()))
        server = await stack.enter_async_context(valkey(folder))
        line = await stack.enter_async_context(line_to(server.port))
        yield Surroundings(primary, other, helpers, Store(server, line))

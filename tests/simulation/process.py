"""One operator process: the project's own election, queue, store, passes and writes, on a simulated API server and a simulated time.

What `Operator.run` starts besides is played here: kopf's watches (late, frozen, or begun anew without the deletions in between),
the questions to gateways, and the metrics loop.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol, cast

from backstop.analysis.reading import Breached, SLOReading
from backstop.controller import sources
from backstop.controller.config import OperatorConfig
from backstop.controller.judging import Judgement, Judging
from backstop.controller.keys import PolicyKey
from backstop.controller.leadership import Leadership, LeadershipLost, lost_in
from backstop.controller.run import REQUEST_SECONDS, Operator
from backstop.controller.seen import seen
from backstop.controller.verification import NOBODY_ASKED, Verification, endpoints_of, is_news
from backstop.kube.client import Client
from backstop.kube.lease import LeaseObject
from backstop.kube.resources import POLICIES, PROMPT_VERSIONS
from backstop.rollout.observed import Known, Unknown
from backstop.telemetry.metrics import Metrics
from backstop.traffic.acting import Acting

from .api import Api
from .loop import SimulatedLoop
from .wire import Wire
from .wishes import SEEING, UNSEEING

LEASE_SECONDS = 9
EVALUATION_SECONDS = 2.0
SWEEP_SECONDS = 30.0
RESTART_SECONDS = 2.0
SOURCES: Mapping[str, Any] = dict.fromkeys((SEEING, UNSEEING))  # of which nobody asks anything
WATCHED = {resource.plural: resource for resource in sources.WATCHED}


class Surroundings(Protocol):
    """What a process asks of the rest of the world."""

    api: Api
    namespace: str

    def now(self) -> float:
        """Seconds since the epoch."""

    def readings(self, canary: str, *, since: float | None, source: str) -> tuple[SLOReading, ...]:
        """What the SLOs of this revision say, by this metric source."""

    def acting(self, pods: list[str]) -> list[int | None]:
        """The traffic generations that these gateway pods act on; None of one that does not say."""


class _SimulatedJudging(Judging):
    """Knows what is live as the real one does; its readings come from the world."""

    def __init__(self, world: Surroundings, *, wake: Callable[[PolicyKey, bool], None]) -> None:
        super().__init__(SOURCES, wake=wake, clock=world.now, jitter=lambda: 0.0)
        self._world = world

    async def run(self, source: str) -> None:
        while True:
            for key, live in [(key, live) for key, live in self._live.items() if live.source == source]:
                readings = self._world.readings(live.canary, since=live.since, source=source)
                before = self._judgements.get(key)
                which = live.canary, live.stable, live.objectives, live.since
                after = Judgement(*which, self._world.now(), readings, None, None, source)
                if before is not None and replace(before, at=after.at) == after:
                    continue
                self._judgements[key] = after
                if readings:
                    self._wake(key, any(isinstance(r.state, Breached) for r in readings))
            await asyncio.sleep(EVALUATION_SECONDS)


class _SimulatedVerification:
    """Asks the gateways that the operator knows of, or looks at the endpoints as the real one does."""

    def __init__(self, world: Surroundings, operator: Operator, *, client: Client) -> None:
        self._world = world
        self._operator = operator
        self._client = client
        self._answers: dict[PolicyKey, Acting] = {}
        self._since: dict[PolicyKey, float] = {}
        self._decided: dict[PolicyKey, int] = {}
        self._by_endpoints: set[PolicyKey] = set()
        self._asked = asyncio.Event()

    def acting(self, key: PolicyKey) -> Acting:
        return self._answers.get(key, NOBODY_ASKED)

    def acting_since(self, key: PolicyKey) -> float | None:
        return self._since.get(key)

    def keep_asking(self, key: PolicyKey, *, waiting: bool, falling: bool = False, by_endpoints: bool = False, decided: int = 0) -> None:
        if waiting:
            self._decided[key] = decided
            self._by_endpoints |= {key} if by_endpoints else set()
            self._answers.setdefault(key, NOBODY_ASKED)
            self._asked.set()
        else:
            self._answers.pop(key, None)
            self._since.pop(key, None)

    async def run(self) -> None:
        while True:
            if not self._answers:
                self._asked.clear()
                await self._asked.wait()
            for key, before in list(self._answers.items()):
                answer = await self._ask(key)
                if key in self._answers:
                    self._answers[key] = answer
                    if answer.lowest != before.lowest:
                        self._since[key] = self._world.now()
                    if is_news(answer, before=before, decided=self._decided[key]):
                        self._operator._wake(key)
            await asyncio.sleep(0.5)

    async def _ask(self, key: PolicyKey) -> Acting:
        store = self._operator._store
        if key in self._by_endpoints:
            return await endpoints_of(self._client, store=store, key=key)
        pods = [p.name for p in store.pods(key) if p.ready and not p.deleting]
        said = self._world.acting(pods)
        known = [generation for generation in said if generation is not None]
        lowest = Known(min(known)) if known and len(known) == len(said) else Unknown("a gateway does not say")
        return Acting(lowest, max(known, default=None))


class Process:
    """An operator that is started, dies and comes back. `watch_delay` in seconds; `frozen`: no news come in."""

    def __init__(self, world: Surroundings, *, loop: SimulatedLoop, name: str, seed: int) -> None:
        self.name = name
        self._world = world
        self._loop = loop
        self.wire = Wire(world.api, who=name, seed=seed, die=self.die)
        self.watch_delay = 0.05
        self.frozen = False
        self.bugs = 0
        self._position = 0
        self._catch_up = False
        self._news = asyncio.Event()
        world.api.on_news.append(self._news.set)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, and begin anew whenever it has ended by itself."""
        if self._task is None:
            self._task = self._loop.create_task(self._live())

    def die(self) -> None:
        """At once, with all it knew; what it has sent is on its way."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def relist_without_deletions(self) -> None:
        """What a watch does when it was away for too long: it sees everything anew, but not what has gone."""
        self._position = len(self._world.api.log)
        self._catch_up = True
        self._news.set()

    def resume(self) -> None:
        """News come in again, late ones first."""
        self.frozen, self.wire.cut = False, False
        self._news.set()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._task is not None

    async def _live(self) -> None:
        while True:
            with contextlib.suppress(LeadershipLost):
                await self._run()
            await asyncio.sleep(RESTART_SECONDS)

    async def _run(self) -> None:
        world = self._world
        metrics = Metrics()
        renewals = Client(cast(Any, self.wire), timeout=LEASE_SECONDS / 3)
        leadership = Leadership(
            LeaseObject(renewals, namespace=world.namespace, name="backstop", manager=self.name),
            identity=f"{self.name}-{self._loop.time():.3f}",
            seconds=LEASE_SECONDS,
            clock=world.now,
            monotonic=self._loop.time,
            jitter=lambda: 0.5,
        )
        client = Client(cast(Any, self.wire), timeout=REQUEST_SECONDS, may_write=leadership.leads)
        operator = Operator(
            OperatorConfig(gatewayImage="localhost/backstop:test", namespaces=[world.namespace], telemetryPort=0),
            connection=cast(Any, None),
            client=client,
            evaluators=SOURCES,
            metrics=metrics,
            instance=self.name,
            leadership=leadership,
            sweep_seconds=SWEEP_SECONDS,
            clock=world.now,
            jitter=lambda: 0.5,
        )
        verification = _SimulatedVerification(world, operator, client=client)
        judging = _SimulatedJudging(world, wake=operator._wake)
        reconcile, children = operator._passes_with(judging, verification=cast(Verification, verification))
        try:
            await operator._first_list(children)
            self._position, self._catch_up = len(world.api.log), False
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch(operator))
                tasks.create_task(verification.run())
                tasks.create_task(operator._sweep())
                tasks.create_task(operator._act(reconcile, judging=judging))
        except BaseExceptionGroup as group:
            if (lost := lost_in(group)) is not None:
                raise lost from None
            raise
        finally:
            self.bugs += int(metrics.failures.labels("Bug")._value.get())

    async def _watch(self, operator: Operator) -> None:
        api, news = self._world.api, self._news
        while True:
            await news.wait()
            news.clear()
            await asyncio.sleep(self.watch_delay)
            if self.frozen or self.wire.cut:
                continue  # `resume` tells of it
            if self._catch_up:
                self._catch_up = False
                for (plural, _, _), body in list(api.objects.items()):
                    self._tell(operator, plural=plural, body=body, gone=False)
            events, self._position = api.log[self._position :], len(api.log)
            for event in events:
                self._tell(operator, plural=event.plural, body=event.body, gone=event.type == "DELETED")

    def _tell(self, operator: Operator, *, plural: str, body: Mapping[str, Any], gone: bool) -> None:
        resource = WATCHED.get(plural)
        if resource is not None:
            # To a watch by labels an object that has lost them is gone.
            mine = resource in (POLICIES, PROMPT_VERSIONS) or _is_ours(body)
            operator._on_news(seen(dict(body), resource=resource), gone or not mine)


def _is_ours(body: Mapping[str, Any]) -> bool:
    labels = body["metadata"].get("labels") or {}
    key, _, value = sources.OURS.split(",")[0].partition("=")
    return labels.get(key) == value

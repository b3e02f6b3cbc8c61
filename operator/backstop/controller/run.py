"""The running operator: what is started, in which order, and how it ends. Wires by hand; decides nothing."""

import asyncio
import contextlib
import gc
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final

from ..analysis.tick import Evaluator
from ..api.heartbeat import BEAT_SECONDS, Heartbeat
from ..crdgen.filled import Filled
from ..kube.client import Client
from ..kube.connection import Connection
from ..kube.errors import KubeError, Unavailable
from ..kube.resources import Body, Resource
from ..telemetry.endpoints import serve_endpoints
from ..telemetry.log import fields
from ..telemetry.metrics import Metrics
from .apply import Apply, Overtaken
from .aside import Aside
from .children import Children
from .config import OperatorConfig
from .contents import Contents
from .definitions import Definitions
from .judging import Judging
from .kept import KeptRecords
from .keys import Key, PolicyKey
from .leadership import Leadership
from .probes import Probes
from .queue import KeyQueue
from .reconcile import Reconcile
from .recorded import Recorded
from .repairs import Repairs
from .reporting import Reports
from .seen import Seen
from .sources import OnBodies, Watches, list_all, list_one
from .store import Store
from .telling import Telling
from .verification import Verification
from .watchsession import Where
from .writes import Writes

_log = logging.getLogger(__name__)

REQUEST_SECONDS: Final = 10.0
WORKERS: Final = 8
# More, which take nothing else: the others may all wait for slow writes when a canary turns bad, and so may some of these.
URGENT_WORKERS: Final = 16
SWEEP_SECONDS: Final = 300.0
FRESH_SECONDS: Final = 10.0
FIRST_LIST_RETRY_SECONDS: Final = 2.0
STOP_SECONDS: Final = 5.0
LONGEST_HASTE_SECONDS: Final = 2.0
LONGEST_PASS_SECONDS: Final = 600.0


class Operator:
    """One operator process. `client` and `clock` are given, so that the wiring is the same wherever it runs."""

    def __init__(
        self,
        config: OperatorConfig,
        *,
        connection: Connection,
        client: Client,
        evaluators: Mapping[str, Evaluator],
        metrics: Metrics,
        instance: str,
        leadership: Leadership | Aside | None = None,
        sweep_seconds: float = SWEEP_SECONDS,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._config = config
        self._connection = connection
        self._client = client
        self._evaluators = evaluators
        self._metrics = metrics
        self._jitter = jitter
        self._clock = clock
        self._instance = instance
        self._leadership = leadership
        self._sweep_seconds = sweep_seconds
        self._store = Store()
        self._queue: KeyQueue[Key] = KeyQueue(clock=clock, jitter=jitter)
        self._contents = Contents(
            client, store=self._store, namespaces=config.namespaces, wake=self._wake, clock=time.monotonic, jitter=jitter
        )
        self._definitions = Definitions(client, on_filled=self._on_filled, clock=time.monotonic, jitter=jitter)
        self._listed = False
        self._listed_at = 0.0
        # Where a watch has begun since it was last listed there: what it does not tell of is not known yet.
        self._begun: set[Where] = set()
        self._watch_began = asyncio.Event()
        self.heartbeat = Heartbeat(clock=time.monotonic)
        self._passes: dict[Key, float] = {}  # the running ones, by when they began; monotonic seconds

    async def run(self) -> None:
        """Run until cancelled. Raises what makes going on impossible."""
        metrics, queue = self._metrics, self._queue
        metrics.queue_depth.set_function(lambda: len(queue.agenda))
        judging = Judging(self._evaluators, wake=self._wake, clock=self._clock, jitter=self._jitter)
        verification = Verification(self._store, client=self._client, wake=self._wake, clock=self._clock, jitter=self._jitter)
        reconcile, children = self._passes_with(judging, verification=verification)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(verification.close)
            port = self._config.telemetryPort
            await stack.enter_async_context(serve_endpoints(metrics.registry, port=port, alive=self._ill, ready=self._unready))
            beating = asyncio.create_task(self._beat())
            stack.callback(beating.cancel)
            await self._first_list(children)
            watches = Watches(self._connection, namespaces=self._config.namespaces, on_news=self._on_news, on_begin=self._on_begin)
            watches.start()
            stack.push_async_callback(watches.stop, within=STOP_SECONDS)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(watches.ended())
                tasks.create_task(self._sweep())
                tasks.create_task(self._definitions.keep())
                tasks.create_task(self._act_once_defined(reconcile, judging=judging))

    def _passes_with(self, judging: Judging, *, verification: Verification) -> tuple[Reconcile, Children]:
        """What makes a pass, wired."""
        config, metrics, store = self._config, self._metrics, self._store
        writes = Writes(self._client, store=store, instance=self._instance, wake=self._queue.add)
        children = Children(
            writes,
            store=store,
            image=config.gatewayImage,
            pull_secrets=config.gatewayImagePullSecrets,
            variables=config.gatewayEnv,
        )
        probes = Probes(writes, store=store, image=config.gatewayImage, pull_secrets=config.gatewayImagePullSecrets)
        reports = Reports(self._client, metrics=metrics, clock=self._clock)
        telling, repairs = Telling(writes, metrics=metrics), Repairs()
        reconcile = Reconcile(
            store=store,
            queue=self._queue,
            writes=writes,
            apply=Apply(
                writes, store=store, children=children, probes=probes, reports=reports, telling=telling, metrics=metrics, repairs=repairs
            ),
            children=children,
            contents=self._contents,
            kept=KeptRecords(writes, store=store),
            probes=probes,
            reports=reports,
            telling=telling,
            judging=judging,
            verification=verification,
            metrics=metrics,
            repairs=repairs,
            doubt=self._definitions.doubt,
            sources=frozenset(self._evaluators),
            clock=self._clock,
        )
        return reconcile, children

    async def _act_once_defined(self, reconcile: Reconcile, *, judging: Judging) -> None:
        """As `_act`, once all that is written is kept. Until then this process stands for no election: another one may be able to act."""
        await self._definitions.complete()
        await self._act(reconcile, judging=judging)

    async def _act(self, reconcile: Reconcile, *, judging: Judging) -> None:
        """Decide and write, from when this process leads. Another one may lead as soon as this has ended, not before."""
        leadership = self._leadership
        if leadership is None:
            self._metrics.leading.set(1)
            await self._passes_and_judging(reconcile, judging=judging)
            return
        await leadership.gain()
        self._metrics.leading.set(1)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(leadership.keep())
                tasks.create_task(self._passes_and_judging(reconcile, judging=judging))
                # What is live comes first; then what the last leader wrote and these watches have not told of yet.
                for key in self._store.policies():
                    self._queue.add(key, urgent=self._is_live(key))
                if self._clock() - self._listed_at > FRESH_SECONDS:
                    tasks.create_task(self._list_once())
        finally:
            await leadership.let_go()

    async def _passes_and_judging(self, reconcile: Reconcile, *, judging: Judging) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._contents.run())
            for source in self._evaluators:
                tasks.create_task(judging.run(source))
            for number in range(WORKERS + URGENT_WORKERS):
                tasks.create_task(self._work(reconcile, urgent_only=number >= WORKERS))

    def _is_live(self, key: PolicyKey) -> bool:
        policy = self._store.policy(key)
        return policy is not None and not {"canary", "guard"}.isdisjoint(policy.status)

    async def _beat(self) -> None:
        while True:
            self.heartbeat.beat()
            await asyncio.sleep(BEAT_SECONDS)

    def _ill(self) -> str | None:
        """What only a restart can mend: a stuck event loop, or a pass that, though every wait in it has a deadline, does not end."""
        if (problem := self.heartbeat.problem()) is not None:
            return problem
        now = time.monotonic()
        for key, began in self._passes.items():
            if now - began > LONGEST_PASS_SECONDS:
                return f"the pass of {key.namespace}/{key.name} does not come to an end"
        return None

    def _unready(self) -> str | None:
        return self._definitions.problem if self._listed else "the cluster has not been listed yet"

    def _wake(self, key: PolicyKey, urgent: bool = False) -> None:
        self._queue.add(key, urgent=urgent)

    def _on_news(self, news: Seen, gone: bool) -> None:
        self._concern(self._store.remove(news) if gone else self._store.put(news))

    def _on_filled(self, filled: Mapping[str, tuple[Filled, ...]]) -> None:
        self._concern(self._store.fill(filled))

    def _concern(self, keys: frozenset[Key]) -> None:
        for key in keys:
            self._queue.add(key)

    async def _first_list(self, children: Children) -> None:
        recorded = Recorded()

        def learn(resource: Resource, bodies: Sequence[Body]) -> None:
            for live, rendered in recorded.look(resource, bodies):
                children.learn(live, rendered=rendered)

        while True:
            try:
                await self._list(on_news=learn)
            except KubeError as error:
                _log.warning("the cluster cannot be listed; trying again", extra=fields(error=str(error)))
                await asyncio.sleep(FIRST_LIST_RETRY_SECONDS * (1 + self._jitter()))
            else:
                # What was listed mostly stays: no collection need look at it again.
                gc.collect()
                gc.freeze()
                self._listed = True
                return

    def _on_begin(self, where: Where) -> None:
        self._begun.add(where)
        self._watch_began.set()

    async def _sweep(self) -> None:
        """Compare with a fresh list now and then: a watch can miss a deletion. And where a watch has begun, as soon as it has."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._sweep_seconds * (1 + self._jitter() / 10)
            while (wait := due - loop.time()) > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._watch_began.wait()
                await self._list_begun()
            await self._list_once()

    async def _list_begun(self) -> None:
        self._watch_began.clear()
        for where in tuple(self._begun):
            self._begun.discard(where)  # before the list: a watch that begins during it wants another one
            try:
                async for concerned in list_one(self._client, where=where, store=self._store):
                    self._concern(concerned)
            except KubeError as error:
                _log.warning("what was there before a watch cannot be listed; trying again", extra=fields(error=str(error)))
                self._on_begin(where)
                await asyncio.sleep(FIRST_LIST_RETRY_SECONDS * (1 + self._jitter()))

    async def _list_once(self) -> None:
        try:
            await self._list()
        except KubeError as error:
            _log.warning("the sweep is put off", extra=fields(error=str(error)))

    async def _list(self, *, on_news: OnBodies = lambda _resource, _bodies: None) -> None:
        async for concerned in list_all(self._client, namespaces=self._config.namespaces, store=self._store, on_news=on_news):
            self._concern(concerned)
        self._listed_at = self._clock()

    async def _work(self, reconcile: Reconcile, *, urgent_only: bool = False) -> None:
        agenda = self._queue.agenda
        while True:
            key = await self._queue.get(urgent_only=urgent_only)
            self._passes[key] = time.monotonic()
            try:
                with self._metrics.passes.time():
                    again = await reconcile(key)
            except Overtaken as overtaken:
                pause = agenda.failed(key, now=self._clock())
                # Traffic leaves a canary at once, unless somebody keeps writing against it.
                if overtaken.falling and pause < LONGEST_HASTE_SECONDS:
                    self._queue.add(key, urgent=True)
                self._metrics.failures.labels("Overtaken").inc()
            except KubeError as error:
                self._failed(key, error=error)
            except Exception:  # noqa: BLE001 - one policy's pass must not end those of all others
                _log.exception("the pass failed", extra=fields(namespace=key.namespace, name=key.name))
                self._metrics.failures.labels("Bug").inc()
                agenda.failed(key, now=self._clock())
            else:
                if again:
                    agenda.failed(key, now=self._clock())
                else:
                    agenda.succeeded(key)
            finally:
                del self._passes[key]
                self._queue.done(key)
            # A pass of a policy in rest waits for nothing. After a start, thousands of them must not keep the Lease from being renewed.
            await asyncio.sleep(0)

    def _failed(self, key: Key, *, error: KubeError) -> None:
        pause = self._queue.agenda.failed(key, now=self._clock())
        self._metrics.failures.labels(type(error).__name__).inc()
        told = fields(namespace=key.namespace, name=key.name, error=str(error), seconds=round(pause, 2))
        _log.log(logging.INFO if isinstance(error, Unavailable) else logging.WARNING, "the pass is repeated", extra=told)

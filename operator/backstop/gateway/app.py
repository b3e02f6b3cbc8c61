"""The traffic port. Bounds, the entry hop, and the one place where an entry counts a request.

Knows who is asked (this pod or another revision) and tells the outcome; what an answer is made of is known elsewhere.
"""

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, Final

import msgspec

from ..api.metricnames import CacheUse, FirstTier, Outcome, Overload
from ..api.traffic import NO_STEERING, PodRole, role_of, takes_forwarded
from .access import Access
from .errors import OVERLOAD, REASON_HEADER, CallerError, envelope, named
from .exchange import Body, Reply, RequestHeaders, read_headers
from .feedback import FEEDBACK_PATH, LONGEST_FEEDBACK
from .feedbackdesk import FeedbackDesk
from .forward import Forwarder
from .httpexchange import CallerGoneError, Exchange
from .lifecycle import Lifecycle
from .metrics import GatewayMetrics
from .revision import Revision
from .room import NoRoomError, Room
from .serve import ANSWERED, LocalServer, Passage
from .split import Forward, ServeHere, SplitReason, has_no_share, route, route_synthetic
from .surface import MODELS_PATH, Endpoint
from .tracing import Tracing
from .view import TrafficView

# As `Lifecycle` counts them.
MAX_IN_FLIGHT: Final = 512
_NO_ROOM: Final = {
    Overload.REQUESTS: "too many requests are in flight; retry",
    Overload.BODIES: "the requests in flight are too large together; retry",
}
_ENDING: Final = "the gateway is shutting down"


class GatewayApp:
    """What answers on the traffic port."""

    def __init__(
        self,
        revision: Revision,
        *,
        local: LocalServer,
        forwarder: Forwarder,
        view: TrafficView,
        lifecycle: Lifecycle,
        room: Room,
        metrics: GatewayMetrics,
        clock: Callable[[], float],
        random: Random,
        access: Access | None = None,
        feedback: FeedbackDesk | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._revision = revision
        self._local = local
        self._forwarder = forwarder
        self._view = view
        self._lifecycle = lifecycle
        self._room = room
        self._metrics = metrics
        self._clock = clock
        self._random = random
        self._access = access
        self._feedback = feedback
        self._tracing = tracing
        vectors = bool(revision.embedding_tiers)
        self._offered = {e.value: e for e in Endpoint if vectors or e is not Endpoint.EMBEDDINGS}
        self._paths = (*self._offered, *([] if feedback is None else [FEEDBACK_PATH]))
        models = {name: {"id": name, "object": "model", "created": 0, "owned_by": "backstop"} for name in revision.models}
        # What is there to be looked at, by path: all models, and each.
        self._shown = {MODELS_PATH: msgspec.json.encode({"object": "list", "data": list(models.values())})}
        self._shown |= {f"{MODELS_PATH}/{name}": msgspec.json.encode(model) for name, model in models.items()}

    def __call__(self, exchange: Exchange) -> Coroutine[Any, Any, None]:
        """One request."""
        state = self._view.state
        access = self._access
        headers = read_headers(
            exchange.headers,
            steering=state.steering if state is not None else NO_STEERING,
            tenant_header=None if access is None else access.tenant_header,
            readable=self._revision.readable_headers,
        )
        role = role_of(self._revision.name, state=state)
        leaving = role is PodRole.NEITHER or (headers.pin is None and self._has_no_share())
        reply = Reply(exchange, clock=self._clock, closing=lambda: self._lifecycle.draining or leaving)
        if self._tracing is None:
            return self._answer(exchange, headers=headers, role=role, reply=reply)
        return self._traced(self._tracing, exchange=exchange, headers=headers, role=role, reply=reply)

    async def _traced(self, tracing: Tracing, *, exchange: Exchange, headers: RequestHeaders, role: PodRole, reply: Reply) -> None:
        path = exchange.path if exchange.path in self._paths or exchange.path in self._shown else None
        with tracing.begin(
            headers.trace.headers, method=exchange.method, version=exchange.version, path=path, identity=headers.identity, reply=reply
        ) as trace:
            await self._answer(exchange, headers=headers._replace(trace=trace), role=role, reply=reply)

    async def _answer(self, exchange: Exchange, *, headers: RequestHeaders, role: PodRole, reply: Reply) -> None:
        access = self._access
        if access is not None:
            try:
                headers = headers._replace(partition=access.partition(authorization=headers.authorization, tenant=headers.tenant))
            except CallerError as refusal:
                self._metrics.count_unauthorized()
                await self._refuse(refusal, headers=headers, role=role, reply=reply, said=(b"www-authenticate", b"Bearer"))
                return
        match exchange.method, exchange.path:
            case "POST", path if path in self._offered:
                await self._ask(self._offered[path], exchange=exchange, headers=headers, role=role, reply=reply)
            case "GET", path if path in self._shown:
                await reply.whole(200, headers=self._local.identify(headers.identity, role=role), body=self._shown[path])
            case "POST", path if path == FEEDBACK_PATH and self._feedback is not None:
                await self._take_feedback(self._feedback, exchange=exchange, headers=headers, role=role, reply=reply)
            case method, path if path in self._paths or path in self._shown:
                allowed = "GET" if path in self._shown else "POST"
                error = CallerError(f"`{named(method)}` is not offered on `{path}`; `{allowed}` is", status=405)
                await self._refuse(error, headers=headers, role=role, reply=reply, said=(b"allow", allowed.encode()))
            case _, path if path.startswith(f"{MODELS_PATH}/"):
                name = path.removeprefix(f"{MODELS_PATH}/")
                said = f"`{named(name)}` is no model of this policy; `GET {MODELS_PATH}` lists those that are"
                error = CallerError(said, param="model", status=404, code="model_not_found")
                await self._refuse(error, headers=headers, role=role, reply=reply)
            case _, path:
                offered = ", ".join(f"`{offered}`" for offered in self._paths)
                error = CallerError(f"`{named(path)}` is not offered; {offered} and `{MODELS_PATH}` are", status=404, code="not_found")
                await self._refuse(error, headers=headers, role=role, reply=reply)

    async def _refuse(
        self, error: CallerError, *, headers: RequestHeaders, role: PodRole, reply: Reply, said: tuple[bytes, bytes] | None = None
    ) -> None:
        """`said`: a header of this refusal's own."""
        own = [] if said is None else [said]
        await reply.caller_error(error, headers=[*self._local.identify(headers.identity, role=role), *own])

    async def _take_feedback(self, desk: FeedbackDesk, *, exchange: Exchange, headers: RequestHeaders, role: PodRole, reply: Reply) -> None:
        """What a caller thought of an answer. It is no request: nothing of it is judged, but what it says."""
        task = asyncio.current_task()
        assert task is not None
        self._lifecycle.enter(task)
        body = Body(self._room)
        try:
            if self._lifecycle.in_flight >= MAX_IN_FLIGHT:
                raise NoRoomError
            headers.check_form()
            await body.read(exchange, length=headers.content_length, most=LONGEST_FEEDBACK)
            said = desk.take(body.content)
        except CallerError as error:
            await self._refuse(error, headers=headers, role=role, reply=reply)
        except NoRoomError:
            await self._no_room(Overload.REQUESTS, headers=headers, role=role, reply=reply)
        except CallerGoneError:
            return
        except asyncio.CancelledError:
            if not self._lifecycle.ending:
                raise
            task.uncancel()
            await reply.interrupt(_ENDING, code="shutting_down", headers=self._local.identify(headers.identity, role=role))
        else:
            await reply.whole(200, headers=self._local.identify(headers.identity, role=role), body=said)
        finally:
            body.let_go()
            self._lifecycle.leave(task)

    async def _ask(self, endpoint: Endpoint, *, exchange: Exchange, headers: RequestHeaders, role: PodRole, reply: Reply) -> None:
        target = headers.hop if headers.hop is not None else headers.pin
        if target is not None and not takes_forwarded(
            self._revision.name, target=target, state=self._view.state, pinned=headers.pin is not None
        ):
            await self._decline(headers, role=role, reply=reply)
            return
        if headers.synthetic is not None and target is None and self._for_synthetic(headers.synthetic) is None:
            await self._decline(headers, role=role, reply=reply)
            return
        passage = Passage(endpoint=endpoint, revision=self._revision.name, started=self._clock(), budget=self._revision.budget)
        passage.judged = headers.pin is None and endpoint is not Endpoint.EMBEDDINGS
        task = exchange.task
        assert task is not None
        self._lifecycle.enter(task)
        try:
            if self._lifecycle.in_flight >= MAX_IN_FLIGHT:
                await self._overloaded(Overload.REQUESTS, headers=headers, role=role, reply=reply, passage=passage)
                return
            await self._admitted(exchange, headers=headers, role=role, reply=reply, passage=passage)
        finally:
            self._lifecycle.leave(task)
            self._count(passage, entry=headers.hop is None, reply=reply)
            headers.trace.counted(passage.outcome)

    async def _decline(self, headers: RequestHeaders, *, role: PodRole, reply: Reply) -> None:
        said = self._local.identify(headers.identity, role=role)
        await reply.whole(421, headers=said, body=envelope("not served by this revision", kind="invalid_request_error", code="misdirected"))

    def _for_synthetic(self, canary: str) -> Forward | None:
        return route_synthetic(self._revision.name, state=self._view.state, canary=canary)

    async def _overloaded(self, reason: Overload, *, headers: RequestHeaders, role: PodRole, reply: Reply, passage: Passage) -> None:
        """There is no room: the gateway's own doing, whatever the revision. An entry hop reads the reason, and counts it so too."""
        passage.outcome = Outcome.REFUSED
        await self._no_room(reason, headers=headers, role=role, reply=reply)

    async def _no_room(self, reason: Overload, *, headers: RequestHeaders, role: PodRole, reply: Reply) -> None:
        self._metrics.count_refused(reason)
        said = [*self._local.identify(headers.identity, role=role), (b"retry-after", b"1"), (REASON_HEADER.encode(), OVERLOAD.encode())]
        error = envelope(_NO_ROOM[reason], kind="rate_limit_error", code="overload")
        await reply.whole(429, headers=said, body=error)

    async def _admitted(self, exchange: Exchange, *, headers: RequestHeaders, role: PodRole, reply: Reply, passage: Passage) -> None:
        body = Body(self._room)
        try:
            await self._read_and_serve(body, exchange, headers=headers, role=role, reply=reply, passage=passage)
        finally:
            body.let_go()

    async def _read_and_serve(
        self, body: Body, exchange: Exchange, *, headers: RequestHeaders, role: PodRole, reply: Reply, passage: Passage
    ) -> None:
        try:
            patience = headers.patience
            headers.check_form()
            await body.read(exchange, length=headers.content_length)
        except NoRoomError:
            await self._overloaded(Overload.BODIES, headers=headers, role=role, reply=reply, passage=passage)
            return
        except CallerError as error:
            passage.outcome = Outcome.CALLER_ERROR
            await self._refuse(error, headers=headers, role=role, reply=reply)
            return
        except CallerGoneError:
            passage.outcome = Outcome.CANCELLED
            return
        except asyncio.CancelledError:
            await self._interrupted(passage, headers=headers, role=role, reply=reply)
            return
        if self._lifecycle.in_flight >= MAX_IN_FLIGHT:  # others came in between
            await self._overloaded(Overload.REQUESTS, headers=headers, role=role, reply=reply, passage=passage)
            return
        passage.started = self._clock()
        if patience is not None and patience < self._revision.budget:
            # Less time than the policy promises to keep to: what becomes of it says nothing of the revision.
            passage.budget, passage.judged = patience, False
        task = exchange.task
        assert task is not None
        self._lifecycle.in_flight += 1
        exchange.cancel_when_gone()
        try:
            await self._serve(body, headers=headers, role=role, reply=reply, passage=passage)
        except asyncio.CancelledError:
            if exchange.gone:
                passage.outcome = Outcome.CANCELLED
                task.uncancel()
                return
            await self._interrupted(passage, headers=headers, role=role, reply=reply)
        finally:
            exchange.leave_alone()
            self._lifecycle.in_flight -= 1

    async def _serve(self, body: Body, *, headers: RequestHeaders, role: PodRole, reply: Reply, passage: Passage) -> None:
        state = self._view.state
        decision: ServeHere | Forward = ServeHere()
        synthetic = headers.synthetic if headers.hop is None and headers.pin is None else None
        if synthetic is not None:
            to = self._for_synthetic(synthetic)
            if to is not None and await self._forwarder.forward(body, to=to, headers=headers, reply=reply, passage=passage) is None:
                return
            passage.judged = False  # nobody took it, and it is for nobody else
            await self._decline(headers, role=PodRole.STABLE, reply=reply)
            passage.outcome = Outcome.CALLER_ERROR
            return
        if headers.hop is None and headers.pin is None and passage.endpoint is not Endpoint.EMBEDDINGS:
            draw = self._random.random()
            decision = route(self._revision.name, state=state, draw=draw, sticky=headers.sticky, track=headers.track)
        passage.judged = passage.judged and not decision.pinned
        if isinstance(decision, Forward):
            reason = await self._forwarder.forward(body, to=decision, headers=headers, reply=reply, passage=passage)
            if reason is None:
                return
            self._take_back(passage, reason=reason)
        passage.judged = passage.judged and not self._has_no_share()
        if headers.hop is None and passage.judged:
            self._metrics.entry.of(self._revision.name).count_sent()
        await self._local.serve(body, headers=headers, reply=reply, role=role, passage=passage)

    def _has_no_share(self) -> bool:
        """Whether this is a pod of a canary without a share: what it serves itself was sent by nobody who splits."""
        return has_no_share(self._revision.name, state=self._view.state)

    def _take_back(self, passage: Passage, *, reason: SplitReason) -> None:
        """Nobody took the request and nothing of an answer has left: this pod serves it."""
        self._metrics.count_split("self", reason=reason.value)
        passage.revision, passage.first_tier, passage.cache = self._revision.name, FirstTier.SKIPPED, CacheUse.MISS

    async def _interrupted(self, passage: Passage, *, headers: RequestHeaders, role: PodRole, reply: Reply) -> None:
        """The gateway ends before the request: say so to the caller. A cancellation from elsewhere goes on."""
        task = asyncio.current_task()
        if not self._lifecycle.ending or task is None:
            raise asyncio.CancelledError
        task.uncancel()
        passage.outcome = Outcome.TRUNCATED if reply.begun else Outcome.ERROR
        await reply.interrupt(_ENDING, code="shutting_down", headers=self._local.identify(headers.identity, role=role))

    def _count(self, passage: Passage, *, entry: bool, reply: Reply) -> None:
        self._local.count(passage, first_byte_at=reply.first_byte_at)
        if entry and passage.judged:
            answered = passage.outcome in ANSWERED and reply.first_byte_at is not None
            seconds = reply.first_byte_at - passage.started if answered and reply.first_byte_at is not None else None
            self._metrics.entry.of(passage.revision).count_served(
                passage.outcome, first=passage.first_tier, seconds=seconds, cache=passage.cache
            )
            if passage.outcome is Outcome.SUCCESS and passage.use is not None:
                self._metrics.entry.of(passage.revision).count_usage(passage.use)

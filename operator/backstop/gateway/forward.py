"""The entry hop's other half: a request that another revision serves, relayed to the caller, and told as the caller saw it."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from ..api.metricnames import CacheUse, FailureMode, FirstTier, Outcome
from ..api.steering import TRACK_HEADER
from ..api.traffic import PodRole
from .answer import MalformedError
from .client import Answer, GarbledError
from .connection import UNREAD_SECONDS
from .continuing import tells_that_first_failed
from .errors import JSON_TYPE, OVERLOAD, REASON_HEADER, SLOW_CALLER_EVENT, envelope, error_event
from .exchange import Body, Reply, RequestHeaders, carried
from .metrics import GatewayMetrics
from .peers import NotTaken, PeerAnswer, PeerFailedError, Peers
from .responses import ends_well, tells_slowness
from .revision import Revision
from .serve import BUDGET_HEADER, CACHE_HEADER, FIRST_TIER_HEADER, Passage
from .split import Forward, SplitReason
from .sse import DONE, Event, EventSplitter, EventTooLongError
from .upstream import read_bounded
from .usage import USAGE_HEADER, heard, heard_comment

# Statuses that are the caller's doing, whoever answered them.
CALLER_STATUSES: Final = frozenset({400, 405, 408, 413, 415, 422, 431})
_STATUSES: Final = range(200, 600)
_NO_ROOM: Final = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_PASSED_HEADERS: Final = ("retry-after", "x-should-retry", "www-authenticate")
_OWN_HEADERS: Final = (BUDGET_HEADER, TRACK_HEADER, USAGE_HEADER)


class Forwarder:
    """Relays requests to other revisions."""

    def __init__(self, revision: Revision, *, peers: Peers, metrics: GatewayMetrics) -> None:
        self._policy = revision.policy
        self._peers = peers
        self._metrics = metrics

    async def forward(self, body: Body, *, to: Forward, headers: RequestHeaders, reply: Reply, passage: Passage) -> SplitReason | None:
        """Relay one request; None when it is done, a reason when nobody took it and nothing has left."""
        series = self._metrics.entry.of(to.revision)
        passage.revision, passage.outcome, passage.first_tier = to.revision, Outcome.ERROR, FirstTier.FAILED
        hop = headers.trace.hop(to.revision, path=passage.endpoint.value)
        try:
            answer = await self._peers.send(
                to.revision,
                path=passage.endpoint.value,
                body=body.content,
                headers=headers.to_forward(to.revision, trace=hop.headers, pinned=to.pinned),
                on_sent=_once(series.count_sent if passage.judged else _uncounted),
            )
        except PeerFailedError as error:
            hop.over(failure=FailureMode.DEPENDENCY_FAILURE.value)
            await self._fail(str(error), to=to, identity=headers.identity, reply=reply)
            return None
        if isinstance(answer, NotTaken):
            hop.over(failure=answer.reason.value)
            return answer.reason
        body.let_go()
        self._metrics.count_split(to.to.value, reason=to.reason.value)
        try:
            passage.first_tier = _first_tier(answer.response.header(FIRST_TIER_HEADER))
            passage.cache = _cache_use(answer.response.header(CACHE_HEADER))
            await self._relay(answer, to=to, identity=headers.identity, reply=reply, passage=passage)
        finally:
            answer.close()
        broke_off = passage.outcome in (Outcome.ERROR, Outcome.TRUNCATED)
        hop.over(status=answer.response.status, failure=FailureMode.DEPENDENCY_FAILURE.value if broke_off else "")
        return None

    async def _relay(self, answer: PeerAnswer, *, to: Forward, identity: str, reply: Reply, passage: Passage) -> None:
        response = answer.response
        said = [
            header
            for name, value in response.headers
            if (name.startswith("x-backstop-") and name not in _OWN_HEADERS) or name in _PASSED_HEADERS
            for header in carried(name, value=value)
        ]
        said.append((TRACK_HEADER.encode(), _track(to)))  # a peer that cannot read the traffic object does not know its own
        if (response.header("content-type") or "").lower().startswith("text/event-stream"):
            passage.outcome = await _relay_stream(response, reply=reply, headers=said, passage=passage)
            if not reply.begun:
                await self._fail("the revision that was asked broke off", to=to, identity=identity, reply=reply)
            return
        try:
            body = await read_bounded(response)
            if response.status not in _STATUSES:
                raise MalformedError("no such status")
        except (OSError, GarbledError, MalformedError):
            await self._fail("the revision that was asked broke off", to=to, identity=identity, reply=reply)
            return
        passage.outcome = outcome_of(response.status, reason=response.header(REASON_HEADER))
        passage.use = heard(response.header(USAGE_HEADER))
        content_type = response.header("content-type") or JSON_TYPE
        await reply.whole(response.status, headers=said, body=body, content_type=content_type)

    async def _fail(self, message: str, *, to: Forward, identity: str, reply: Reply) -> None:
        headers = [
            (b"x-backstop-request-id", identity.encode()),
            (b"x-backstop-policy", self._policy.encode()),
            (b"x-backstop-revision", to.revision.encode()),
            (TRACK_HEADER.encode(), _track(to)),
            (b"x-should-retry", b"false"),
        ]
        await reply.whole(502, headers=headers, body=envelope(message, kind="server_error", code="revision_failed"))


async def _relay_stream(response: Answer, *, reply: Reply, headers: list[tuple[bytes, bytes]], passage: Passage) -> Outcome:
    """Pass complete events on at once. Only a stream that says `[DONE]` is a success; one that fails early leaves no reply."""
    splitter, done, last = EventSplitter(), False, None
    try:
        while chunk := await response.read():
            events = splitter.feed(chunk)
            if events and (use := heard_comment(events[-1].raw)) is not None:
                passage.use = use
                del events[-1]
            if not events:
                continue
            if passage.first_tier is FirstTier.ANSWERED and any(tells_that_first_failed(event.raw) for event in events):
                passage.first_tier = FirstTier.FAILED
            raw, last = b"".join([event.raw for event in events]), events[-1]
            done = done or last.data == DONE or ends_well(last.raw)
            if reply.begun:
                await reply.pass_on(raw)
            else:
                await reply.begin_stream(headers=headers, head=raw)
    except (OSError, GarbledError, EventTooLongError):
        if reply.begun:
            await reply.end_stream(
                error_event("the answer is incomplete: the revision that was asked broke off", code="stream_interrupted")
            )
        return _cut(reply, last=None)
    if reply.begun:
        await reply.end_stream()
    return Outcome.SUCCESS if done else _cut(reply, last=last)


def _cut(reply: Reply, *, last: Event | None) -> Outcome:
    """How a stream counts that ended early. A peer cuts off a caller that does not read as this pod does, behind this pod's back."""
    if not reply.begun:
        return Outcome.ERROR
    slow = reply.longest_wait >= UNREAD_SECONDS or (last is not None and (last.raw == SLOW_CALLER_EVENT or tells_slowness(last.raw)))
    return Outcome.CANCELLED if slow else Outcome.TRUNCATED


def outcome_of(status: int, *, reason: str | None) -> Outcome:
    """How a whole answer of this status counts; `reason` is what the peer says of it."""
    if status < 400:
        return Outcome.SUCCESS
    if status in _NO_ROOM and reason == OVERLOAD:
        return Outcome.REFUSED
    return Outcome.CALLER_ERROR if status in CALLER_STATUSES else Outcome.ERROR


def _uncounted() -> None:
    """A pinned request says nothing of what chance gave the canary."""


def _track(to: Forward) -> bytes:
    return b"canary" if to.to is PodRole.CANARY else b"stable"


def _first_tier(said: str | None) -> FirstTier:
    return next((tier for tier in FirstTier if tier.value == said), FirstTier.SKIPPED)


def _cache_use(said: str | None) -> CacheUse:
    return next((use for use in CacheUse if use.value == said), CacheUse.MISS)


def _once(count: Callable[[], None]) -> Callable[[], None]:
    """A redialled connection sends the headers again; it is still one request."""
    told = False

    def tell() -> None:
        nonlocal told
        if not told:
            told = True
            count()

    return tell

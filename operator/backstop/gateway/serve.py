"""Serving a request here: prompt, chain, answer, and what is said about it in headers and metrics."""

import secrets
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Final, NamedTuple, assert_never

from ..api.metricnames import CacheUse, FirstTier, Outcome, Overload
from ..api.steering import TRACK_HEADER
from ..api.traffic import PodRole
from .allowance import Allowance
from .answercache import AnswerCache, CacheAccess
from .body import ChatRequest, Wanted, parse_chat
from .chain import Answered, Chain, Exhausted
from .continuing import Continuation, may_go_on
from .errors import REASON_HEADER, CallerError, exhausted
from .exchange import Body, Reply, RequestHeaders, Spelling, carried
from .metrics import GatewayMetrics
from .quality.sampling import AnswerSampler, AnswerStream, Draw
from .relay import Relay
from .replay import Replay, as_stream
from .responserequest import as_chat
from .responses import Responses
from .revision import STATIC_MODEL, Revision, StaticTier
from .static import FixedAnswer, static_completion, static_stream
from .surface import Completions, Endpoint, chat_of, embeddings_of
from .tracing import Trace
from .upstream import PassedBack, Streaming, Whole
from .usage import USAGE_HEADER, ModelUse, told, usage_in
from .walk import Walk

FIRST_TIER_HEADER: Final = "x-backstop-first-tier"
HEDGED: Final = "Hedge"  # said there where nothing has failed, and a later tier was faster
CACHE_HEADER: Final = "x-backstop-cache"
CACHE_AGE_HEADER: Final = "x-backstop-cache-age"  # whole seconds
BUDGET_HEADER: Final = "x-backstop-budget-ms"
NO_TIER: Final = "none"
ANSWERED: Final = (Outcome.SUCCESS, Outcome.TRUNCATED)


class Passage:
    """What became of one request, for the one who counts it: filled in as it goes."""

    def __init__(self, *, endpoint: Endpoint, revision: str, started: float, budget: float) -> None:
        self.endpoint = endpoint
        self.revision = revision
        self.started = started
        self.budget = budget  # seconds from `started` to the first byte
        self.judged = True  # counted for the analysis
        self.outcome = Outcome.ERROR
        self.first_tier = FirstTier.SKIPPED
        self.cache = CacheUse.MISS
        self.use: ModelUse | None = None  # where a model was asked for it, and answered
        # Of a request that this pod's own chain served:
        self.served_as: PodRole | None = None
        self.tier = NO_TIER
        self.first_broke_off = False  # the first tier, after its first content; another one finished the answer
        self.overhead: float | None = (
            None  # seconds to the first byte that were not spent waiting for a target, or for a level of the cache
        )


class Asked(NamedTuple):
    """What a knowledge base is asked. `languages`: an `Accept-Language` header."""

    question: str
    languages: str


class LocalServer:
    """Serves requests by this pod's own revision. `clock` is monotonic, `now` the wall clock, in seconds."""

    def __init__(
        self,
        revision: Revision,
        *,
        chain: Chain,
        vectors: Chain,
        metrics: GatewayMetrics,
        clock: Callable[[], float],
        now: Callable[[], float],
        cache: AnswerCache | None = None,
        allowance: Allowance | None = None,
        quality: AnswerSampler | None = None,
    ) -> None:
        self._revision = revision
        self._chain = chain
        self._vectors = vectors
        self._metrics = metrics
        self._clock = clock
        self._now = now
        self._cache = cache
        self._allowance = allowance
        self._relay = Relay(metrics=metrics, clock=clock)
        self._quality = quality
        self._constant = [
            (b"x-backstop-policy", revision.policy.encode()),
            (b"x-backstop-revision", revision.name.encode()),
            (b"x-backstop-prompt-version", revision.prompt_version.encode()),
        ]

    def identify(self, identity: str, *, role: PodRole) -> list[tuple[bytes, bytes]]:
        """Headers that every answer of this pod carries."""
        return [(b"x-backstop-request-id", identity.encode()), *self._constant, _TRACK_LINES[role]]

    async def serve(self, body: Body, *, headers: RequestHeaders, reply: Reply, role: PodRole, passage: Passage) -> None:
        """Answer one request. Whatever happens, `passage` tells it."""
        said = self.identify(headers.identity, role=role)
        if headers.hop is not None:
            said.append((BUDGET_HEADER.encode(), b"%d" % round(self._revision.budget * 1000)))
        passage.served_as = role
        allowed = self._revision.allowed_for(headers.tenant)
        walk = Walk(started=passage.started, budget=passage.budget, hurried=passage.budget < self._revision.budget, allowed=allowed)
        try:
            try:
                request = self._read(body.hand_over(), endpoint=passage.endpoint, headers=headers)
            except CallerError as error:
                passage.outcome = Outcome.CALLER_ERROR
                await reply.caller_error(error, headers=said)
                return
            if passage.endpoint is Endpoint.EMBEDDINGS:
                kept, answer = None, await self._vectors.answer(request, trace=headers.trace, walk=walk)
            else:
                kept = None
                if self._cache is not None:
                    kept = self._cache.open(request, cache_control=headers.cache_control, partition=headers.partition, allowed=allowed)
                answer = await self._find(request, headers=headers, walk=walk, kept=kept)
            reply.spelling = self._spelling(passage.endpoint, request=request)
            wanted, asked = request.wanted, Asked(request.question, headers.languages)
            going_on = self._going_on(request, answer=answer, trace=headers.trace, walk=walk)
            draw = self._draw(request, answer=answer, walk=walk, passage=passage)
            del request
            if going_on is None:  # nobody needs the body that it was made of
                body.let_go()
            now = self._clock()
            passage.overhead = max(0.0, now - passage.started - walk.waited_by(now))
            passage.tier = answer.tier if isinstance(answer, Answered) else NO_TIER
            if self._revision.feedback is not None and isinstance(answer, Answered) and not isinstance(answer.answer, PassedBack):
                said[0] = (said[0][0], self._signed(headers.identity, counts=passage.judged))
            said += _say(answer, walk=walk, overhead=passage.overhead)
            if kept is not None:
                said.append((CACHE_HEADER.encode(), kept.lookup.encode()))
            if isinstance(answer, Answered) and isinstance(answer.answer, Replay):
                passage.cache = answer.answer.use
                said.append((CACHE_AGE_HEADER.encode(), b"%d" % answer.answer.age))
            # Who waited for the answer to another request has asked no model, and took no tokens.
            if isinstance(answer, Answered) and isinstance(answer.answer, Whole) and answer.upstream and answer.tier in walk.asked:
                passage.use = ModelUse(answer.upstream.target, usage=usage_in(answer.answer.body))
                said += [(USAGE_HEADER.encode(), told(passage.use))] if headers.hop is not None else []
            passage.outcome = await self._answer(
                answer,
                wanted=wanted,
                asked=asked,
                reply=reply,
                headers=said,
                request=headers,
                kept=kept,
                passage=passage,
                draw=draw,
                going_on=going_on,
            )
        finally:
            passage.first_tier = FirstTier.FAILED if passage.first_broke_off else walk.first_tier

    def _read(self, text: bytes, *, endpoint: Endpoint, headers: RequestHeaders) -> ChatRequest:
        echo: Mapping[str, bytes] = {}
        match endpoint:
            case Endpoint.EMBEDDINGS:  # no prompt has a say in them
                return ChatRequest(members=embeddings_of(text), wanted=Wanted(stream=False, include_usage=False))
            case Endpoint.COMPLETIONS:
                text = chat_of(text)
            case Endpoint.RESPONSES:
                text, echo = as_chat(text)
            case Endpoint.CHAT:
                pass
            case _:
                assert_never(endpoint)
        request = parse_chat(text, revision=self._revision, header_variables=headers.variables, identity=headers.identity, echo=echo)
        if not self._revision.has_knowledge:
            return request
        return request._replace(
            languages=headers.languages,
            headers=headers.read,
            synthetic=headers.synthetic is not None,
        )

    def _spelling(self, endpoint: Endpoint, *, request: ChatRequest) -> Spelling | None:
        match endpoint:
            case Endpoint.COMPLETIONS:
                return Completions()
            case Endpoint.RESPONSES:
                return Responses(identity=request.identity, created=int(self._now()), echo=request.echo)
            case Endpoint.CHAT | Endpoint.EMBEDDINGS:
                return None
            case _:
                assert_never(endpoint)

    async def _find(self, request: ChatRequest, *, headers: RequestHeaders, walk: Walk, kept: CacheAccess | None) -> Answered | Exhausted:
        """A fresh answer that is kept, or what the chain gives."""
        if self._cache is not None and kept is not None and (replay := await kept.fresh(walk)) is not None:
            model = self._cache.first.model
            return Answered(tier=self._cache.tier.name, model=model, answer=replay, upstream=None, attempt_started=walk.started)
        return await self._chain.answer(request, trace=headers.trace, walk=walk, cache=kept)

    def _draw(self, request: ChatRequest, *, answer: Answered | Exhausted, walk: Walk, passage: Passage) -> Draw | None:
        """Whether the answer is to be judged: only what a model gave to this request, and only where chance chose who serves it."""
        if self._quality is None or not passage.judged or not isinstance(answer, Answered) or answer.tier not in walk.asked:
            return None
        return self._quality.draw(request.members, allowed=walk.allowed) if isinstance(answer.answer, Whole | Streaming) else None

    def _signed(self, identity: str, *, counts: bool) -> bytes:
        """An id that the answer's caller can say something of it by."""
        keys = self._revision.feedback
        assert keys is not None, "only where there is feedback"
        signed = keys.sign(identity, revision=self._revision.name, now=self._now(), nonce=secrets.randbits(64), counts=counts)
        return signed.encode()

    async def _answer(
        self,
        answer: Answered | Exhausted,
        *,
        wanted: Wanted,
        asked: Asked,
        reply: Reply,
        headers: list[tuple[bytes, bytes]],
        request: RequestHeaders,
        kept: CacheAccess | None,
        passage: Passage,
        going_on: Continuation | None,
        draw: Draw | None,
    ) -> Outcome:
        if isinstance(answer, Exhausted):
            status, body = exhausted(answer.failure)
            if answer.failure.own:  # another pod may have what is lacking here, and so may this one in a second
                self._metrics.count_refused(Overload.FILES)
                await reply.whole(status, headers=[*headers, (b"retry-after", b"1")], body=body)
                return Outcome.REFUSED
            await reply.whole(status, headers=[*headers, (b"x-should-retry", b"false")], body=body)
            return Outcome.ERROR
        match answer.answer:
            case Whole(body):
                await reply.whole(200, headers=headers, body=body)
                if draw is not None:
                    draw.whole(body)
                return Outcome.SUCCESS
            case PassedBack(status, content_type, body):
                await reply.whole(status, headers=headers, body=body, content_type=content_type)
                # The caller chooses neither address nor model name: that the target does not know them is the revision's fault.
                return Outcome.ERROR if status == HTTPStatus.NOT_FOUND else Outcome.CALLER_ERROR
            case StaticTier(text=text, answers=answers):
                if answers is not None:
                    text = answers.answer(asked.question, languages=asked.languages)
                fixed = FixedAnswer(text, STATIC_MODEL)
                await self._answer_statically(fixed, wanted=wanted, reply=reply, headers=headers, identity=request.identity)
                return Outcome.SUCCESS
            case FixedAnswer() as fixed:
                await self._answer_statically(fixed, wanted=wanted, reply=reply, headers=headers, identity=request.identity)
                return Outcome.SUCCESS
            case Replay(body=body):
                if wanted.stream:
                    await reply.begin_stream(headers=headers, head=as_stream(body, include_usage=wanted.include_usage))
                    await reply.end_stream()
                else:
                    await reply.whole(200, headers=headers, body=body)
                return Outcome.SUCCESS
            case Streaming() as streaming:
                stream: AnswerStream = streaming if kept is None else kept.recorded(streaming, tier=answer.tier)
                stream = stream if draw is None else draw.recorded(stream)
                hop = request.hop is not None
                relayed = await self._relay.run(stream, answer=answer, reply=reply, headers=headers, hop=hop, going_on=going_on)
                passage.use, passage.first_broke_off = relayed.use, relayed.first_broke_off
                return relayed.outcome

    async def _answer_statically(
        self, fixed: FixedAnswer, *, wanted: Wanted, reply: Reply, headers: list[tuple[bytes, bytes]], identity: str
    ) -> None:
        completion, created = f"chatcmpl-{identity}", int(self._now())
        if wanted.stream:
            events = static_stream(fixed, identity=completion, created=created, include_usage=wanted.include_usage)
            await reply.begin_stream(headers=headers, head=events)
            await reply.end_stream()
        else:
            await reply.whole(200, headers=headers, body=static_completion(fixed, identity=completion, created=created))

    def _going_on(self, request: ChatRequest, *, answer: Answered | Exhausted, trace: Trace, walk: Walk) -> Continuation | None:
        """What a stream would be finished with, should it break off; None where it would not be."""
        if not (isinstance(answer, Answered) and isinstance(answer.answer, Streaming)):
            return None
        if not (self._revision.continues and may_go_on(request)):
            return None
        return Continuation(
            request,
            first=answer.upstream is self._revision.tiers[0],
            candidates=partial(self._chain.behind, request=request, walk=walk),
            ask=partial(self._chain.finish, trace=trace, walk=walk),
        )

    def count(self, passage: Passage, *, first_byte_at: float | None) -> None:
        """Count a request that was served here, once its outcome is settled."""
        if passage.served_as is None:
            return
        first_byte = None if first_byte_at is None else first_byte_at - passage.started
        if first_byte is not None and first_byte > self._revision.budget:
            self._metrics.count_budget_exceeded()
        if passage.use is not None and passage.use.usage is not None:
            self._metrics.count_tokens(passage.tier, usage=passage.use.usage)
            if self._allowance is not None:
                self._allowance.took(passage.tier, usage=passage.use.usage)
        self._metrics.count_request(
            track=_track(passage.served_as),
            tier=passage.tier,
            outcome=passage.outcome,
            seconds=self._clock() - passage.started,
            first_byte=first_byte if passage.outcome in ANSWERED else None,
            overhead=passage.overhead,
        )


def _track(role: PodRole) -> str:
    return "canary" if role is PodRole.CANARY else "stable"


_TRACK_LINES: Final = {role: (TRACK_HEADER.encode(), _track(role).encode()) for role in PodRole}


@lru_cache(maxsize=64)  # tiers and models are few and come from configuration
def _who(tier: str, model: str) -> tuple[tuple[bytes, bytes], ...]:
    return (b"x-backstop-tier", tier.encode()), *carried("x-backstop-model", value=model)


def _say(answer: Answered | Exhausted, *, walk: Walk, overhead: float) -> list[tuple[bytes, bytes]]:
    said = [
        (b"x-backstop-attempts", b"%d" % walk.attempts),
        (b"x-backstop-hand-offs", b"%d" % walk.hand_offs),
        (FIRST_TIER_HEADER.encode(), walk.first_tier.encode()),
        (b"x-backstop-overhead-ms", f"{overhead * 1000:.2f}".encode()),
    ]
    if isinstance(answer, Answered):
        said += _who(answer.tier, answer.model)
    if walk.failures:  # of no answer the one that it tells of, which an entry hop counts it by
        failure = answer.failure if isinstance(answer, Exhausted) else walk.failures[0]
        said.append((REASON_HEADER.encode(), failure.reason.encode()))
    elif walk.hedged:
        said.append((REASON_HEADER.encode(), HEDGED.encode()))
    return said

"""Passing a stream on to its caller: timers, whose time it was that ran out, and who goes on where it breaks off.

Knows neither who is asked first nor what is counted of a request.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ..api.metricnames import Outcome
from .chain import Answered
from .continuing import Continuation, ContinuedStream
from .errors import SLOW_CALLER_EVENT, error_event
from .exchange import Reply
from .metrics import GatewayMetrics
from .quality.sampling import AnswerStream
from .revision import ModelTier
from .timing import Deadline
from .upstream import CutError
from .usage import ModelUse, comment

TIMER_SLACK: Final = 0.05  # seconds: timers may fire a little early


@dataclass(frozen=True)
class Relayed:
    """What became of a stream. `use`: where it ended as it should; `first_broke_off`: the chain's first tier, and another one finished."""

    outcome: Outcome
    use: ModelUse | None = None
    first_broke_off: bool = False


class Relay:
    """Relays streams. `clock` is monotonic, in seconds."""

    def __init__(self, *, metrics: GatewayMetrics, clock: Callable[[], float]) -> None:
        self._metrics = metrics
        self._clock = clock

    async def run(
        self,
        stream: AnswerStream,
        *,
        answer: Answered,
        reply: Reply,
        headers: list[tuple[bytes, bytes]],
        hop: bool,
        going_on: Continuation | None,
    ) -> Relayed:
        """Pass a stream on, and what finishes it where it breaks off; close it. `hop`: tell the entry what it took."""
        tier = answer.upstream
        assert isinstance(tier, ModelTier)
        began, ends = answer.attempt_started, answer.attempt_started + tier.total
        why, late = "", False  # it was the first time
        try:
            while True:
                try:
                    await self._pass_on(stream, tier=tier, ends=ends, reply=reply, headers=headers, going_on=going_on)
                    break
                except CutError as error:
                    why, late = why or str(error), False
                except TimeoutError:
                    # Whose time it was: the total is over also where it was quick and the caller was not. A silence is the target's.
                    why, late = why or "the target fell silent, or took too long", True
                    if (total_is_over := self._clock() > ends - TIMER_SLACK) and reply.waited > (self._clock() - began) / 2:
                        await reply.end_stream(SLOW_CALLER_EVENT)
                        return Relayed(Outcome.CANCELLED)
                    going_on = None if total_is_over else going_on
                await stream.close(late=late)
                rest = None if going_on is None else await going_on.go_on(tier, within=ends - self._clock())
                if rest is None:
                    await reply.end_stream(error_event(f"the answer is incomplete: {why}", code="stream_interrupted"))
                    return Relayed(Outcome.TRUNCATED)
                tier, stream = rest
            use = ModelUse(tier.target, usage=stream.usage)
            await reply.end_stream(comment(use) if hop else b"")
        finally:
            await stream.close()  # after the caller's end: a target may keep its own open
        continued = isinstance(stream, ContinuedStream)
        if continued:
            self._metrics.count_continued(answer.tier, to=tier.name)
        if reply.failed:
            return Relayed(Outcome.TRUNCATED, use=use)
        return Relayed(Outcome.SUCCESS, use=use, first_broke_off=continued and going_on is not None and going_on.first)

    async def _pass_on(
        self,
        stream: AnswerStream,
        *,
        tier: ModelTier,
        ends: float,
        reply: Reply,
        headers: list[tuple[bytes, bytes]],
        going_on: Continuation | None,
    ) -> None:
        """Pass a stream on as it comes, to its proper end. Content restarts the stall timer, comments do not; nothing outlives `ends`.

        Time in which the caller does not take what has come is not the target's silence. Raises CutError, TimeoutError.
        """
        if not reply.begun and not reply.must_wait:  # nothing delays the first of an answer, a timer neither
            await self._begin(stream, reply=reply, headers=headers, going_on=going_on)
        async with Deadline(ends, clock=self._clock) as timer:
            if not reply.begun:
                await self._begin(stream, reply=reply, headers=headers, going_on=going_on)
            silent_at = self._clock() + tier.stall
            while True:
                timer.reschedule(min(ends, silent_at))
                piece = await stream.more()
                timer.reschedule(ends)
                if piece is None:
                    return
                events, content = piece
                waited = reply.waited
                await reply.pass_on(events)
                if going_on is not None:
                    going_on.take(events)
                silent_at = self._clock() + tier.stall if content else silent_at + reply.waited - waited

    async def _begin(
        self, stream: AnswerStream, *, reply: Reply, headers: list[tuple[bytes, bytes]], going_on: Continuation | None
    ) -> None:
        await reply.begin_stream(headers=headers, head=stream.head)
        if going_on is not None:
            going_on.take(stream.head)

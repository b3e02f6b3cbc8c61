"""Which answers are judged, and when: drawn by chance, queued within bounds, and judged while nobody waits.

What a request costs is a reference to its messages and to its answer. Reading and judging is done here in steps of some hundred
microseconds, at rest for most of the time in between, so that however many answers wait, requests find the event loop free. Knows queues,
paces and metrics; what an answer is worth is known elsewhere.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random
from typing import Any, Final, Protocol, TypeVar

from ...api.metricnames import QualityDrop
from ..client import Client
from ..metrics import GatewayMetrics
from ..usage import Usage
from .grounds import Grounds, grounds_of
from .remote import RemoteScorer
from .settings import BuiltIn, QualitySettings, Remote
from .verdict import NO_VERDICT, SKIPPED, Verdict, over_all
from .written import Sampled, Steps, Written, read

Result = TypeVar("Result")

MOST_QUEUED: Final = 64
MOST_HELD: Final = 8 << 20  # bytes of answers and messages that wait, and of streams that are under way
LONGEST_SAMPLE: Final = 1 << 20  # bytes of one answer; of a stream, events and all
LONGEST_MESSAGES: Final = 256 << 10  # bytes of what it answers
# Scorers of the policy's own are waited for beside each other.
WORKERS: Final = 4
# After each step, so many times as long nothing is judged: at most a tenth of the time goes into it.
REST: Final = 9
_LOG: Final = logging.getLogger("backstop.gateway")


class AnswerStream(Protocol):
    """A stream as it is relayed."""

    head: bytes

    async def more(self) -> tuple[bytes, bool] | None:
        """The next events, and whether they hold content; None: it is over."""

    async def close(self, *, late: bool = False) -> None:
        """Nobody reads it any more; `late`: because its target fell silent, or took too long."""

    @property
    def usage(self) -> Usage | None:
        """What it took, once it was told."""


class AnswerSampler:
    """Judges a share of a revision's answers. `clock` is monotonic, in seconds; `random` draws. Its tasks run inside `running`."""

    def __init__(
        self,
        settings: QualitySettings,
        *,
        client: Client,
        metrics: GatewayMetrics,
        clock: Callable[[], float],
        random: Random,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._random = random
        self._remotes = {s.name: RemoteScorer(s.settings, client=client, clock=clock) for s in settings.scorers if isinstance(s, Remote)}
        self._needs_grounds = any(s.grounding for s in settings.scorers if isinstance(s, BuiltIn))
        self._queue: deque[Sampled] = deque()
        self._held = 0
        self._told_of_failure = False
        self._awake = asyncio.Event()
        self._turn = asyncio.Lock()
        metrics.show_quality([s.name for s in settings.scorers], digest=settings.digest)

    def draw(self, request: Mapping[str, bytes], *, allowed: frozenset[str] | None = None) -> "Draw | None":
        """Whether the answer to a request is to be judged; None: it is not. `request`: members of its body, as its model gets them.

        `allowed`: jurisdictions that anything of it may be sent to; None: all.
        """
        if self._random.random() >= self._settings.share:
            return None
        messages = request["messages"]
        wants_json = b'"json_' in request.get("response_format", b"")
        kept = messages if len(messages) <= LONGEST_MESSAGES else None
        return Draw(self, drawn=Sampled(messages=kept, allowed=allowed, wants_json=wants_json))

    def status(self) -> dict[str, Any]:
        """What waits, and how scorers behind an address are, for people."""
        return {"queued": len(self._queue), "bytes": self._held, "scorers": {name: r.status() for name, r in self._remotes.items()}}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Judge, until the end of the block; what waits then is let go."""
        tasks = [asyncio.create_task(self._work()) for _ in range(WORKERS)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def hold(self, size: int) -> bool:
        """Take room for so many bytes; whether there was some. For more than one answer may have there is none."""
        if self._held + size > MOST_HELD or size > LONGEST_SAMPLE + LONGEST_MESSAGES:
            self._metrics.count_quality_dropped(QualityDrop.MEMORY)
            return False
        self._held += size
        return True

    def let_go(self, size: int) -> None:
        """Give room back."""
        self._held -= size

    def offer(self, sampled: Sampled) -> None:
        """Judge it soon; where too many wait, not at all. Its room is taken already."""
        if len(self._queue) >= MOST_QUEUED:
            self._metrics.count_quality_dropped(QualityDrop.QUEUE)
            self.let_go(size_of(sampled))
            return
        self._queue.append(sampled)
        self._awake.set()

    async def _work(self) -> None:
        while True:
            while not self._queue:
                self._awake.clear()
                await self._awake.wait()
            sampled = self._queue.popleft()
            try:
                verdicts = await self._judge(sampled)
            except Exception:  # noqa: BLE001 - one answer must not end the judging of all others, in a gateway that looks healthy
                verdicts = {scorer.name: NO_VERDICT for scorer in self._settings.scorers}
                if not self._told_of_failure:
                    self._told_of_failure = True
                    _LOG.exception("an answer could not be judged; those like it count as `error`, and are not told of again")
            finally:
                self.let_go(size_of(sampled))
            self._count(verdicts)

    async def _judge(self, sampled: Sampled) -> dict[str, Verdict]:
        verdicts: dict[str, Verdict] = {}
        async with self._turn:
            written = await self._paced(read(sampled))
            if written is not None:
                verdicts = await self._paced(self._built_in(written))
        for scorer in self._settings.scorers:
            if isinstance(scorer, Remote):
                verdicts[scorer.name] = await self._asked(scorer, written=written, allowed=sampled.allowed) if written else SKIPPED
        return verdicts

    def _count(self, verdicts: Mapping[str, Verdict]) -> None:
        grounding: list[Verdict] = []
        for scorer in self._settings.scorers:
            verdict = verdicts.get(scorer.name, SKIPPED)
            self._metrics.count_quality(scorer.name, label=verdict.label, score=verdict.score)
            grounding += [verdict] if scorer.grounding else []
        if grounding:
            self._metrics.count_grounded(over_all(grounding))

    def _built_in(self, written: Written) -> Steps[dict[str, Verdict]]:
        grounds: Grounds | None = None
        if self._needs_grounds and written.context is not None:
            grounds = yield from grounds_of(written.context)
        verdicts: dict[str, Verdict] = {}
        for scorer in self._settings.scorers:
            if isinstance(scorer, BuiltIn):
                verdicts[scorer.name] = scorer.judge(written, grounds)
                yield
        return verdicts

    async def _asked(self, scorer: Remote, *, written: Written, allowed: frozenset[str] | None) -> Verdict:
        if allowed is not None and scorer.settings.jurisdiction not in allowed:
            return SKIPPED
        if scorer.grounding and written.context is None:
            return SKIPPED  # what it would hold the answer against is not known
        return await self._remotes[scorer.name].judge(written)

    async def _paced(self, steps: Steps[Result]) -> Result:
        """Take the steps, with a rest after each."""
        while True:
            began = self._clock()
            try:
                next(steps)
            except StopIteration as end:
                result: Result = end.value
                return result
            await asyncio.sleep((self._clock() - began) * REST)


class Draw:
    """An answer that is to be judged, once it is there. An answer that is none, or is given up, is never offered."""

    def __init__(self, sampler: AnswerSampler, *, drawn: Sampled) -> None:
        self._sampler = sampler
        self._drawn = drawn

    def whole(self, body: bytes) -> None:
        """It was sent, as a whole."""
        sampled = replace(self._drawn, body=body)
        if self._sampler.hold(size_of(sampled)):
            self._sampler.offer(sampled)

    def recorded(self, stream: AnswerStream) -> "SampledStream":
        """The stream, offered when it has ended as it should."""
        return SampledStream(stream, sampler=self._sampler, drawn=self._drawn)


class SampledStream:
    """A stream that is judged when it is over; used as any other. Holds its events as they pass by, up to a bound."""

    def __init__(self, stream: AnswerStream, *, sampler: AnswerSampler, drawn: Sampled) -> None:
        self._stream = stream
        self._sampler = sampler
        self._drawn = drawn
        self._events: list[bytes] = []
        self._size = 0
        self._is_cut = self._given_up = False
        self.head = stream.head
        self._given_up = not self._hold(size_of(drawn))
        self._keep(stream.head)

    async def more(self) -> tuple[bytes, bool] | None:
        """As of the stream."""
        piece = await self._stream.more()
        if piece is not None:
            self._keep(piece[0])
        elif not self._given_up:
            self._given_up = True  # its room goes with it
            self._sampler.offer(replace(self._drawn, events=tuple(self._events), is_cut=self._is_cut))
        return piece

    async def close(self, *, late: bool = False) -> None:
        """As of the stream. What was not offered is let go."""
        if not self._given_up:
            self._give_up()
        await self._stream.close(late=late)

    @property
    def usage(self) -> Usage | None:
        """As of the stream."""
        return self._stream.usage

    def _keep(self, events: bytes) -> None:
        if self._given_up or self._is_cut:
            return
        if self._size + len(events) > LONGEST_SAMPLE:
            self._is_cut = True
        elif self._hold(len(events)):
            self._events.append(events)
        else:
            self._give_up()

    def _hold(self, size: int) -> bool:
        if not self._sampler.hold(size):
            return False
        self._size += size
        return True

    def _give_up(self) -> None:
        self._given_up = True
        self._sampler.let_go(self._size)
        self._events.clear()


def size_of(sampled: Sampled) -> int:
    """Bytes that it holds."""
    return len(sampled.messages or b"") + len(sampled.body) + _total(sampled.events)


def _total(parts: Sequence[bytes]) -> int:
    return sum(map(len, parts))

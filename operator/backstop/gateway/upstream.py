"""One attempt at a model: its timers, and what its answer means. An adapter over the client.

Until the first content an attempt ends as a value (`Whole`, `Streaming`, `PassedBack`, `Failed`); after it, a stream ends
properly or raises `CutError`.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from ..api.metricnames import FailureMode
from .answer import CutShortError, MalformedError, empty, read_delta
from .body import Wanted
from .client import Answer, BrokenError, Client, GarbledError, OutOfFilesError, Place, UnreachableError, UntrustedError
from .complaint import Complaint
from .errors import JSON_TYPE, Failure
from .retryafter import seconds_to_wait
from .revision import ModelTier
from .sse import DONE, DONE_EVENT, EventSplitter, EventTooLongError, data_of
from .timing import Deadline
from .usage import Usage, usage_in
from .wire import lines

MAX_ANSWER_BYTES: Final = 32 << 20
# What some servers begin with says nothing, and hides what is behind it from those who do not know it.
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
# After `[DONE]` the end of the body is awaited this long, so that the connection can be used again.
_TAIL_SECONDS: Final = 1.0
_PASSED_BACK: Final = (400, 404, 413, 422, 431)
_REFUSED_KEY: Final = (401, 403)
_EXHAUSTED: Final = (429, 503)
_PASSING: Final = (429, 500, 502, 503, 504)


class CutError(Exception):
    """A stream ended, or went wrong, after its first content; the text says how, in our words."""


class Whole(NamedTuple):
    """A complete answer, not streamed."""

    body: bytes


@dataclass(frozen=True)
class PassedBack:
    """The target says that the request is wrong: its answer goes to the caller unchanged."""

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True)
class Failed:
    """No answer. `unusable` when it takes somebody to correct what is declared: the target does not take our key, or its certificate
    is not one to trust. `retry_after`: seconds that it wants to be left alone.

    `safe_to_retry`: it failed at once and gave nothing of an answer, so that asking again does no harm, and may help.
    """

    failure: Failure
    unusable: bool = False
    retry_after: float = 0.0
    safe_to_retry: bool = False
    blameless: bool = False  # for the request's own bound on the length, or for this gateway: it says nothing of the target


class Streaming:
    """A stream from its first event on; the owner closes it."""

    def __init__(self, response: Answer, *, include_usage: bool) -> None:
        self._response = response
        self._include_usage = include_usage
        self._splitter = EventSplitter()
        self._started: set[int] = set()
        self._finished: dict[int, str] = {}
        self._ended = False
        self._wrong: str | None = None  # not the exception: kept, it would keep all that it has passed
        self.head = b""  # everything up to and including the first content
        self.usage: Usage | None = None  # once it was told
        self.broke_off = self.was_late = False
        self.on_close: Callable[[Streaming], None] | None = None

    async def open(self) -> None:
        """Read up to the first content, into `head`. Raises MalformedError when none comes."""
        chunk = await self._first()
        while True:
            if not chunk:
                raise empty(self._finished.values()) if self._finished else MalformedError("the stream ended before any content")
            events, content = self._take(chunk)
            self.head += events
            if content:
                return
            if self._wrong is not None:
                raise MalformedError(self._wrong)
            if self._ended:
                raise empty(self._finished.values())
            if len(self.head) > MAX_ANSWER_BYTES:
                raise MalformedError("the stream goes on without content")
            chunk = await self._response.read()

    async def _first(self) -> bytes:
        """What has come first, without a byte order mark, which may come in pieces."""
        chunk = await self._response.read()
        while _BYTE_ORDER_MARK.startswith(chunk) and (more := await self._response.read()):
            chunk += more
        return chunk.removeprefix(_BYTE_ORDER_MARK)

    async def more(self) -> tuple[bytes, bool] | None:
        """The next complete events and whether they hold content; None after the proper end. Raises CutError."""
        while True:
            if self._wrong is not None:
                raise self._cut(self._wrong)
            if self._ended:
                return None
            try:
                chunk = await self._response.read()
            except (BrokenError, GarbledError):
                raise self._cut("the connection to the target broke") from None
            if not chunk:
                return self._at_end(), False
            events, content = self._take(chunk)
            if events:
                return events, content

    async def close(self, *, late: bool = False) -> None:
        """Give the connection back when the body is over, else close it. `late`: because the target fell silent, or took too long."""
        self.was_late = self.was_late or late
        try:
            if self._ended and not self._response.at_end:
                async with asyncio.timeout(_TAIL_SECONDS):
                    await self._response.read()
        except (TimeoutError, BrokenError, GarbledError):
            return  # closed with its release
        finally:
            self._response.release()
            if self.on_close is not None:
                self.on_close(self)

    @property
    def ended(self) -> bool:
        """Whether it came to its proper end."""
        return self._ended

    @property
    def finish_reasons(self) -> list[str]:
        """Why each of its choices ended, of those that have."""
        return [self._finished[index] for index in sorted(self._finished)]

    def _cut(self, why: str) -> CutError:
        self.broke_off = True
        return CutError(why)

    def _take(self, chunk: bytes) -> tuple[bytes, bool]:
        taken: list[bytes] = []
        content = False
        try:
            for event in self._splitter.feed(chunk):
                if self._ended:
                    break
                if event.data == DONE:
                    if not self._is_complete() and not content and not self._started:
                        raise MalformedError("the answer is empty")
                    self._ended = True
                elif event.data is not None:
                    delta = read_delta(event.data)
                    if delta.usage:
                        self.usage = usage_in(event.data) or self.usage
                    content = content or delta.content
                    self._started.update(delta.started)
                    self._finished.update(delta.finished)
                    if delta.usage and not delta.started and not self._include_usage:
                        continue  # callers who did not ask for it read `choices[0]` of every chunk
                taken.append(event.raw)
        except (MalformedError, EventTooLongError) as wrong:
            self._wrong = str(wrong)
        return b"".join(taken), content

    def _at_end(self) -> bytes:
        rest = self._splitter.rest.strip()
        if data_of(rest) != DONE and (rest or not self._is_complete()):
            raise self._cut("the target ended the stream in the middle of the answer")
        self._ended = True
        return DONE_EVENT

    def _is_complete(self) -> bool:
        return bool(self._finished) and self._started <= self._finished.keys()


class Upstream:
    """Calls one model tier. `client` refuses forbidden addresses; `clock` is monotonic, in seconds.

    `check` raises MalformedError for a whole answer that is none.
    """

    def __init__(self, tier: ModelTier, *, client: Client, clock: Callable[[], float], check: Callable[[bytes], None]) -> None:
        self._tier = tier
        self._client = client
        self._clock = clock
        self._check = check
        self._place = Place.of(tier.url, authorities=tier.authorities)
        client.prepare(self._place)
        headers = {"Content-Type": "application/json", "Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "backstop"}
        if tier.authorization is not None:
            headers["Authorization"] = tier.authorization
        headers |= tier.sent
        self._head = self._place.head(headers)
        self._complaint = Complaint(
            f"no file descriptor is left to ask tier `{tier.name}` with; it is passed over, and not blamed: let more gateways serve, or"
            " raise this one's limit of open files",
            clock=clock,
        )

    async def attempt(
        self, body: bytes, *, trace: Mapping[str, str], wanted: Wanted, content_by: float
    ) -> Whole | Streaming | PassedBack | Failed:
        """Send `body` and wait for content (of a stream) or the whole answer until `content_by`."""
        response: Answer | None = None
        kept = False
        try:
            async with Deadline(content_by, clock=self._clock, loop=self._client.loop) as timer:
                if self._tier.headers is not None:
                    timer.reschedule(min(content_by, self._clock() + self._tier.headers))
                head = self._head + lines((name.encode(), value.encode()) for name, value in trace.items()) if trace else self._head
                response = await self._client.post(self._place, head=head, body=body, connect=self._tier.connect)
                if self._tier.headers is not None:
                    timer.reschedule(content_by)
                result = await self._read(response, wanted=wanted)
            kept = isinstance(result, Streaming)
            return result
        except TimeoutError:
            return Failed(Failure(FailureMode.LATENCY_BREACH, f"tier `{self._tier.name}` was late"))
        except MalformedError as error:
            failure = Failure(FailureMode.MALFORMED_ANSWER, f"tier `{self._tier.name}`: {error}")
            return Failed(failure, blameless=isinstance(error, CutShortError))
        except UntrustedError as error:
            detail = f"the certificate of tier `{self._tier.name}` is not to be trusted: {error}"
            return Failed(Failure(FailureMode.DEPENDENCY_FAILURE, detail), unusable=True)
        except OutOfFilesError:
            self._complaint.say()
            detail = f"no file descriptor is left to ask tier `{self._tier.name}` with"
            return Failed(Failure(FailureMode.RESOURCE_EXHAUSTION, detail, own=True), blameless=True)
        except (OSError, ValueError) as error:
            failure = Failure(FailureMode.DEPENDENCY_FAILURE, f"tier `{self._tier.name}` could not be reached, or broke off")
            lost = response is None and isinstance(error, BrokenError | UnreachableError)
            return Failed(failure, safe_to_retry=lost)
        finally:
            if response is not None and not kept:
                response.release()

    async def _read(self, response: Answer, *, wanted: Wanted) -> Whole | Streaming | PassedBack | Failed:
        status = response.status
        if 200 <= status < 300:
            if not wanted.stream:
                body = (await read_bounded(response)).removeprefix(_BYTE_ORDER_MARK)
                self._check(body)
                return Whole(body)
            if not (response.header("content-type") or "").lower().startswith("text/event-stream"):
                raise MalformedError("the answer is not a stream")
            streaming = Streaming(response, include_usage=wanted.include_usage)
            await streaming.open()
            return streaming
        if status in _PASSED_BACK:
            return PassedBack(status, response.header("content-type") or JSON_TYPE, await read_bounded(response))
        mode = FailureMode.RESOURCE_EXHAUSTION if status in _EXHAUSTED else FailureMode.DEPENDENCY_FAILURE
        wait = seconds_to_wait(response.header("retry-after"), date=response.header("date")) if status in _EXHAUSTED else 0.0
        return Failed(
            Failure(mode, f"tier `{self._tier.name}` answered {status}", status),
            unusable=status in _REFUSED_KEY,
            retry_after=wait,
            safe_to_retry=status in _PASSING and wait == 0,
        )


async def read_bounded(response: Answer) -> bytes:
    """The whole body. Raises MalformedError when it is longer than MAX_ANSWER_BYTES."""
    chunks: list[bytes] = []
    size = 0
    while chunk := await response.read():
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            raise MalformedError("the answer is too long")
    return b"".join(chunks)

"""A scorer behind an address: what it is asked, and what its answer says. An adapter over the client.

docs/how-to/write-a-scorer.md is its contract. Whatever goes wrong is no verdict, and after some failures it is left alone for a while.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec

from ...api.metricnames import FailureMode, QualityLabel
from ..breaker import Breaker, BreakerSettings, Broke, LeftAlone, Lesson, Unclear, Worked
from ..client import Client, Place, UntrustedError
from .verdict import NO_VERDICT, Verdict, scored
from .written import Written

LONGEST_REPLY: Final = 65_536  # bytes
_BREAKER: Final = BreakerSettings(window=10.0, min_requests=5, failure_percent=50, open=5.0)


@dataclass(frozen=True)
class RemoteSettings:
    """Where a scorer is, and what it is told of whose answers it judges. `timeout` in seconds."""

    name: str
    url: str
    timeout: float
    fail_below: float
    authorization: str | None
    about: dict[str, str]
    jurisdiction: str | None = None
    authorities: str | None = None  # PEM of those that alone may vouch for it; None: the system's


class _Reply(msgspec.Struct):
    label: Literal["pass", "fail", "skip"] | None = None
    score: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None


_REPLY: Final = msgspec.json.Decoder(_Reply)


class ScorerError(Exception):
    """It gave no verdict; the text says how, in our words."""


class RemoteScorer:
    """Asks one scorer. `clock` is monotonic, in seconds."""

    def __init__(self, settings: RemoteSettings, *, client: Client, clock: Callable[[], float]) -> None:
        self.settings = settings
        self._client = client
        self._place = Place.of(settings.url, authorities=settings.authorities)
        self._breaker = Breaker(_BREAKER, clock=clock)
        headers = {"Content-Type": "application/json", "Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "backstop"}
        if settings.authorization is not None:
            headers["Authorization"] = settings.authorization
        self._head = self._place.head(headers)
        self.failure = ""  # the last one, for people

    async def judge(self, written: Written) -> Verdict:
        """Its verdict."""
        permit = self._breaker.enter()
        if isinstance(permit, LeftAlone):
            return NO_VERDICT
        lesson: Lesson = Unclear()
        try:
            async with asyncio.timeout(self.settings.timeout):
                reply = await self._ask(written)
            lesson = Worked()
        except TimeoutError:
            lesson, self.failure = Broke(FailureMode.LATENCY_BREACH), "it takes too long"
            return NO_VERDICT
        except UntrustedError as error:
            lesson, self.failure = Broke(FailureMode.DEPENDENCY_FAILURE), f"its certificate is not to be trusted: {error}"
            return NO_VERDICT
        except (OSError, ValueError) as error:
            lesson, self.failure = Broke(FailureMode.DEPENDENCY_FAILURE), f"it cannot be reached ({type(error).__name__})"
            return NO_VERDICT
        except ScorerError as error:
            lesson, self.failure = Broke(FailureMode.MALFORMED_ANSWER), str(error)
            return NO_VERDICT
        finally:
            self._breaker.leave(permit, lesson=lesson)
        if reply.label is not None:
            return Verdict(QualityLabel(reply.label), reply.score)
        assert reply.score is not None, "one of the two is there"
        return scored(reply.score, fail_below=self.settings.fail_below)

    def status(self) -> dict[str, Any]:
        """For people."""
        state = self._breaker.state.name.lower().replace("_", "-")
        return {"state": state, "failure": self.failure or None}

    async def _ask(self, written: Written) -> _Reply:
        body = _encoded(
            {
                **self.settings.about,
                "scorer": self.settings.name,
                "question": written.question,
                "context": written.context,
                "answer": written.answer,
                "answer_is_cut": written.is_cut,
            }
        )
        response = await self._client.post(self._place, head=self._head, body=body, connect=None)
        try:
            if response.status != 200:
                raise ScorerError(f"it answers {response.status}")
            text = await response.read()
            while len(text) <= LONGEST_REPLY and (more := await response.read()):
                text += more
        finally:
            response.release()
        if len(text) > LONGEST_REPLY:
            raise ScorerError("its reply is too long")
        try:
            reply = _REPLY.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ScorerError("its reply has neither a `label` nor a `score` that can be one") from None
        if reply.label is None and reply.score is None:
            raise ScorerError("its reply has neither a `label` nor a `score`")
        return reply


def _encoded(question: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(question)
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can carry
        return json.dumps(question).encode()

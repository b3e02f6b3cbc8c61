"""Steady traffic against an OpenAI-compatible address, and what each caller saw of it.

Open loop: requests begin at their time whether earlier ones are done or not, so that a slow service is seen as slow. Callers keep
connections alive, as real clients do. Knows nothing of the policy beyond the `x-backstop-*` headers that every caller gets.
"""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import aiohttp

REQUEST = {"model": "any", "messages": [{"role": "user", "content": "When do you open on Sundays?"}]}
LONGEST_SECONDS = 10.0


@dataclass(frozen=True)
class Answer:
    """One request as its caller saw it. `began` in seconds since the epoch; `status` 0: no answer, `error` says why."""

    began: float
    seconds: float
    status: int
    track: str = ""
    revision: str = ""
    tier: str = ""
    error: str = ""

    @property
    def failed(self) -> bool:
        """Anything but an answer."""
        return self.status != 200


@dataclass
class Load:
    """A steady load on `url` (`http://host:port`), `rate` requests a second, until it is stopped."""

    url: str
    rate: float
    answers: list[Answer] = field(default_factory=list)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Send until `stop`; returns when the last request is answered."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
        async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as requests:
            started, count = time.monotonic(), 0
            while not self._stopping.is_set():
                requests.create_task(self._one(session))
                count += 1
                ahead = started + count / self.rate - time.monotonic()
                if ahead > 0:
                    await asyncio.sleep(ahead)

    def stop(self) -> None:
        """No further requests."""
        self._stopping.set()

    async def _one(self, session: aiohttp.ClientSession) -> None:
        began, clock = time.time(), time.monotonic()
        try:
            async with asyncio.timeout(LONGEST_SECONDS), session.post(f"{self.url}/v1/chat/completions", json=REQUEST) as response:
                body = await response.read()
                headers = response.headers
                self.answers.append(
                    Answer(
                        began=began,
                        seconds=time.monotonic() - clock,
                        status=response.status,
                        track=headers.get("x-backstop-track", ""),
                        revision=headers.get("x-backstop-revision", ""),
                        tier=headers.get("x-backstop-tier", ""),
                        error="" if response.status == 200 else body[:200].decode(errors="replace"),
                    )
                )
        except (aiohttp.ClientError, TimeoutError) as error:
            self.answers.append(Answer(began=began, seconds=time.monotonic() - clock, status=0, error=repr(error)))

    def since(self, moment: float) -> list[Answer]:
        """Answers to requests that began after this moment."""
        return [answer for answer in self.answers if answer.began >= moment]


def percentile(values: Iterable[float], *, percent: float) -> float | None:
    """The nearest-rank percentile; None of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else None

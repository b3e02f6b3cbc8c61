"""Steady traffic against an OpenAI-compatible address, and what each caller saw of it, one JSON line per answer.

`python -m e2e.load --url URL --rate 60`: an open loop. Requests begin at their time whether earlier ones are done or not, so that a slow
service is seen as slow. `--requests N --callers C`: a closed loop, N requests in all. Callers begin when the address answers for the
first time, and keep connections alive, as real clients do. All ask the same, unless `--known N --known-percent P` says that of a hundred
questions P are one of N, in turn; the others are never asked again. Each of these is asked twice first, for whoever keeps answers.
SIGTERM ends it after the last answer. Knows nothing of a policy beyond the `x-backstop-*` headers that every caller gets.
"""

import argparse
import asyncio
import itertools
import json
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass

import aiohttp

QUESTION = "When do you open on Sundays?"
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
    cache: str = ""

    @property
    def failed(self) -> bool:
        """Anything but an answer."""
        return self.status != 200

    @property
    def ended(self) -> float:
        """When the caller had it, seconds since the epoch."""
        return self.began + self.seconds


Tell = Callable[[Answer], None]


def questions(*, known: int, known_percent: int) -> Iterator[str]:
    """What is asked, request by request; without `known`, always the same."""
    turn = itertools.cycle(range(known))
    for number in itertools.count():
        if not known:
            yield QUESTION
        elif number * known_percent // 100 < (number + 1) * known_percent // 100:
            yield f"{QUESTION} I am number {next(turn)}."
        else:
            yield f"{QUESTION} This is asked once: {number}."


async def one(session: aiohttp.ClientSession, *, url: str, tell: Tell, question: str = QUESTION) -> None:
    """One request; whatever becomes of it is told."""
    request = {"model": "any", "messages": [{"role": "user", "content": question}]}
    began, clock = time.time(), time.monotonic()
    try:
        async with asyncio.timeout(LONGEST_SECONDS), session.post(f"{url}/v1/chat/completions", json=request) as response:
            body = await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        tell(Answer(began=began, seconds=time.monotonic() - clock, status=0, error=repr(error)))
        return
    headers = response.headers
    tell(
        Answer(
            began=began,
            seconds=time.monotonic() - clock,
            status=response.status,
            track=headers.get("x-backstop-track", ""),
            revision=headers.get("x-backstop-revision", ""),
            tier=headers.get("x-backstop-tier", ""),
            cache=headers.get("x-backstop-cache", ""),
            error="" if response.status == 200 else body[:200].decode(errors="replace"),
        )
    )


async def steadily(url: str, *, rate: float, asked: Iterator[str], stop: asyncio.Event, tell: Tell) -> None:
    """`rate` requests a second until `stop`; returns when the last is answered."""
    async with _session() as session, asyncio.TaskGroup() as requests:
        started, count = time.monotonic(), 0
        while not stop.is_set():
            requests.create_task(one(session, url=url, tell=tell, question=next(asked)))
            count += 1
            ahead = started + count / rate - time.monotonic()
            if ahead > 0:
                await asyncio.sleep(ahead)


async def exactly(url: str, *, requests: int, callers: int, asked: Iterator[str], stop: asyncio.Event, tell: Tell) -> None:
    """`requests` requests by `callers` callers at a time, each waiting for its answer."""
    left = requests

    async def caller(session: aiohttp.ClientSession) -> None:
        nonlocal left
        while left > 0 and not stop.is_set():
            left -= 1
            await one(session, url=url, tell=tell, question=next(asked))

    async with _session() as session, asyncio.TaskGroup() as tasks:
        for _ in range(callers):
            tasks.create_task(caller(session))


async def answered(url: str, *, within: float) -> None:
    """Until the address answers for the first time: nodes learn of a new Service a moment after it has ready pods."""
    first: list[Answer] = []
    end = time.monotonic() + within
    async with _session() as session:
        while not first or first[-1].status == 0:
            if time.monotonic() > end:
                raise TimeoutError(f"{url} did not answer within {within:.0f} s: {first[-1].error}")
            await asyncio.sleep(0.1 if first else 0)
            await one(session, url=url, tell=first.append)


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60))


def percentile(values: Iterable[float], *, percent: float) -> float | None:
    """The nearest-rank percentile; None of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else None


def _tell(answer: Answer) -> None:
    sys.stdout.write(json.dumps(asdict(answer)) + "\n")
    sys.stdout.flush()


async def _main(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await answered(options.url, within=LONGEST_SECONDS)
    if options.known:
        first = questions(known=options.known, known_percent=100)
        await exactly(options.url, requests=2 * options.known, callers=options.callers, asked=first, stop=stop, tell=_tell)
    asked = questions(known=options.known, known_percent=options.known_percent)
    if options.requests:
        await exactly(options.url, requests=options.requests, callers=options.callers, asked=asked, stop=stop, tell=_tell)
    else:
        await steadily(options.url, rate=options.rate, asked=asked, stop=stop, tell=_tell)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m e2e.load", description="Load on an OpenAI-compatible address.")
    parser.add_argument("--url", required=True, help="such as http://support.demo.svc:8080")
    parser.add_argument("--rate", type=float, default=60.0, help="requests a second (default %(default)s)")
    parser.add_argument("--requests", type=int, default=0, help="so many in all, as fast as `--callers` get them")
    parser.add_argument("--callers", type=int, default=32, help="default %(default)s")
    parser.add_argument("--known", type=int, default=0, help="so many questions are asked again and again")
    parser.add_argument("--known-percent", type=int, default=100, help="and so many of a hundred requests are one of these")
    asyncio.run(_main(parser.parse_args()))

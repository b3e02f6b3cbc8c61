"""`backstop-trickle`: sends a few requests a second to a canary, through the entry that callers use, until it is told to stop.

They are marked with the canary's revision: an entry sends them there while it has a share, and declines them otherwise. What is answered
is counted there, as callers' requests are; here it is only read.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final

import aiohttp

from ..api.names import REQUEST_KEY_VARIABLE, REQUEST_VARIABLE, SYNTHETIC_HEADER

# Longer than any budget and any answer that a probe has use for.
REQUEST_SECONDS: Final = 60.0
MOST_IN_FLIGHT: Final = 64
ENDED: Final = 128 + signal.SIGTERM
TOLD_EVERY_SECONDS: Final = 60.0
_LOG: Final = logging.getLogger("backstop.trickle")


class Trickle:
    """Sends `body` to `url` for `canary`, with the `key` of a caller (empty: none). `clock` is monotonic, in seconds."""

    def __init__(
        self, *, url: str, canary: str, body: bytes, per_second: float, clock: Callable[[], float], jitter: Random, key: str = ""
    ) -> None:
        self._url = url
        self._headers = {"Content-Type": "application/json", SYNTHETIC_HEADER: canary}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._body = body
        self._pause = 1 / per_second
        self._clock = clock
        self._jitter = jitter
        self._running: set[asyncio.Task[None]] = set()
        self.answers: Counter[str] = Counter()  # by status, or what went wrong

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop` is set; then wait for nothing more. A slow canary holds up no later request, up to a bound."""
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        told = self._clock()
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
            try:
                while not stop.is_set():
                    if len(self._running) < MOST_IN_FLIGHT:
                        task = asyncio.create_task(self._one(session))
                        self._running.add(task)
                        task.add_done_callback(self._running.discard)
                    if self._clock() - told > TOLD_EVERY_SECONDS:
                        told = self._clock()
                        _LOG.info("answers so far: %s", dict(self.answers))
                    await _wait(stop, seconds=self._pause * self._jitter.uniform(0.8, 1.2))
            finally:
                for task in self._running:
                    task.cancel()
                await asyncio.gather(*self._running, return_exceptions=True)

    async def _one(self, session: aiohttp.ClientSession) -> None:
        try:
            async with session.post(self._url, data=self._body, headers=self._headers, allow_redirects=False) as response:
                async for _ in response.content.iter_chunked(65_536):
                    pass
                self.answers[str(response.status)] += 1
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.answers[type(error).__name__] += 1


async def _wait(stop: asyncio.Event, *, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


def main(arguments: Sequence[str] | None = None, *, environment: Mapping[str, str] = os.environ) -> None:
    """The console script."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    parser = argparse.ArgumentParser(prog="backstop-trickle", description="Send a few requests a second to a canary.")
    parser.add_argument("--url", required=True, help="where callers send theirs")
    parser.add_argument("--canary", required=True, metavar="REVISION", help="the only revision that may serve them")
    parser.add_argument("--requests-per-second", required=True, type=int, help="how many")
    options = parser.parse_args(arguments)
    body = environment.get(REQUEST_VARIABLE, "").encode()
    asyncio.run(_run(options, body=body, key=environment.get(REQUEST_KEY_VARIABLE, "").strip()))
    sys.exit(ENDED)  # it was ended, and did not end: a Job begins it again where it was not the Job that ended


async def _run(options: argparse.Namespace, *, body: bytes, key: str) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    per_second = float(options.requests_per_second)
    trickle = Trickle(
        url=options.url, canary=options.canary, body=body, per_second=per_second, clock=time.monotonic, jitter=Random(), key=key
    )
    await trickle.run(stop)


if __name__ == "__main__":
    main()

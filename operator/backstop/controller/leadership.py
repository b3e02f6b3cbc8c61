"""Which of several operators acts: the one that holds the Lease.

A holder acts for a part of the time that its last renewal gives it, by its own monotonic clock, counted from before the renewal was
sent; whoever waits for the Lease counts the whole time from when it saw the renewal. So there is never more than one, whatever the
clocks of two machines say, and also not when a process is stopped and goes on later: every write asks `leads` first.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from typing import Final

from ..kube.errors import Conflict, KubeError, NotFound
from ..kube.lease import Lease, LeaseObject
from ..telemetry.log import fields

_log = logging.getLogger(__name__)

RENEWALS: Final = 3  # per time of the Lease
ACTING_SHARE: Final = 0.8  # of the time of the Lease; the rest is for a write that was just sent
RETRY_SECONDS: Final = 1.0
LETTING_GO_SECONDS: Final = 2.0


class LeadershipLost(Exception):  # noqa: N818 - the name says what happened
    """The Lease is another's, or could not be renewed in time: this process has to end."""


def lost_in(group: BaseExceptionGroup[BaseException]) -> LeadershipLost | None:
    """The loss of leadership, if it is among what has ended the tasks of an operator."""
    for error in group.exceptions:
        if isinstance(error, LeadershipLost):
            return error
        if isinstance(error, BaseExceptionGroup) and (lost := lost_in(error)) is not None:
            return lost
    return None


class Leadership:
    """One process's part in it. `monotonic` in seconds must run on while the process is stopped."""

    def __init__(
        self,
        lease: LeaseObject,
        *,
        identity: str,
        seconds: int,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._object = lease
        self._identity = identity
        self._seconds = seconds
        self._clock = clock
        self._monotonic = monotonic
        self._jitter = jitter
        self._held: Lease | None = None
        self._acts_until = float("-inf")
        self._seen: Lease | None = None
        self._seen_at = 0.0

    def leads(self) -> bool:
        """Whether this process may act, at this moment."""
        return self._monotonic() < self._acts_until

    async def gain(self) -> None:
        """Wait until this process leads."""
        while not self.leads():
            began, pause = self._monotonic(), RETRY_SECONDS * (1 + self._jitter() / 4)
            try:
                await self._try_once()
            except Conflict:
                pass  # another was first: look again
            except KubeError as error:
                _log.warning("the Lease cannot be seen; trying again", extra=fields(error=str(error)))
                began = self._monotonic()
            if not self.leads():
                # A watch that has lasted is begun again at once; one that ends as soon as it begins is not followed by the next one.
                await asyncio.sleep(began + pause - self._monotonic())
        _log.info("this operator leads", extra=fields(identity=self._identity))

    async def keep(self) -> None:
        """Renew the Lease until cancelled. Raises LeadershipLost."""
        pause = self._seconds / RENEWALS
        while True:
            await asyncio.sleep(pause)
            try:
                async with asyncio.timeout(max(0.0, self._acts_until - self._monotonic())):
                    await self._renew()
                pause = self._seconds / RENEWALS
            except (KubeError, TimeoutError) as error:
                if not self.leads():
                    raise LeadershipLost(f"the Lease could not be renewed for {ACTING_SHARE * self._seconds:g} s ({error})") from None
                pause = min(RETRY_SECONDS, self._seconds / RENEWALS / 2)
                _log.warning("the Lease was not renewed; trying again", extra=fields(error=str(error)))

    async def let_go(self) -> None:
        """Act no more, and let another lead at once."""
        held, self._held, self._acts_until = self._held, None, float("-inf")
        if held is None:
            return
        try:
            async with asyncio.timeout(LETTING_GO_SECONDS):
                await self._object.write(held, holder="", seconds=self._seconds, now=self._clock())
        except (KubeError, TimeoutError) as error:
            _log.warning("the Lease was not let go; another leads when it has run out", extra=fields(error=str(error)))

    async def _try_once(self) -> None:
        """Look, wait while another leads, and take the Lease when it is free. Raises KubeError."""
        self._saw(await self._object.read())
        if self._free_in() > 0:
            await self._wait()
        if self._free_in() <= 0:
            assert self._seen is not None
            await self._take(self._seen)

    async def _wait(self) -> None:
        """Until the Lease is free by what was seen of it, or the watch ends."""
        assert self._seen is not None
        async with aclosing(self._object.follow(self._seen)) as changes:
            while (wait := self._free_in()) > 0:
                try:
                    async with asyncio.timeout(wait):
                        self._saw(await anext(changes))
                except (TimeoutError, StopAsyncIteration):
                    return

    async def _renew(self) -> None:
        assert self._held is not None
        try:
            await self._take(self._held)
        except (Conflict, NotFound):
            # A renewal whose answer was lost, or somebody's annotation: no matter, as long as it names this process, or is gone.
            there = await self._object.read()
            if there.version is not None and there.holder != self._identity:
                self._acts_until = float("-inf")
                raise LeadershipLost(f"`{there.holder or 'nobody'}` holds the Lease") from None
            await self._take(there)

    async def _take(self, over: Lease) -> None:
        began = self._monotonic()
        self._held = await self._object.write(over, holder=self._identity, seconds=self._seconds, now=self._clock())
        self._acts_until = began + ACTING_SHARE * self._seconds

    def _saw(self, lease: Lease) -> None:
        if self._seen is None or lease != self._seen:
            self._seen, self._seen_at = lease, self._monotonic()

    def _free_in(self) -> float:
        """Seconds until the Lease may be taken; the holder has declared how long it lasts."""
        assert self._seen is not None
        if not self._seen.holder:
            return 0.0
        return self._seen_at + max(self._seen.seconds, 1) - self._monotonic()

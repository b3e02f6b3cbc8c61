"""Sending a request on to another revision's pods, and reading what comes back. An adapter over the client.

Connections to peers are used again for a few seconds only: pods come and go, and a draining pod keeps accepting for longer than that.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .client import Answer, BrokenError, Client, ConnectTimeoutError, GarbledError, Place, UnreachableError
from .serve import BUDGET_HEADER
from .split import SplitReason

# Shorter than a pod's drain time: an idle connection is never used in the moment its pod closes it.
IDLE_SECONDS: Final = 4.0
# All connections are renewed this often, so that new pods get their share and old ones lose it.
RENEW_SECONDS: Final = 8.0
CONNECT_SECONDS: Final = 1.0
# Until a revision's budget is known, the longest that the API allows; then its own, and this much more.
LONGEST_BUDGET: Final = 600.0
GRACE_SECONDS: Final = 1.0
# Longest silence of a stream that the API allows, and a margin: the peer's own stall timer comes first.
SILENCE_SECONDS: Final = 610.0
_KNOWN_BUDGETS: Final = 8


@dataclass(frozen=True)
class NotTaken:
    """Nothing was sent, or nothing was read of it: the request may be served elsewhere."""

    reason: SplitReason


class PeerFailedError(Exception):
    """The peer took the request and failed; the text says how, in our words."""


class _Pool:
    """One generation of connections, closed when it is retired and its last request is over."""

    def __init__(self, *, born: float) -> None:
        self.born = born
        self.users = 0
        self.retired = False
        self.client = Client(idle_seconds=IDLE_SECONDS)

    def leave(self) -> None:
        self.users -= 1
        self.close_if_unused()

    def close_if_unused(self) -> None:
        if self.retired and self.users == 0:
            self.client.close()


class PeerAnswer:
    """A peer's answer, from its headers on; the owner closes it."""

    def __init__(self, response: Answer, *, pool: _Pool) -> None:
        self.response = response
        self._pool = pool

    def close(self) -> None:
        """Give the connection back when the body is over, else close it."""
        self.response.release()
        self._pool.leave()


class Peers:
    """The other revisions' pods. `address` gives `host:port` of a revision; `clock` is monotonic, in seconds."""

    def __init__(self, *, address: Callable[[str], str], budget: float, clock: Callable[[], float]) -> None:
        self._address = address
        self._connect = min(CONNECT_SECONDS, budget)
        self._clock = clock
        self._budgets: dict[str, float] = {}
        self._pool: _Pool | None = None

    async def send(
        self, revision: str, *, path: str, body: bytes, headers: dict[str, str], on_sent: Callable[[], None]
    ) -> PeerAnswer | NotTaken:
        """Forward a request; `on_sent` is called when it is on the wire. Raises PeerFailedError after that."""
        pool = self._current()
        pool.users += 1
        kept = False
        try:
            place = Place.of(f"http://{self._address(revision)}{path}")
            async with asyncio.timeout(self._budgets.get(revision, LONGEST_BUDGET) + GRACE_SECONDS):
                response = await pool.client.post(
                    place, head=place.head(headers), body=body, connect=self._connect, silence=SILENCE_SECONDS, on_sent=on_sent
                )
            if response.status == 421:
                response.release()
                return NotTaken(SplitReason.DECLINED)
            self._learn(revision, said=response.header(BUDGET_HEADER))
            kept = True
            return PeerAnswer(response, pool=pool)
        except (UnreachableError, ConnectTimeoutError):
            return NotTaken(SplitReason.CONNECT_FAILED)
        except TimeoutError:
            raise PeerFailedError("the revision that was asked did not answer in time") from None
        except (BrokenError, GarbledError):
            raise PeerFailedError("the revision that was asked broke off") from None
        finally:
            if not kept:
                pool.leave()

    def close(self) -> None:
        """Close the connections, when their requests are over."""
        if self._pool is not None:
            self._pool.retired = True
            self._pool.close_if_unused()

    def _current(self) -> _Pool:
        if self._pool is None or self._clock() - self._pool.born > RENEW_SECONDS:
            old, self._pool = self._pool, _Pool(born=self._clock())
            if old is not None:
                old.retired = True
                old.close_if_unused()
        return self._pool

    def _learn(self, revision: str, *, said: str | None) -> None:
        if said is None or not said.isdigit():
            return
        if revision not in self._budgets and len(self._budgets) >= _KNOWN_BUDGETS:
            self._budgets.pop(next(iter(self._budgets)))
        self._budgets[revision] = int(said) / 1000

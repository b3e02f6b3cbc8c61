"""The desk of a human tier: opens tickets while callers wait, and delivers them behind their backs.

Knows when a ticket is opened, sent and tried again; neither how it is kept nor what it says. A caller waits for the disk, never for
the webhook. A ticket leaves the queue when the webhook has taken it, and in no other way: it may be sent twice, always under the same id.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Final

from ..api.metricnames import FailureMode, TicketResult
from .client import Client, GarbledError, Place, UntrustedError
from .errors import Failure
from .metrics import GatewayMetrics
from .retryafter import seconds_to_wait
from .revision import HumanTier, Revision
from .ticket import Asking, Ticket, body_of, headers_of, retry_seconds
from .ticketstore import TicketStore, TicketStoreError

_LOG: Final = logging.getLogger("backstop.gateway")
# A volume that takes longer has failed: the next tier is asked.
OPEN_SECONDS: Final = 1.0
DELIVERY_SECONDS: Final = 10.0
# How long a ticket that is due, or one of a gateway that is gone, waits to be seen at most.
LOOK_SECONDS: Final = 30.0
# Answers by which the webhook says that it can take no ticket at all now; any other refusal is about the one ticket.
_LATER: Final = (408, 425, 429)


class TicketDesk:
    """The desk of the human tier of `revision`. Its task runs inside `running`. `now`: the wall clock, in seconds."""

    def __init__(
        self,
        tier: HumanTier,
        *,
        revision: Revision,
        store: TicketStore,
        client: Client,
        metrics: GatewayMetrics,
        now: Callable[[], float],
        jitter: Random,
    ) -> None:
        self._tier = tier
        self._revision = revision
        self._store = store
        self._client = client
        self._place = Place.of(tier.url, authorities=tier.authorities)
        self._metrics = metrics
        self._now = now
        self._jitter = jitter
        self._opened = asyncio.Event()
        self._failures = 0  # of the webhook, one after another
        metrics.show_tickets(tier.name, waiting=lambda: store.waiting)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Deliver, until the end of the block."""
        task = asyncio.create_task(self._deliver())
        task.add_done_callback(_told_of_end)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._store.close()

    async def open(self, asking: Asking, *, within: float) -> str | Failure:
        """The id of a ticket that is kept now, or why there is none. `within`: seconds that the caller has."""
        identity = secrets.token_hex(6)
        opened_at = datetime.fromtimestamp(self._now(), tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        ticket = Ticket(identity, body_of(asking, identity=identity, opened_at=opened_at, revision=self._revision))
        failure: Failure | None = None
        try:
            async with asyncio.timeout(min(within, OPEN_SECONDS)):
                if not await self._store.add(ticket, most=self._tier.limit):
                    failure = Failure(FailureMode.RESOURCE_EXHAUSTION, f"the queue of tier `{self._tier.name}` is full")
        except TimeoutError:
            failure = Failure(FailureMode.LATENCY_BREACH, f"the volume of tier `{self._tier.name}` was late")
        except TicketStoreError as error:
            failure = Failure(FailureMode.DEPENDENCY_FAILURE, f"tier `{self._tier.name}` cannot keep a ticket: {error}")
        self._metrics.count_ticket(self._tier.name, result=TicketResult.QUEUED if failure is None else TicketResult.REFUSED)
        if failure is not None:
            return failure
        self._opened.set()
        return identity

    async def _deliver(self) -> None:
        """Send what is due, until cancelled."""
        while True:
            try:
                await self._take_over()
                while (ticket := await self._store.due()) is not None:
                    await self._send(ticket)
            except TicketStoreError as error:
                _LOG.error("tickets cannot be read: %s; trying again", error)
            self._opened.clear()
            try:
                async with asyncio.timeout(min(LOOK_SECONDS, self._pause())):
                    await self._opened.wait()
            except TimeoutError:
                pass  # what is due since then is looked for in any case

    def _pause(self) -> float:
        """Until the next look, where nobody opens a ticket: sooner while some are put off."""
        return self._jitter.uniform(0.5, 1.0) * (LOOK_SECONDS if self._store.waiting == 0 else 1.0)

    async def _take_over(self) -> None:
        if (taken := await self._store.take_over()) > 0:
            _LOG.info("took over %d tickets of gateways that are gone", taken)

    async def _send(self, ticket: Ticket) -> None:
        """One try. A webhook that takes nothing holds all tickets up; a ticket that it does not want, itself alone."""
        status, wait, said = await self._post(ticket)
        if 200 <= status < 300:
            await self._store.remove(ticket)
            self._metrics.count_ticket(self._tier.name, result=TicketResult.DELIVERED)
            self._failures = 0
            return
        self._metrics.count_ticket(self._tier.name, result=TicketResult.FAILED)
        is_down = status == 0 or status >= 500 or status in _LATER
        self._failures = self._failures + 1 if is_down else 0
        seconds = max(wait, retry_seconds(self._failures if is_down else ticket.tries + 1)) * self._jitter.uniform(0.8, 1.2)
        _LOG.warning("the webhook of tier `%s` %s; ticket %s waits %.0f s", self._tier.name, said, ticket.identity, seconds)
        await self._store.put_off(ticket, seconds=seconds)
        if is_down:
            await asyncio.sleep(seconds)

    async def _post(self, ticket: Ticket) -> tuple[int, float, str]:
        """The webhook's status, 0 for none, the seconds that it wants to be left alone, and what it did, in words."""
        headers = headers_of(ticket, timestamp=int(self._now()), secret=self._tier.secret)
        try:
            async with asyncio.timeout(DELIVERY_SECONDS):
                answer = await self._client.post(self._place, head=self._place.head(headers), body=ticket.body, connect=None)
        except UntrustedError as error:
            return 0, 0.0, f"has a certificate that is not to be trusted ({error})"
        except (TimeoutError, OSError, GarbledError):
            return 0, 0.0, "does not answer"
        answer.release()
        return answer.status, seconds_to_wait(answer.header("retry-after"), date=answer.header("date")), f"answered {answer.status}"


def _told_of_end(task: asyncio.Task[None]) -> None:
    """It is a mistake of ours. Tickets are still opened, and delivered by the next gateway that has the file."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _LOG.error("the delivery of tickets died: %r; they wait for the next start", error)


def ticket_desk(
    revision: Revision,
    *,
    folder: Path | None,
    client: Client,
    metrics: GatewayMetrics,
    now: Callable[[], float],
    jitter: Random,
) -> TicketDesk | None:
    """The desk of `revision`, where it has people. `folder`: of its file; those of other policies are left alone."""
    tier = revision.human
    if tier is None:
        return None
    assert folder is not None, "a tier of people has a folder"
    store = TicketStore(folder, stem=f"tickets-{revision.namespace}-{revision.policy}", now=now)
    return TicketDesk(tier, revision=revision, store=store, client=client, metrics=metrics, now=now, jitter=jitter)

"""What the definitions in the API server are to this operator: older, newer, or its own.

An older one drops fields of a newer status without a word: what was decided would be forgotten as it is written, and the pass made again
at once. So that is asked before the operator acts. A newer one fills fields into specs that their authors have not written, and that this
operator would take for unknown words of theirs.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from ..api.names import GROUP, VERSION
from ..crdgen.filled import Filled, filled_in
from ..crdgen.served import lacks, sentence
from ..kube.client import Client
from ..kube.errors import NotFound, Rejected, Unavailable
from ..telemetry.log import fields

_log = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS: Final = 2.0
# An API server describes a definition within seconds of taking it. One that does not in this time describes none.
UNDESCRIBED_SECONDS: Final = 30.0


class Definitions:
    """`problem`: why the operator may not act yet, in one sentence; None once it may. `clock`: monotonic seconds.

    `on_filled` is told what newer ones fill in, by kind, whenever that was looked at.
    """

    def __init__(
        self,
        client: Client,
        *,
        on_filled: Callable[[Mapping[str, tuple[Filled, ...]]], None],
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._client = client
        self._on_filled = on_filled
        self._doubted = asyncio.Event()
        self._clock = clock
        self._jitter = jitter
        self._undescribed_since: float | None = None
        self.problem: str | None = "the definitions in the cluster have not been looked at yet"

    async def complete(self) -> None:
        """Wait until they have all fields, or it cannot be known."""
        waited = False
        while (problem := await self._look()) is not None:
            if problem != self.problem:
                _log.warning(problem)
            self.problem, waited = problem, True
            await asyncio.sleep(LOOK_AGAIN_SECONDS * (1 + self._jitter()))
        self.problem = None
        if waited:
            _log.info("the definitions in the cluster keep this operator from nothing any more")

    def doubt(self) -> None:
        """A spec that the API server has taken cannot be read: its definitions may be newer than when they were looked at."""
        self._doubted.set()

    async def keep(self) -> None:
        """Look again when that is doubted, until cancelled."""
        while True:
            await self._doubted.wait()
            self._doubted.clear()
            try:
                self._on_filled(filled_in(await self._client.served(GROUP, VERSION)))
            except Unavailable as error:
                _log.info("the definitions in the cluster cannot be looked at; trying again", extra=fields(error=str(error)))
                self._doubted.set()
            except (NotFound, Rejected) as error:
                self._tell_unknown(error)
            await asyncio.sleep(LOOK_AGAIN_SECONDS * (1 + self._jitter()))

    async def _look(self) -> str | None:
        """What stands against acting."""
        try:
            served = await self._client.served(GROUP, VERSION)
        except Unavailable as error:
            return f"the definitions in the cluster cannot be read; trying again ({error})"
        except NotFound as error:
            now = self._clock()
            self._undescribed_since = now if self._undescribed_since is None else self._undescribed_since
            if now - self._undescribed_since < UNDESCRIBED_SECONDS:
                return f"the API server does not describe {GROUP}/{VERSION} yet; trying again"
            self._tell_unknown(error)
            return None
        except Rejected as error:
            self._tell_unknown(error)
            return None
        self._on_filled(filled_in(served))
        return sentence(found) if (found := lacks(served)) else None

    def _tell_unknown(self, error: NotFound | Rejected) -> None:
        _log.warning("whether the definitions in the cluster are those of this operator is not known", extra=fields(error=str(error)))

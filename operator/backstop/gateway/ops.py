"""The metrics port: `/metrics`, `/healthz`, `/readyz`, `/-/status`, answered from memory."""

import asyncio
from typing import Final

import msgspec
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from ..api.clock import render_time
from ..api.heartbeat import Heartbeat
from ..api.traffic import role_of
from .allowance import Allowance
from .answercache import AnswerCache
from .httpexchange import Exchange
from .lifecycle import Lifecycle
from .metrics import GatewayMetrics
from .quality.sampling import AnswerSampler
from .revision import Revision
from .room import Room
from .targets import TargetGate
from .view import TrafficView

_TEXT: Final = b"text/plain; charset=utf-8"


class OpsApp:
    """What answers on the metrics port. `ready` is set when the first look at the traffic object is over."""

    def __init__(
        self,
        revision: Revision,
        *,
        view: TrafficView,
        lifecycle: Lifecycle,
        room: Room,
        heads: Room,
        gate: TargetGate,
        metrics: GatewayMetrics,
        heartbeat: Heartbeat,
        cache: AnswerCache | None = None,
        allowance: Allowance | None = None,
        quality: AnswerSampler | None = None,
    ) -> None:
        self._revision = revision
        self._view = view
        self._lifecycle = lifecycle
        self._room = room
        self._heads = heads
        self._gate = gate
        self._metrics = metrics
        self._heartbeat = heartbeat
        self._cache = cache
        self._allowance = allowance
        self._quality = quality
        self.ready = False

    async def __call__(self, exchange: Exchange) -> None:
        """One request."""
        status, content_type, body = self._answer(exchange.path)
        exchange.answer(status, headers=[(b"content-type", content_type)], body=body)

    def _answer(self, path: str) -> tuple[int, bytes, bytes]:
        match path:
            case "/metrics":
                return 200, CONTENT_TYPE_PLAIN_0_0_4.encode(), generate_latest(self._metrics.registry)
            case "/healthz":
                problem = self._heartbeat.problem()
                return (200, _TEXT, b"ok\n") if problem is None else (503, _TEXT, f"{problem}\n".encode())
            case "/readyz":
                if self._lifecycle.draining:
                    return 503, _TEXT, b"draining\n"
                return (200, _TEXT, b"ok\n") if self.ready else (503, _TEXT, b"starting\n")
            case "/-/status":
                return 200, b"application/json", self._status()
            case _:
                return 404, _TEXT, b"not found\n"

    def _status(self) -> bytes:
        state = self._view.state
        aborted = None if state is None or state.aborted is None else state.aborted
        return msgspec.json.encode(
            {
                "revision": self._revision.name,
                "role": role_of(self._revision.name, state=state).value,
                "generation": None if state is None else state.generation,
                "stable": None if state is None else state.stable,
                "canary": None if state is None else state.canary,
                "permille": 0 if state is None else state.permille,
                "aborted": None if aborted is None else {"revision": aborted.revision, "reason": aborted.reason, "time": aborted.time},
                "trafficReadAt": None if self._view.read_at is None else render_time(self._view.read_at),
                "draining": self._lifecycle.draining,
                "inFlight": self._lifecycle.in_flight,
                "tasks": len(asyncio.all_tasks()),
                "bodyBytes": self._room.held,
                "headBytes": self._heads.held,
                "breakers": self._gate.status(),
                "caches": {} if self._cache is None else self._cache.status(),
                "spend": None if self._allowance is None else _spend(self._allowance),
                "quality": None if self._quality is None else self._quality.status(),
            }
        )


def _spend(allowance: Allowance) -> dict[str, object]:
    return {"tokens": allowance.used, "allowance": allowance.settings.tokens, "periodEnds": render_time(allowance.period_ends)}

"""What a request tells of itself to those who collect traces: the shapes of it, and what is done where nobody collects any. PURE.

Knows no library and no attribute; how spans are made, named and sent is known elsewhere, and imported only where traces are collected.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from ..api.metricnames import Outcome
from .body import ChatRequest
from .revision import ModelTier
from .upstream import Failed, PassedBack, Streaming, Whole

# What became of an attempt; None: nobody waited for it any more.
Came = Whole | Streaming | PassedBack | Failed | None


class Said(Protocol):
    """What a caller was answered: 0 and nothing, until it was."""

    status: int
    said: list[tuple[bytes, bytes]]


class Attempt(Protocol):
    """An attempt at a model."""

    @property
    def headers(self) -> Mapping[str, str]:
        """That its request carries, to hand the trace on."""

    def came(self, result: Came, *, seconds: float) -> None:
        """It ended so, or its stream has begun; `seconds` after it was sent."""


class Hop(Protocol):
    """A request that another revision's pod is asked to answer."""

    @property
    def headers(self) -> Mapping[str, str]:
        """As of `Attempt`."""

    def over(self, *, status: int | None = None, failure: str = "") -> None:
        """It ended with the peer's status, or failed."""


class Trace(Protocol):
    """A request's place in a trace."""

    @property
    def headers(self) -> Mapping[str, str]:
        """That say so."""

    def ask(self, tier: ModelTier, *, request: ChatRequest) -> Attempt:
        """An attempt at a model is about to begin."""

    def hop(self, revision: str, *, path: str) -> Hop:
        """It is about to be forwarded."""

    def counted(self, outcome: Outcome) -> None:
        """How it counts, at its end."""


class Tracing(Protocol):
    """Collects traces."""

    def begin(
        self, headers: Mapping[str, str], *, method: str, version: str, path: str | None, identity: str, reply: Said
    ) -> AbstractContextManager[Trace]:
        """A request has come, and lasts as long as the block. `headers`: what it says of a trace; `path`: None where it is not offered."""


class Untraced:
    """Nobody collects traces: what the caller says of one goes on as it came."""

    __slots__ = ("headers",)

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = headers

    def ask(self, tier: ModelTier, *, request: ChatRequest) -> "Untraced":
        """As of `Trace`."""
        return self

    def hop(self, revision: str, *, path: str) -> "Untraced":
        """As of `Trace`."""
        return self

    def came(self, result: Came, *, seconds: float) -> None:
        """As of `Attempt`."""

    def over(self, *, status: int | None = None, failure: str = "") -> None:
        """As of `Hop`."""

    def counted(self, outcome: Outcome) -> None:
        """As of `Trace`."""

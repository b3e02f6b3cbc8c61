"""Who may take how much of a gateway's memory: every share of it, so that all of them fit into the container's limit together. PURE.

The process itself has a fixed one, what callers send has parts of the limit, kept answers what the policy says, and request bodies what is
left. What models answer is in none of them: each answer is bounded, and nobody holds one after its caller has it.
"""

from dataclasses import dataclass
from typing import Final

# As much as a pod requests. An idle gateway takes 55 MiB; the rest is for what few policies have all of: libraries (for traces 15 MiB, for
# rules 6, for a schema 6) and queues that are full (of quality 8, of a cache's lower levels 12).
PROCESS: Final = 96 << 20
# An idle connection takes half of this here, and the kernel takes as much again.
CONNECTION: Final = 8 << 10
# A body that waits for a model is held about four times: as it came, cut, put together for the model, and on its way out.
BODY_COPIES: Final = 4
# Without a limit a gateway behaves as with this much memory.
_UNLIMITED: Final = 1 << 30
_CONNECTIONS: Final = 8  # an eighth
_HEADS: Final = 16  # most come in one piece, and are held by nobody before their request is
_MOST_CACHE: Final = 4
_LEAST_BODIES: Final = 1 << 20


@dataclass(frozen=True)
class Shares:
    """Bytes. `bodies` are counted once, as they came."""

    connections: int
    heads: int
    bodies: int


def share(limit: int | None, *, cache: int) -> Shares:
    """The shares of a process that may use `limit` bytes (None: as many as it likes), `cache` of which are for kept answers."""
    memory = _UNLIMITED if limit is None else limit
    connections, heads = memory // _CONNECTIONS, memory // _HEADS
    left = memory - PROCESS - connections - heads - cache
    return Shares(connections, heads, bodies=max(_LEAST_BODIES, left // BODY_COPIES))


def most_for_cache(limit: int | None) -> int | None:
    """How large a cache may be in such a process; None: as large as it likes."""
    return None if limit is None else limit // _MOST_CACHE

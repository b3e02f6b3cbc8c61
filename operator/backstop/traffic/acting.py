"""Which traffic generation the gateways act on, by asking each of them. Knows `/-/status`, not what is waited for."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp

from ..api.names import METRICS_PORT
from ..rollout.observed import Known, Unknown

STATUS_PATH: Final = "/-/status"
ASK_SECONDS: Final = 1.0
LONGEST_ANSWER: Final = 65536  # bytes


@dataclass(frozen=True)
class Gateway:
    """A ready gateway pod: its name, for messages, and the address at which it answers."""

    pod: str
    address: str


class _NoAnswer(Exception):  # noqa: N818 - an answer of its own kind
    """Why a gateway's answer is not known."""


async def acting_generation(session: aiohttp.ClientSession, *, gateways: Sequence[Gateway]) -> Known[int] | Unknown:
    """The lowest generation that any of them acts on; Unknown if one does not say."""
    if not gateways:
        return Unknown("no gateway pod is ready")
    answers = await asyncio.gather(*(_generation(session, gateway=gateway) for gateway in gateways), return_exceptions=True)
    lowest: int | None = None
    for answer in answers:
        if isinstance(answer, _NoAnswer):
            return Unknown(str(answer))
        if isinstance(answer, BaseException):
            raise answer
        lowest = answer if lowest is None else min(lowest, answer)
    assert lowest is not None
    return Known(lowest)


async def _generation(session: aiohttp.ClientSession, *, gateway: Gateway) -> int:
    host = f"[{gateway.address}]" if ":" in gateway.address else gateway.address
    try:
        async with asyncio.timeout(ASK_SECONDS), session.get(f"http://{host}:{METRICS_PORT}{STATUS_PATH}") as response:
            if response.status != 200:
                raise _NoAnswer(f"gateway pod {gateway.pod} answers {response.status} to {STATUS_PATH}")
            answer = bytearray()
            async for piece in response.content.iter_any():
                answer += piece
                if len(answer) > LONGEST_ANSWER:
                    raise _NoAnswer(f"gateway pod {gateway.pod} gives too long an answer to {STATUS_PATH}")
            generation = json.loads(answer).get("generation")
    except TimeoutError:
        raise _NoAnswer(f"gateway pod {gateway.pod} does not answer within {ASK_SECONDS:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError, AttributeError) as error:
        raise _NoAnswer(f"gateway pod {gateway.pod} cannot be asked: {error or type(error).__name__}") from None
    if not isinstance(generation, int):
        raise _NoAnswer(f"gateway pod {gateway.pod} has not read the traffic object yet")
    return generation

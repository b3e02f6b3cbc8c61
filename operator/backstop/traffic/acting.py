"""Which traffic generation the gateways act on, by asking each of them. Knows `/-/status`, not what is waited for."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

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


class Acting(NamedTuple):
    """The generations that gateways act on. `lowest`: Unknown if one does not say. `highest`: of those that do; None if none does."""

    lowest: Known[int] | Unknown
    highest: int | None


class _NoAnswer(Exception):  # noqa: N818 - an answer of its own kind
    """Why a gateway's answer is not known."""


async def acting_generations(session: aiohttp.ClientSession, *, gateways: Sequence[Gateway]) -> Acting:
    """The lowest and the highest generation that any of them acts on."""
    if not gateways:
        return Acting(Unknown("no gateway pod is ready"), None)
    answers = await asyncio.gather(*(_answer(session, gateway=gateway) for gateway in gateways))
    known = [answer.value for answer in answers if isinstance(answer, Known)]
    unknown = next((answer for answer in answers if isinstance(answer, Unknown)), None)
    return Acting(unknown or Known(min(known)), max(known, default=None))


async def _answer(session: aiohttp.ClientSession, *, gateway: Gateway) -> Known[int] | Unknown:
    try:
        return Known(await _generation(session, gateway=gateway))
    except _NoAnswer as why:
        return Unknown(str(why))


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

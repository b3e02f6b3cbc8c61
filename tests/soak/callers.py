"""Callers of every kind against a gateway, and what became of each of their requests, as they saw it.

Each asks for something of its own, and an answer of a model says it back: whoever gets another's is found out. Knows nothing of what the
targets do meanwhile.
"""

import asyncio
import json
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Any, Final

import aiohttp

STATIC: Final = "Not now, please."
POOL: Final = 40  # questions that are asked again and again, and may be answered from the cache
REPLY_WITHIN: Final = 20.0  # many times what a chain may take
LARGE: Final = 200_000  # characters
CHAT: Final = "/v1/chat/completions"


class Ended(StrEnum):
    """How a request ended, in the words of the gateway's counters."""

    SUCCESS = "success"
    ERROR = "error"
    TRUNCATED = "truncated"
    CALLER_ERROR = "caller_error"
    LEFT = "left"  # by the caller, before the answer was whole: the gateway may have been done, or not even begun


@dataclass
class Seen:
    """What all callers have seen. `judged`: of the requests that count for the analysis, by how they ended; `others`: of all others."""

    judged: Tally[Ended] = field(default_factory=Tally)
    others: Tally[Ended] = field(default_factory=Tally)
    kinds: Tally[str] = field(default_factory=Tally)
    tiers: Tally[str] = field(default_factory=Tally)
    problems: list[str] = field(default_factory=list)


class Callers:
    """Makes requests of all kinds. `address`: host:port."""

    def __init__(self, http: aiohttp.ClientSession, *, address: str, random: Random) -> None:
        self._http = http
        self._url = f"http://{address}"
        self._random = random
        self._asked = 0
        self.seen = Seen()
        # By weight; whether they count for the analysis.
        self._kinds: list[tuple[int, bool, Callable[[], Awaitable[Ended]]]] = [
            (30, True, self.chat),
            (30, True, self.stream),
            (8, True, self.known_question),
            (6, True, self.leaves_a_stream),
            (4, True, self.leaves_at_once),
            (4, True, self.reads_slowly),
            (4, True, self.completion),
            (2, True, self.large_question),
            (4, True, self.garbage),
            (4, False, self.embedding),
            (2, False, self.hurried),
            (2, False, self.elsewhere),
        ]

    async def one(self) -> None:
        """One request of some kind; never raises for what the gateway does."""
        ((_, judged, ask),) = self._random.choices(self._kinds, weights=[weight for weight, *_ in self._kinds])
        kind = ask.__name__
        self.seen.kinds[kind] += 1
        try:
            async with asyncio.timeout(REPLY_WITHIN):
                ended = await ask()
        except TimeoutError:
            self.seen.problems.append(f"{kind}: no answer within {REPLY_WITHIN:.0f} s")
        except (aiohttp.ClientError, ValueError, LookupError) as error:  # no answer, or one that cannot be read
            self.seen.problems.append(f"{kind}: {error!r}")
        else:
            (self.seen.judged if judged else self.seen.others)[ended] += 1

    # -- kinds

    async def chat(self) -> Ended:
        return await self._chat(self._own())

    async def known_question(self) -> Ended:
        return await self._chat(f"a question of everybody, number {self._random.randrange(POOL)}")

    async def large_question(self) -> Ended:
        return await self._chat(self._own() + "x" * LARGE)

    async def hurried(self) -> Ended:
        return await self._chat(self._own(), headers={"x-backstop-deadline-ms": "40"})

    async def completion(self) -> Ended:
        question = self._own()
        async with self._post("/v1/completions", body={"model": "any", "prompt": question}) as answer:
            return self._whole(answer, await answer.read(), question=question, text=lambda choice: choice["text"])

    async def embedding(self) -> Ended:
        async with self._post("/v1/embeddings", body={"model": "any", "input": self._own()}) as answer:
            found = json.loads(await answer.read())
            return Ended.SUCCESS if answer.status == 200 and found["data"] else self._error(answer, found)

    async def elsewhere(self) -> Ended:
        async with self._http.get(f"{self._url}/v1/{self._random.choice(('models', 'nothing', 'chat/completions'))}") as answer:
            found = json.loads(await answer.read())
            return Ended.SUCCESS if answer.status == 200 else self._error(answer, found)

    async def garbage(self) -> Ended:
        bad = self._random.choice((b"", b"{", b"[]", b"[" * 5000, b'{"messages": "no"}', b'{"messages": []', b"\xff\x00" * 40))
        async with self._http.post(f"{self._url}{CHAT}", data=bad) as answer:
            ended = self._error(answer, json.loads(await answer.read()))
            if ended is not Ended.CALLER_ERROR:
                self.seen.problems.append(f"garbage: {answer.status} for {bad[:20]!r}")
            return ended

    async def stream(self) -> Ended:
        return await self._stream(self._own())

    async def reads_slowly(self) -> Ended:
        return await self._stream(self._own(), pause=0.02)

    async def leaves_a_stream(self) -> Ended:
        async with self._post(CHAT, body=_body(self._own(), stream=True)) as answer:
            await answer.content.readany()
            answer.close()
        return Ended.LEFT

    async def leaves_at_once(self) -> Ended:
        try:
            async with asyncio.timeout(self._random.uniform(0.0, 0.05)):
                await self._chat(self._own())
        except TimeoutError:
            pass
        return Ended.LEFT

    # -- what they have in common

    def _own(self) -> str:
        self._asked += 1
        return f"question {self._asked} of one caller"

    def _post(self, path: str, *, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Any:
        return self._http.post(f"{self._url}{path}", json=body, headers=headers)

    async def _chat(self, question: str, *, headers: Mapping[str, str] | None = None) -> Ended:
        async with self._post(CHAT, body=_body(question), headers=headers) as answer:
            return self._whole(answer, await answer.read(), question=question, text=lambda choice: choice["message"]["content"])

    def _whole(self, answer: aiohttp.ClientResponse, body: bytes, *, question: str, text: Callable[[Any], str]) -> Ended:
        found = json.loads(body)
        if answer.status != 200:
            return self._error(answer, found)
        self._compare(answer, text(found["choices"][0]), question=question)
        return Ended.SUCCESS

    async def _stream(self, question: str, *, pause: float = 0.0) -> Ended:
        async with self._post(CHAT, body=_body(question, stream=True)) as answer:
            if answer.status != 200:
                return self._error(answer, json.loads(await answer.read()))
            lines = []
            async for line in answer.content:
                lines.append(line.strip())
                if pause:
                    await asyncio.sleep(pause)
        events = [line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: ")]
        if events[-1] != b"[DONE]":
            if "error" not in json.loads(events[-1]):
                self.seen.problems.append(f"stream: ends without `[DONE]` and without an error: {events[-1][:80]!r}")
            return Ended.TRUNCATED
        pieces = [choice["delta"].get("content") or "" for event in events[:-1] for choice in json.loads(event)["choices"]]
        self._compare(answer, "".join(pieces), question=question)
        return Ended.SUCCESS

    def _compare(self, answer: aiohttp.ClientResponse, text: str, *, question: str) -> None:
        tier = answer.headers["x-backstop-tier"]
        self.seen.tiers[tier] += 1
        if text != (STATIC if tier == "static" else question):
            self.seen.problems.append(f"{question[:60]!r} was answered by tier `{tier}` with {text[:60]!r}")

    def _error(self, answer: aiohttp.ClientResponse, found: Any) -> Ended:
        if not found["error"]["message"]:
            self.seen.problems.append(f"an error {answer.status} without a message")
        return Ended.CALLER_ERROR if answer.status < 500 and answer.status != 429 else Ended.ERROR


def _body(question: str, *, stream: bool = False) -> dict[str, Any]:
    return {"model": "any", "messages": [{"role": "user", "content": question}]} | ({"stream": True} if stream else {})

"""Callers of every kind against a gateway, and what became of each of their requests, as they saw it.

Each asks for something of its own, and an answer of a model says it back: whoever gets another's is found out. Knows nothing of what the
targets do meanwhile.
"""

import asyncio
import json
import time
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Any, Final

import aiohttp

from backstop.api import metricnames as names
from backstop.api.metricnames import FeedbackLabel, Outcome

from .answers import ASKS_HOURS, CHAT, COMPLETIONS, RESPONSES, Heard, fits, streamed, whole
from .ledger import Ask, Reach, Seen, Series

POOL: Final = 40  # questions that are asked again and again, and may be answered from the cache
REPLY_WITHIN: Final = 20.0  # many times what a chain may take
LARGE: Final = 200_000  # characters
BUDGET_SECONDS: Final = 1.5
_TOOL: Final = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
_GARBAGE: Final = (b"", b"{", b"[]", b"[" * 5000, b'{"messages": "no"}', b'{"messages": []', b"\xff\x00" * 40, b'{"messages":[],"n":{}}')
_WRONG_FORM: Final = (
    {"content-type": "text/plain"},
    {"content-encoding": "gzip"},
    {"x-backstop-deadline-ms": "soon"},
)


class Callers:
    """Makes requests of all kinds. `address`: host:port."""

    def __init__(self, http: aiohttp.ClientSession, *, address: str, random: Random) -> None:
        self._http = http
        self._url = f"http://{address}"
        self._random = random
        self._asked = 0
        self._asking: Tally[str] = Tally()  # what is asked at the moment, and may be by several
        self._crowded: set[str] = set()  # what was asked by several at once since nobody did
        self.seen = Seen()
        self.may_leave = False
        # By weight.
        self._kinds: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (22, self.chat),
            (22, self.stream),
            (10, self.known_question),
            (5, self.calls_tools),
            (5, self.response),
            (5, self.completion),
            (4, self.embedding),
            (4, self.hours),
            (4, self.gives_feedback),
            (4, self.reads_slowly),
            (4, self.leaves_a_stream),
            (2, self.leaves_at_once),
            (2, self.wants_nothing_kept),
            (2, self.large_question),
            (2, self.hurried),
            (3, self.garbage),
            (2, self.wrong_form),
            (2, self.elsewhere),
        ]

    async def one(self) -> None:
        """One request of some kind; never raises for what the gateway does."""
        kinds = [kind for kind in self._kinds if self.may_leave or kind[1] not in (self.leaves_a_stream, self.leaves_at_once)]
        ((_, ask),) = self._random.choices(kinds, weights=[weight for weight, _ in kinds])
        kind = ask.__name__
        self.seen.kinds[kind] += 1
        try:
            async with asyncio.timeout(REPLY_WITHIN):
                await ask()
        except TimeoutError:
            self.seen.problems.append(f"{kind}: no answer within {REPLY_WITHIN:.0f} s")
        except (aiohttp.ClientError, ValueError, LookupError) as error:  # no answer, or one that cannot be read
            self.seen.problems.append(f"{kind}: {error!r}")

    # -- kinds

    async def chat(self) -> None:
        await self._talk(self._own())

    async def stream(self) -> None:
        await self._talk(self._own(), stream=True)

    async def known_question(self) -> None:
        question = f"a question of everybody, number {self._random.randrange(POOL)}"
        self._asking[question] += 1
        if self._asking[question] > 1:
            self._crowded.add(question)
        said = await self._talk(question, stream=self._random.random() < 0.3, shared=True)
        if said.get("x-backstop-cache") == "hit" and question in self._crowded:
            self.seen.ledger.found["hit in a crowd"] += 1
        self._asking[question] -= 1
        if not self._asking[question]:
            self._crowded.discard(question)

    async def calls_tools(self) -> None:
        await self._talk(self._own(), stream=self._either(), more={"tools": [_TOOL]})

    async def response(self) -> None:
        await self._talk(self._own(), path=RESPONSES, stream=self._either())

    async def completion(self) -> None:
        await self._talk(self._own(), path=COMPLETIONS, stream=self._either())

    async def hours(self) -> None:
        await self._talk(f"{self._own()}: {ASKS_HOURS}", stream=self._either())

    async def large_question(self) -> None:
        await self._talk(self._own() + "x" * LARGE)

    async def wants_nothing_kept(self) -> None:
        await self._talk(self._own(), headers={"cache-control": self._random.choice(("no-store", "no-cache"))})

    async def hurried(self) -> None:
        await self._talk(self._own(), headers={"x-backstop-deadline-ms": "40"}, judged=False)

    async def reads_slowly(self) -> None:
        await self._talk(self._own(), stream=True, pause=0.2)

    async def leaves_a_stream(self) -> None:
        await self._talk(self._own(), stream=True, leaves=True)

    async def leaves_at_once(self) -> None:
        try:
            async with asyncio.timeout(self._random.uniform(0.0, 0.05)):
                await self._talk(self._own())
        except TimeoutError:
            pass

    async def gives_feedback(self) -> None:
        said = await self._talk(self._own())
        if not said:
            return
        label = self._random.choice(list(FeedbackLabel))
        async with self._post("/v1/feedback", body={"request_id": said["x-backstop-request-id"], "label": label}) as answer:
            if not json.loads(await answer.read())["counted"]:
                self.seen.problems.append(f"gives_feedback: `{label}` of an answer is not counted")
            self.seen.ledger.sure[Series(names.FEEDBACK_TOTAL, label)] += 1

    async def embedding(self) -> None:
        ask = Ask("/v1/embeddings", judged=False, kept=False)
        await self._ask(ask, body=json.dumps({"model": "any", "input": self._own()}).encode())

    async def garbage(self) -> None:
        await self._refused(Ask(CHAT), body=self._random.choice(_GARBAGE))

    async def wrong_form(self) -> None:
        await self._refused(Ask(CHAT, reach=Reach.DOOR), body=b'{"messages":[]}', headers=self._random.choice(_WRONG_FORM))

    async def elsewhere(self) -> None:
        path = self._random.choice(("models", "nothing", "chat/completions"))
        async with self._http.get(f"{self._url}/v1/{path}") as answer:
            if answer.status != 200:
                self._error(answer.status, json.loads(await answer.read()))
            if (answer.status == 200) != (path == "models"):
                self.seen.problems.append(f"elsewhere: {answer.status} for `{path}`")

    # -- what they have in common

    def _own(self) -> str:
        self._asked += 1
        return f"question {self._asked} of one caller"

    def _either(self) -> bool:
        return self._random.random() < 0.5

    def _post(self, path: str, *, body: Any) -> Any:
        return self._http.post(f"{self._url}{path}", json=body)

    async def _refused(self, ask: Ask, *, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        heard, _ = await self._ask(ask, body=body, headers=headers)
        if heard.outcome is not Outcome.CALLER_ERROR:
            self.seen.problems.append(f"{heard.outcome} for {body[:20]!r} with {headers}")

    async def _talk(
        self,
        question: str,
        *,
        path: str = CHAT,
        stream: bool = False,
        shared: bool = False,
        judged: bool = True,
        more: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        pause: float = 0.0,
        leaves: bool = False,
    ) -> Mapping[str, str]:
        """Ask, and compare; the headers of a good answer, none of another."""
        asked: dict[str, dict[str, Any]] = {
            CHAT: {"messages": [{"role": "user", "content": question}]},
            COMPLETIONS: {"prompt": question},
            RESPONSES: {"input": question},
        }
        body = {"model": "any", **asked[path], **({"stream": True} if stream else {}), **(more or {})}
        says = json.dumps({"text": question}) if more else question
        kept = not more and (headers or {}).get("cache-control") != "no-store"
        ask = Ask(path, says=says, stream=stream, shared=shared, judged=judged, kept=kept)
        heard, said = await self._ask(ask, body=json.dumps(body).encode(), headers=headers, pause=pause, leaves=leaves)
        if heard.outcome is not Outcome.SUCCESS:
            return {}
        tier = said["x-backstop-tier"]
        self.seen.tiers[tier] += 1
        if not fits(heard, tier=tier, question=question):
            self.seen.problems.append(f"{question[:60]!r} was answered by tier `{tier}` with {heard.text[:60]!r}")
        return said

    async def _ask(
        self, ask: Ask, *, body: bytes, headers: Mapping[str, str] | None = None, pause: float = 0.0, leaves: bool = False
    ) -> tuple[Heard, Mapping[str, str]]:
        """What came of it, in the ledger too. `leaves`: with the first of a stream."""
        ledger, began, begun = self.seen.ledger, time.monotonic(), False
        try:
            sent = {"content-type": "application/json", **(headers or {})}
            async with self._http.post(f"{self._url}{ask.path}", data=body, headers=sent) as answer:
                said, begun = answer.headers, True
                ledger.began(ask, said=said)
                if leaves and answer.status == 200:
                    await answer.content.readany()
                    answer.close()
                    heard = Heard(Outcome.CANCELLED)
                else:
                    heard = await self._read(answer, ask=ask, pause=pause)
        except asyncio.CancelledError:
            ledger.left(ask, begun=begun)
            self.seen.outcomes[Outcome.CANCELLED] += 1
            raise
        seconds = time.monotonic() - began
        if heard.outcome is Outcome.CANCELLED:
            ledger.left(ask, begun=True)
        else:
            ledger.late += seconds > BUDGET_SECONDS
            ledger.ended(ask, said=said, heard=heard, seconds=seconds)
        self.seen.outcomes[heard.outcome] += 1
        return heard, said

    async def _read(self, answer: aiohttp.ClientResponse, *, ask: Ask, pause: float) -> Heard:
        if ask.stream and answer.status == 200:
            lines: list[str] = []
            async for line in answer.content:
                if pause and len(lines) % 10 == 0:
                    await asyncio.sleep(pause)
                lines.append(line.decode().strip())
            return streamed(ask.path, lines=lines)
        found = json.loads(await answer.read())
        if answer.status != 200:
            return self._error(answer.status, found)
        return whole(ask.path, body=found) if ask.says else Heard(Outcome.SUCCESS, str(found["data"]))

    def _error(self, status: int, found: Any) -> Heard:
        if not found["error"]["message"]:
            self.seen.problems.append(f"an error {status} without a message")
        return Heard(Outcome.CALLER_ERROR if status < 500 and status != 429 else Outcome.ERROR)

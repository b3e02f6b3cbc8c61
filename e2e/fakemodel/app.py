"""The fake model's HTTP surface: `/v1/chat/completions`, `/v1/embeddings`, `/v1/models`, and `/-/script`, `/-/stats`, `/-/requests` to
steer and to look.

`/-/requests` gives the last bodies and headers as they came, so that a test can see what was sent upstream, or to `/-/tickets`, which
takes what a webhook takes.
"""

import asyncio
import base64
import json
import struct
from collections import deque
from random import Random
from typing import Any, Final

import msgspec
from aiohttp import web

from .script import DEFAULT_RULE, Fault, Rule, choose, parse_rules

KEPT_REQUESTS: Final = 64
_CREATED: Final = 1_700_000_000
_VECTOR: Final = (3.0, 0.5)


class _Message(msgspec.Struct):
    role: str = ""
    content: Any = None


class _Options(msgspec.Struct):
    include_usage: bool = False


class _Chat(msgspec.Struct):
    messages: list[_Message]
    model: str = ""
    stream: bool = False
    stream_options: _Options | None = None
    tools: Any = None


class _Embeddings(msgspec.Struct):
    input: str | list[Any]
    model: str = ""
    encoding_format: str = "float"


class FakeModel:
    """State of one server: rules, counters, and the last requests."""

    def __init__(self, *, random: Random) -> None:
        self._rules: tuple[Rule, ...] = ()
        self._used: list[int] = []  # by rule
        self.requests: deque[dict[str, Any]] = deque(maxlen=KEPT_REQUESTS)
        self.cancelled = 0  # requests whose caller left before the answer was complete
        self._counts: dict[str, int] = {}
        self._random = random
        self._chat = msgspec.json.Decoder(_Chat)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """What it does; to be replaced as a whole."""
        return self._rules

    @rules.setter
    def rules(self, rules: tuple[Rule, ...]) -> None:
        self._rules, self._used = rules, [0] * len(rules)

    @property
    def total(self) -> int:
        """Chat requests so far."""
        return sum(self._counts.values())

    def counts(self) -> dict[str, int]:
        """Chat requests by the `match` of the rule that answered."""
        return dict(self._counts)

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/chat/completions", self._completions)
        app.router.add_post("/v1/embeddings", self._embeddings)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/-/healthz", self._health)
        app.router.add_get("/-/script", self._read_script)
        app.router.add_post("/-/script", self._write_script)
        app.router.add_get("/-/stats", self._stats)
        app.router.add_get("/-/requests", self._last_requests)
        app.router.add_post("/-/tickets", self._ticket)
        return app

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _models(self, _: web.Request) -> web.Response:
        return _json({"object": "list", "data": [{"id": "fake", "object": "model", "created": _CREATED, "owned_by": "fakemodel"}]})

    async def _embeddings(self, request: web.Request) -> web.Response:
        """The same vector, (3.0, 0.5), for every input."""
        text = await request.read()
        self._keep(text, request=request)
        try:
            asked = msgspec.json.decode(text, type=_Embeddings)
        except msgspec.DecodeError as error:
            return _error(400, message=f"fakemodel: {error}")
        inputs = [asked.input] if isinstance(asked.input, str) else asked.input
        vector = base64.b64encode(struct.pack("<2f", *_VECTOR)).decode() if asked.encoding_format == "base64" else _VECTOR
        vectors = [{"object": "embedding", "index": index, "embedding": vector} for index in range(len(inputs))]
        return _json({"object": "list", "data": vectors, "model": asked.model, "usage": {"prompt_tokens": 1, "total_tokens": 1}})

    async def _read_script(self, _: web.Request) -> web.Response:
        return _json(self.rules)

    async def _write_script(self, request: web.Request) -> web.Response:
        try:
            self.rules = parse_rules(await request.read())
        except msgspec.DecodeError as error:
            return _json({"error": str(error)}, status=400)
        return _json(self.rules)

    async def _stats(self, _: web.Request) -> web.Response:
        return _json({"total": self.total, "cancelled": self.cancelled, "rules": self._counts})

    async def _last_requests(self, _: web.Request) -> web.Response:
        return _json(list(self.requests))

    async def _ticket(self, request: web.Request) -> web.Response:
        self._keep(await request.read(), request=request)
        return web.Response(status=204)

    def _keep(self, body: bytes, *, request: web.Request) -> None:
        self.requests.append({"body": body.decode(errors="replace"), "headers": dict(request.headers)})

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        text = await request.read()
        self._keep(text, request=request)
        try:
            chat = self._read(text)
        except ValueError as error:  # msgspec's and json's errors alike
            return _error(400, message=f"fakemodel: {error}")
        prompt = "\n".join(str(m.content) for m in chat.messages if m.role in ("system", "developer"))
        position = choose(self.rules, prompt=prompt, used=self._used)
        rule = DEFAULT_RULE if position is None else self.rules[position]
        name = "" if position is None else rule.match
        if rule.echo:
            rule = msgspec.structs.replace(rule, text=str(chat.messages[-1].content))
        if rule.calls_tools and chat.tools:
            rule = msgspec.structs.replace(rule, text=json.dumps({"text": rule.text}))
        if position is not None:
            self._used[position] += 1
        self._counts[name] = self._counts.get(name, 0) + 1
        try:
            return await self._answer(request, chat=chat, rule=rule)
        except (asyncio.CancelledError, ConnectionResetError):
            self.cancelled += 1
            raise

    def _read(self, text: bytes) -> _Chat:
        try:
            return self._chat.decode(text)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:  # lone surrogates are JSON, but not for msgspec
            return msgspec.convert(json.loads(text), _Chat)

    async def _answer(self, request: web.Request, *, chat: _Chat, rule: Rule) -> web.StreamResponse:
        if rule.fails(self._random):
            said = {} if rule.error_retry_after is None else {"Retry-After": rule.error_retry_after}
            if rule.error_body is not None:
                return web.Response(status=rule.error_status, text=rule.error_body, content_type="application/json", headers=said)
            return _error(rule.error_status, message=f"scripted {rule.error_status}", headers=said)
        if seconds := rule.latency(self._random):
            await asyncio.sleep(seconds)
        match rule.fault:
            case Fault.HANG:
                await asyncio.Event().wait()
            case Fault.RESET:
                _abort(request)
            case Fault.MALFORMED:
                return web.Response(text='{"choices": [', content_type="application/json")
            case Fault.ERROR_BODY:
                return _json({"error": {"message": "scripted", "type": "server_error"}})
        return await self._stream(request, chat=chat, rule=rule) if chat.stream else _whole(chat, rule=rule)

    async def _stream(self, request: web.Request, *, chat: _Chat, rule: Rule) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        wire = _Wire(response, rule=rule, model=chat.model)
        tool = _called(chat, rule=rule)
        await wire.delta({"role": "assistant", "content": ""})
        if rule.fault is Fault.ROLE_ONLY:
            await asyncio.Event().wait()
        pieces = [] if rule.fault is Fault.EMPTY else rule.pieces()
        for number, piece in enumerate(pieces):
            if number == rule.cut_after_tokens and await self._misbehave(request, wire=wire, rule=rule):
                return response
            if number and rule.token_interval_milliseconds:
                await asyncio.sleep(rule.token_interval_milliseconds / 1000)
            await wire.delta({"content": piece} if tool is None else _call(tool, arguments=piece, begins=number == 0))
        await wire.delta({}, finish="stop" if tool is None else "tool_calls")
        if chat.stream_options is not None and chat.stream_options.include_usage:
            await wire.event({"choices": [], "usage": _usage(len(pieces))})
        if rule.fault is not Fault.NO_DONE:
            await wire.line("data: [DONE]")
        await response.write_eof()
        return response

    async def _misbehave(self, request: web.Request, *, wire: "_Wire", rule: Rule) -> bool:
        """Do what the fault says at this point of a stream; whether the stream is over."""
        match rule.fault:
            case Fault.CUT:
                _abort(request)
                return True
            case Fault.STALL:
                while True:
                    await wire.line(": still here")
                    await asyncio.sleep(0.02)
            case Fault.UNFINISHED:
                await wire.response.write_eof()
                return True
            case Fault.GARBAGE:
                await wire.line('data: {"choices": [')
                return False
            case _:
                return False


class _Wire:
    """Events of one stream as bytes."""

    def __init__(self, response: web.StreamResponse, *, rule: Rule, model: str) -> None:
        self.response = response
        self._rule = rule
        self._head = {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": _CREATED, "model": model}

    async def delta(self, delta: dict[str, Any], *, finish: str | None = None) -> None:
        await self.event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    async def event(self, fields: dict[str, Any]) -> None:
        await self.line("data: " + msgspec.json.encode(self._head | fields).decode())

    async def line(self, text: str) -> None:
        raw = (text + self._rule.line_end * 2).encode()
        size = self._rule.slice_bytes or len(raw)
        for start in range(0, len(raw), size):
            await self.response.write(raw[start : start + size])
            if self._rule.slice_bytes is not None:
                await asyncio.sleep(0)


def _whole(chat: _Chat, *, rule: Rule) -> web.Response:
    text = "" if rule.fault is Fault.EMPTY else "".join(rule.pieces())
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if text and (tool := _called(chat, rule=rule)) is not None:
        message |= {"content": None} | _call(tool, arguments=text, begins=True)
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if "tool_calls" in message else "stop"}
    return _json(
        {
            "id": "chatcmpl-fake",
            "object": "chat.completion",
            "created": _CREATED,
            "model": chat.model,
            "choices": [choice],
            "usage": _usage(len(rule.pieces())),
        }
    )


def _called(chat: _Chat, *, rule: Rule) -> str | None:
    """The tool that the answer is a call of; None: it is a text."""
    return str(chat.tools[0]["function"]["name"]) if rule.calls_tools and chat.tools else None


def _call(tool: str, *, arguments: str, begins: bool) -> dict[str, Any]:
    head = {"id": "call_fake", "type": "function"} if begins else {}
    return {"tool_calls": [{"index": 0, **head, "function": {**({"name": tool} if begins else {}), "arguments": arguments}}]}


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 8, "completion_tokens": tokens, "total_tokens": 8 + tokens}


def _json(value: object, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json", headers=headers)


def _error(status: int, *, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return _json({"error": {"message": message, "type": "scripted", "param": None, "code": None}}, status=status, headers=headers)


def _abort(request: web.Request) -> None:
    """Reset the connection."""
    if isinstance(request.transport, asyncio.WriteTransport):
        request.transport.abort()
    raise ConnectionResetError("scripted")

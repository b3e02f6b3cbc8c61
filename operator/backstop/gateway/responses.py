"""A chat's answers spelled as those of `/v1/responses`: one object, or events in their order with a single last one. PURE.

Texts are put together as they are spelled, so that what a model cut in two between tokens is whole again. Nothing follows the last event,
whatever comes: a stream that was cut ends with `response.failed`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from .jsontext import NotJSONError, join_object, quoted, split_array, split_object, text_in
from .sse import DONE, EventSplitter

COMPLETED: Final = "response.completed"
INCOMPLETE: Final = "response.incomplete"
FAILED: Final = "response.failed"
# Bytes of one answer's texts, which are said again at the end of a stream.
MOST_HELD: Final = 16 << 20
_UNFINISHED: Final = (b"null", b'""', b'"null"')
_LONGEST_COUNT: Final = 12  # digits
_GOOD_ENDS: Final = tuple(f"event: {name}\n".encode() for name in (COMPLETED, INCOMPLETE))
_BAD_END: Final = f"event: {FAILED}\n".encode()
_SLOW: Final = b'"code":"slow_caller"'
_INCOMPLETE: Final = {b'"length"': b'{"reason":"max_output_tokens"}', b'"content_filter"': b'{"reason":"content_filter"}'}


def ends_well(event: bytes) -> bool:
    """Whether an event is the last one of a stream that was not cut."""
    return event.startswith(_GOOD_ENDS)


def tells_slowness(event: bytes) -> bool:
    """Whether an event is the last one of a stream whose caller took it too slowly."""
    return event.startswith(_BAD_END) and _SLOW in event


@dataclass
class _Item:
    """One item of the output, as far as it has come. `called`: what its text is; the text as JSON without quotes."""

    index: int
    identity: str
    called: str  # text, refusal, arguments
    call: Mapping[str, bytes] = field(default_factory=dict)
    pieces: list[bytes] = field(default_factory=list)

    @property
    def text(self) -> bytes:
        return b'"' + b"".join(self.pieces) + b'"'

    @property
    def part(self) -> bytes:
        if self.called == "refusal":
            return join_object({"type": b'"refusal"', "refusal": self.text})
        return join_object({"type": b'"output_text"', "annotations": b"[]", "logprobs": b"[]", "text": self.text})

    def spelled(self, status: str, *, empty: bool = False) -> bytes:
        head = {"id": quoted(self.identity), "status": quoted(status)}
        if self.called == "arguments":
            return join_object({**head, "type": b'"function_call"', **self.call, "arguments": b'""' if empty else self.text})
        content = b"[]" if empty else b"[" + self.part + b"]"
        return join_object({**head, "type": b'"message"', "role": b'"assistant"', "content": content})


class Responses:
    """Spells the answer to one request. `identity`: the request's; `created`: whole seconds since 1970; `echo`: as of `AsChat`."""

    def __init__(self, *, identity: str, created: int, echo: Mapping[str, bytes]) -> None:
        self._identity = identity
        self._created = created
        self._echo = echo
        self._model = b"null"
        self._usage = b"null"
        self._finish = b"null"
        self._number = 0
        self._held = 0
        self._done: list[bytes] = []  # items
        self._open: _Item | None = None
        self._tool = b""  # which call of the chat's is the open item
        self._begun = self._ended = False
        self.failed = False

    def whole(self, body: bytes) -> bytes:
        """A whole answer."""
        members = split_object(body)
        self._model, self._usage = members.get("model", b"null"), usage_of(members.get("usage", b"null"))
        (choice, *_) = [split_object(choice) for choice in split_array(members["choices"])]
        self._finish = choice.get("finish_reason", b"null")
        message = _members(choice.get("message", b"null"))
        for name, called in (("content", "text"), ("refusal", "refusal")):
            if text := text_in(message.get(name, b"null")):
                self._done.append(self._item(called, pieces=[text]).spelled("completed"))
        for spelled in _elements(message.get("tool_calls", b"null")):
            call = _members(spelled)
            function = _members(call.get("function", b"null"))
            item = self._item("arguments", call=self._call(call, function=function), pieces=[_arguments(function)])
            self._done.append(item.spelled("completed"))
        return self._response(*self._status())

    def events(self, raw: bytes) -> bytes:
        """Complete events of a chat's stream."""
        said: list[bytes] = []
        for event in EventSplitter().feed(raw):
            if event.data is None:
                said.append(event.raw)
            elif self._ended:
                continue
            elif event.data == DONE:
                said += [*self._begin(), *self._close(), self._end(*self._status())]
            else:
                said += self._chunk(_members(event.data))
        return b"".join(said)

    def _chunk(self, chunk: dict[str, bytes]) -> list[bytes]:
        if "error" in chunk and chunk["error"] != b"null":
            return [*self._begin(), self._end("failed", error=chunk["error"])]
        self._model = chunk.get("model", self._model)
        if chunk.get("usage", b"null") != b"null":
            self._usage = usage_of(chunk["usage"])
        said = self._begin()
        for spelled in _elements(chunk.get("choices", b"null"))[:1]:
            choice = _members(spelled)
            delta = _members(choice.get("delta", b"null"))
            for name, called in (("content", "text"), ("refusal", "refusal")):
                if text := text_in(delta.get(name, b"null")):
                    said += self._more(called, piece=text)
            for call in _elements(delta.get("tool_calls", b"null")):
                said += [] if self._ended else self._called(_members(call))
            if (finish := choice.get("finish_reason", b"null")) not in _UNFINISHED:
                self._finish = finish
        if self._held > MOST_HELD and not self._ended:
            said.append(self._end("failed", error=b'{"code":"answer_too_long","message":"the answer is too long"}'))
        return said

    def _begin(self) -> list[bytes]:
        if self._begun:
            return []
        self._begun = True
        return [self._event(name, {"response": self._response("in_progress")}) for name in ("response.created", "response.in_progress")]

    def _more(self, called: str, *, piece: bytes) -> list[bytes]:
        said = []
        if self._open is None or self._open.called != called:
            said = [*self._close(), *self._start(self._item(called))]
        assert self._open is not None
        item = self._open
        item.pieces.append(piece)
        self._held += len(piece)
        name = {"text": "response.output_text.delta", "refusal": "response.refusal.delta"}[called]
        extra = {"logprobs": b"[]"} if called == "text" else {}
        return [*said, self._event(name, {**_place(item), "delta": b'"' + piece + b'"', **extra})]

    def _called(self, call: dict[str, bytes]) -> list[bytes]:
        """A piece of a call. A new one begins with its index; some begin it with an id, and say no index, or the same one always."""
        function = _members(call.get("function", b"null"))
        mark, named = call.get("index", b"") or call.get("id", b""), bool(text_in(function.get("name", b"null")))
        said = []
        if self._open is None or self._open.called != "arguments" or (mark and mark != self._tool) or (named and self._is_other(call)):
            if not named:  # it goes on with a call that is over, or is none
                return [self._end("failed", error=b'{"message":"the calls of functions came in pieces of one another"}')]
            self._tool = mark
            said = [*self._close(), *self._start(self._item("arguments", call=self._call(call, function=function)))]
        assert self._open is not None
        if piece := _arguments(function):
            self._open.pieces.append(piece)
            self._held += len(piece)
            where = {"item_id": quoted(self._open.identity), "output_index": b"%d" % self._open.index}
            said.append(self._event("response.function_call_arguments.delta", {**where, "delta": b'"' + piece + b'"'}))
        return said

    def _is_other(self, call: Mapping[str, bytes]) -> bool:
        """Whether a call has another id than the open one."""
        identity = call.get("id", b"null")
        return self._open is not None and bool(text_in(identity)) and identity != self._open.call["call_id"]

    def _call(self, call: Mapping[str, bytes], *, function: Mapping[str, bytes]) -> dict[str, bytes]:
        """What its output refers to, and its name. Some models give a call no id."""
        identity = call.get("id", b"null")
        said = identity if text_in(identity) else quoted(f"call_{self._identity}_{len(self._done) + (self._open is not None)}")
        return {"call_id": said, "name": function.get("name", b'""')}

    def _item(self, called: str, *, call: Mapping[str, bytes] | None = None, pieces: list[bytes] | None = None) -> _Item:
        kind = "fc" if called == "arguments" else "msg"
        return _Item(len(self._done), f"{kind}_{self._identity}_{len(self._done)}", called, call or {}, pieces or [])

    def _start(self, item: _Item) -> list[bytes]:
        self._open = item
        added = {"output_index": b"%d" % item.index, "item": item.spelled("in_progress", empty=True)}
        said = [self._event("response.output_item.added", added)]
        if item.called != "arguments":
            said.append(self._event("response.content_part.added", {**_place(item), "part": item.part}))
        return said

    def _close(self, status: str = "completed") -> list[bytes]:
        item, self._open = self._open, None
        if item is None:
            return []
        if item.called == "arguments":
            where = {"item_id": quoted(item.identity), "output_index": b"%d" % item.index}
            named = {"name": item.call.get("name", b'""'), "arguments": item.text}
            said = [self._event("response.function_call_arguments.done", {**where, **named})]
        else:
            extra = {"logprobs": b"[]"} if item.called == "text" else {}
            name = "response.output_text.done" if item.called == "text" else "response.refusal.done"
            said = [self._event(name, {**_place(item), item.called: item.text, **extra})]
            said.append(self._event("response.content_part.done", {**_place(item), "part": item.part}))
        done = item.spelled(status)
        self._done.append(done)
        return [*said, self._event("response.output_item.done", {"output_index": b"%d" % item.index, "item": done})]

    def _end(self, status: str, error: bytes = b"null", details: bytes = b"null") -> bytes:
        self._ended, self.failed = True, status == "failed"
        if self._open is not None:  # cut in the middle: it is in the response, as far as it came
            self._done.append(self._open.spelled("incomplete"))
        return self._event(f"response.{status}", {"response": self._response(status, error, details)})

    def _status(self) -> tuple[str, bytes, bytes]:
        details = _INCOMPLETE.get(self._finish, b"null")
        return ("completed" if details == b"null" else "incomplete"), b"null", details

    def _response(self, status: str, error: bytes = b"null", details: bytes = b"null") -> bytes:
        return join_object(
            {
                "id": quoted(f"resp_{self._identity}"),
                "object": b'"response"',
                "created_at": b"%d" % self._created,
                "status": quoted(status),
                "error": _error(error),
                "incomplete_details": details,
                "model": self._model,
                "output": b"[" + b",".join(self._done) + b"]",
                "previous_response_id": b"null",
                "store": b"false",
                "truncation": b'"disabled"',
                "usage": self._usage,
                **self._echo,
            }
        )

    def _event(self, name: str, members: dict[str, bytes]) -> bytes:
        data = join_object({"type": quoted(name), "sequence_number": b"%d" % self._number, **members})
        self._number += 1
        # A line break inside of what passes through would end the line: JSON may have them between its members.
        return f"event: {name}\n".encode() + b"data: " + data.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n\n"


def usage_of(spelled: bytes) -> bytes:
    """A chat's usage by the names that a response has for it."""
    said = _members(spelled)
    read, written, both = (said.get(f"{name}_tokens", b"null") for name in ("prompt", "completion", "total"))
    if not (_is_count(read) and _is_count(written)):
        return b"null"
    cached = _members(said.get("prompt_tokens_details", b"null")).get("cached_tokens", b"null")
    reasoned = _members(said.get("completion_tokens_details", b"null")).get("reasoning_tokens", b"null")
    return join_object(
        {
            "input_tokens": read,
            "input_tokens_details": join_object({"cached_tokens": cached if _is_count(cached) else b"0"}),
            "output_tokens": written,
            "output_tokens_details": join_object({"reasoning_tokens": reasoned if _is_count(reasoned) else b"0"}),
            "total_tokens": both if _is_count(both) else b"%d" % (int(read) + int(written)),
        }
    )


def _place(item: _Item) -> dict[str, bytes]:
    return {"item_id": quoted(item.identity), "output_index": b"%d" % item.index, "content_index": b"0"}


def _error(spelled: bytes) -> bytes:
    """What went wrong, as a response tells it: a code and a message."""
    said = _members(spelled)
    if not said:
        return b"null"
    code = said.get("code", b"null")
    return join_object({"code": b'"server_error"' if code == b"null" else code, "message": said.get("message", b'""')})


def _arguments(function: Mapping[str, bytes]) -> bytes:
    """A call's arguments: JSON in a text, without its quotes. Some models give the JSON itself."""
    spelled = function.get("arguments", b"null")
    if spelled == b"null" or spelled.startswith(b'"'):
        return text_in(spelled)
    return quoted(spelled.decode(errors="surrogatepass"))[1:-1]


def _is_count(spelled: bytes) -> bool:
    return spelled.isdigit() and len(spelled) <= _LONGEST_COUNT


def _members(spelled: bytes) -> dict[str, bytes]:
    try:
        return split_object(spelled) if spelled.startswith(b"{") else {}
    except NotJSONError:
        return {}


def _elements(spelled: bytes) -> list[bytes]:
    return split_array(spelled) if spelled.startswith(b"[") else []

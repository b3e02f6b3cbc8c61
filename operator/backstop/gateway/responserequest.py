"""A request to `/v1/responses` as the chat that means the same. PURE.

What a chat cannot mean is refused by name: nothing is kept here that could be referred to later, and tools that run at the model's own
place are not a model's that speaks chat. What is not known passes through, as everywhere.
"""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Final, NamedTuple, TypeVar

from .errors import LONGEST_NAME, CallerError, named
from .jsontext import NotJSONError, join_object, parse_scalar, split_array, split_body, split_object

Parts = TypeVar("Parts")
PATH: Final = "/v1/responses"
_NOTHING: Final = (b"null", b"[]", b"false", b'""')
# Members that have no meaning for a chat; and what means nothing where it is there.
_NOT_OFFERED: Final[Mapping[str, tuple[bytes, ...]]] = {
    "previous_response_id": (),
    "conversation": (),
    "prompt": (),
    "background": (),
    "store": (),
    "context_management": (),
    "max_tool_calls": (),
    "truncation": (b'"disabled"',),
    "top_logprobs": (b"0",),
    "messages": (),
    "n": (b"1",),
    "response_format": (),
    # A chat's own, whose answers a response has no place for.
    "logprobs": (),
    "functions": (),
    "function_call": (),
    "audio": (),
    "modalities": (b'["text"]',),
}
_ENCRYPTED: Final = b'"reasoning.encrypted_content"'
# Of items and parts: what is read, and what only tells a place where such things are kept.
_KEPT: Final = ("type", "id", "status")
_OF_MESSAGE: Final = (*_KEPT, "role", "content")
_OF_CALL: Final = (*_KEPT, "call_id", "name", "arguments")
_OF_OUTPUT: Final = (*_KEPT, "call_id", "output")
_OF_PARTS: Final[Mapping[bytes, tuple[str, ...]]] = {
    b'"input_text"': ("text",),
    b'"output_text"': ("text", "annotations", "logprobs"),
    b'"text"': ("text",),
    b'"refusal"': ("refusal",),
    b'"input_image"': ("image_url", "detail"),
    b'"input_file"': ("file_id", "file_data", "filename"),
}
# Said again in the answer, as its caller spelled it; and what is said where it was not.
_ECHOED: Final[Mapping[str, bytes]] = {
    "instructions": b"null",
    "max_output_tokens": b"null",
    "metadata": b"{}",
    "parallel_tool_calls": b"true",
    "reasoning": b'{"effort":null,"summary":null}',
    "temperature": b"null",
    "text": b'{"format":{"type":"text"}}',
    "tool_choice": b'"auto"',
    "tools": b"[]",
    "top_p": b"null",
    "user": b"null",
}
_ASSISTANT: Final = b'"assistant"'
_ROLES: Final = (b'"user"', _ASSISTANT, b'"system"', b'"developer"')


class AsChat(NamedTuple):
    """The chat, and what the answer says again of the request."""

    text: bytes
    echo: Mapping[str, bytes]


def as_chat(text: bytes) -> AsChat:
    """A chat request in place of one for a response. Raises CallerError."""
    members = _cut(partial(split_body, wanted="a request for a response"), text, where="the body", param=None)
    for name, harmless in _NOT_OFFERED.items():
        if members.pop(name, b"null") not in (*_NOTHING, *harmless):
            raise CallerError(f"`{name}` is not offered on `{PATH}`; leave it out", param=name)
    _take_include(members)
    echo = {name: _said(members.get(name), otherwise=otherwise) for name, otherwise in _ECHOED.items()}
    messages = _messages(members.pop("input", b"null"))
    instructions = members.pop("instructions", b"null")
    if instructions not in _NOTHING:
        if not instructions.startswith(b'"'):
            raise CallerError("`instructions` must be a string", param="instructions")
        messages.insert(0, join_object({"role": b'"system"', "content": instructions}))
    _rename(members, "max_output_tokens", "max_completion_tokens")
    _take_text(members)
    _take_reasoning(members)
    _take_tools(members)
    options = members.pop("stream_options", b"null")
    if members.get("stream") == b"true":
        said = {} if options == b"null" else _object(options, where="`stream_options`", param="stream_options")
        _refuse_others(said, known=("include_usage",), param="stream_options")
        members["stream_options"] = b'{"include_usage":true}'  # the last event has it, whether it is asked for or not
    elif options not in (*_NOTHING, b"{}"):
        raise CallerError("`stream_options` belongs to `stream`; leave it out", param="stream_options")
    return AsChat(join_object({**members, "messages": b"[" + b",".join(messages) + b"]"}), echo)


class _Turn(NamedTuple):
    """A message of the chat, and the calls of it."""

    members: dict[str, bytes]
    calls: list[bytes]


def _messages(spelled: bytes) -> list[bytes]:
    """The messages that the input stands for. Calls belong to the assistant's message that they follow, as a chat wants them."""
    if spelled.startswith(b'"'):
        return [join_object({"role": b'"user"', "content": spelled})]
    items = _list(spelled, param="input")
    if not items:
        raise CallerError("`input` must not be empty; give a text, or at least one item", param="input")
    turns: list[_Turn] = []
    for position, item in enumerate(items):
        param = f"input[{position}]"
        members = _object(item, where=f"`{param}`", param=param)
        match members.get("type", b'"message"'):
            case b'"message"':
                turns.append(_Turn(_message(members, param=param), []))
            case b'"function_call"':
                if not (turns and turns[-1].members["role"] == _ASSISTANT):
                    turns.append(_Turn({"role": _ASSISTANT, "content": b"null"}, []))
                turns[-1].calls.append(_call(members, param=param))
            case b'"function_call_output"':
                turns.append(_Turn(_output(members, param=param), []))
            case b'"item_reference"':
                said = "`item_reference` is not offered, for no item is kept here; send the item itself, as clients do with `store: false`"
                raise CallerError(f"`{param}.type` {said}", param=f"{param}.type")
            case kind:
                raise CallerError(
                    f"`{param}.type` {_shown(kind)} is not offered; there are `message`, `function_call` and `function_call_output`",
                    param=f"{param}.type",
                )
    calls = [{"tool_calls": b"[" + b",".join(turn.calls) + b"]"} if turn.calls else {} for turn in turns]
    return [join_object({**turn.members, **made}) for turn, made in zip(turns, calls, strict=True)]


def _message(members: dict[str, bytes], *, param: str) -> dict[str, bytes]:
    _refuse_others(members, known=_OF_MESSAGE, param=param)
    role = members.get("role", b"null")
    if role not in _ROLES:
        raise CallerError(f"`{param}.role` must be one of {', '.join(_shown(role) for role in _ROLES)}", param=f"{param}.role")
    content = members.get("content", b"null")
    return {"role": role, "content": content if content.startswith(b'"') else _parts(content, param=f"{param}.content")}


def _parts(spelled: bytes, *, param: str) -> bytes:
    """Parts of a message. Text alone is one text, which every model takes."""
    texts: list[bytes] = []
    parts: list[bytes] = []
    for position, part in enumerate(_list(spelled, param=param)):
        where = f"{param}[{position}]"
        members = _object(part, where=f"`{where}`", param=where)
        text = b"null"
        kind = members.get("type", b"null")
        _refuse_others(members, known=("type", *_OF_PARTS.get(kind, members)), param=where)
        match kind:
            case b'"input_text"' | b'"output_text"' | b'"text"':
                text = _string(members, "text", param=where)
                parts.append(join_object({"type": b'"text"', "text": text}))
            case b'"refusal"':
                text = _string(members, "refusal", param=where)
                parts.append(join_object({"type": b'"text"', "text": text}))
            case b'"input_image"':
                detail = {name: members[name] for name in ("detail",) if members.get(name, b"null") != b"null"}
                image = join_object({"url": _string(members, "image_url", param=where), **detail})
                parts.append(join_object({"type": b'"image_url"', "image_url": image}))
            case b'"input_file"':
                file = {name: members[name] for name in ("file_id", "file_data", "filename") if members.get(name, b"null") != b"null"}
                parts.append(join_object({"type": b'"file"', "file": join_object(file)}))
            case b'"input_audio"':
                parts.append(part)
            case _:
                raise CallerError(f"`{where}.type` {_shown(kind)} is not offered on `{PATH}`; leave it out", param=f"{where}.type")
        texts.append(text)
    if len(parts) == 1 and texts[0] != b"null":
        return texts[0]
    return b"[" + b",".join(parts) + b"]"


def _call(members: dict[str, bytes], *, param: str) -> bytes:
    _refuse_others(members, known=_OF_CALL, param=param)
    function = join_object({name: _string(members, name, param=param) for name in ("name", "arguments")})
    return join_object({"id": _string(members, "call_id", param=param), "type": b'"function"', "function": function})


def _output(members: dict[str, bytes], *, param: str) -> dict[str, bytes]:
    _refuse_others(members, known=_OF_OUTPUT, param=param)
    output = members.get("output", b"null")
    content = output if output.startswith(b'"') else _parts(output, param=f"{param}.output")
    return {"role": b'"tool"', "tool_call_id": _string(members, "call_id", param=param), "content": content}


def _take_include(members: dict[str, bytes]) -> None:
    """Of what may be asked for beside the answer, only a model's reasoning for later: there is none to be had, and nothing is missing."""
    included = members.pop("include", b"null")
    if included != b"null" and any(name != _ENCRYPTED for name in _list(included, param="include")):
        raise CallerError(f"`include` is not offered on `{PATH}`; leave it out", param="include")


def _take_text(members: dict[str, bytes]) -> None:
    """`text` says the format of the answer, and how much of it there should be."""
    spelled = members.pop("text", b"null")
    if spelled == b"null":
        return
    text = _object(spelled, where="`text`", param="text")
    if text.get("verbosity", b"null") != b"null":
        members["verbosity"] = text["verbosity"]
    _refuse_others(text, known=("format", "verbosity"), param="text")
    said = text.get("format", b"null")
    if said == b"null":
        return
    form = _object(said, where="`text.format`", param="text.format")
    kind = form.pop("type", b"null")
    match kind:
        case b'"text"':
            _refuse_others(form, known=(), param="text.format")
        case b'"json_object"':
            members["response_format"] = said
        case b'"json_schema"':
            members["response_format"] = join_object({"type": kind, "json_schema": join_object(form)})
        case _:
            raise CallerError("`text.format.type` must be `text`, `json_object` or `json_schema`", param="text.format.type")


def _take_reasoning(members: dict[str, bytes]) -> None:
    spelled = members.pop("reasoning", b"null")
    if spelled == b"null":
        return
    reasoning = _object(spelled, where="`reasoning`", param="reasoning")
    effort = reasoning.pop("effort", b"null")
    if effort != b"null":
        members["reasoning_effort"] = effort
    _refuse_others(reasoning, known=(), param="reasoning")


def _take_tools(members: dict[str, bytes]) -> None:
    """Functions are spelled one level deeper in a chat."""
    if members.get("tools", b"null") not in _NOTHING:
        tools = [_function(tool, param=f"tools[{position}]") for position, tool in enumerate(_list(members["tools"], param="tools"))]
        members["tools"] = b"[" + b",".join(tools) + b"]"
    else:
        members.pop("tools", None)
    choice = members.get("tool_choice", b"null")
    if choice.startswith(b"{"):
        members["tool_choice"] = _function(choice, param="tool_choice")


def _function(spelled: bytes, *, param: str) -> bytes:
    members = _object(spelled, where=f"`{param}`", param=param)
    kind = members.pop("type", b"null")
    if kind != b'"function"':
        raise CallerError(f"`{param}.type` {_shown(kind)} is not offered on `{PATH}`; there is `function`", param=f"{param}.type")
    return join_object({"type": kind, "function": join_object(members)})


def _refuse_others(members: Mapping[str, bytes], *, known: Collection[str], param: str) -> None:
    """What would be lost: it is said, and has a meaning that is not known here."""
    for name, value in members.items():
        if name not in known and value not in _NOTHING:
            where = f"{param}.{named(name)}"
            raise CallerError(f"`{where}` is not offered on `{PATH}`; leave it out", param=where)


def _rename(members: dict[str, bytes], name: str, to: str) -> None:
    value = members.pop(name, b"null")
    if value != b"null":
        members[to] = value


def _said(spelled: bytes | None, *, otherwise: bytes) -> bytes:
    return otherwise if spelled is None or spelled == b"null" else spelled


def _string(members: Mapping[str, bytes], name: str, *, param: str) -> bytes:
    value = members.get(name, b"null")
    if not value.startswith(b'"'):
        raise CallerError(f"`{param}.{name}` must be a string", param=f"{param}.{name}")
    return value


def _shown(spelled: bytes) -> str:
    """A value in a sentence, as far as it is short."""
    if not spelled.startswith(b'"'):
        return f"`{named(spelled[:LONGEST_NAME].decode(errors='replace'))}`"
    return f"`{named(str(parse_scalar(spelled)))}`"


def _object(spelled: bytes, *, where: str, param: str | None) -> dict[str, bytes]:
    return _cut(split_object, spelled, where=where, param=param)


def _list(spelled: bytes, *, param: str) -> list[bytes]:
    return _cut(split_array, spelled, where=f"`{param}`", param=param)


def _cut(cut: Callable[[bytes], Parts], spelled: bytes, *, where: str, param: str | None) -> Parts:
    try:
        return cut(spelled)
    except NotJSONError as error:
        raise CallerError(f"{where} {error}", param=param) from None

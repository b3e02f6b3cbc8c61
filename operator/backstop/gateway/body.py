"""Bodies of chat requests: parsed only where the prompt version has a say, the rest as the caller spelled it. PURE."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec

from ..api.fallbackpolicy import Capability
from .errors import CallerError
from .jsontext import NotJSONError, join_object, quoted, split_array, split_body, split_object
from .knowledge import question_in
from .needs import needs_of
from .prompt import check_values
from .revision import Revision


class _Message(msgspec.Struct):
    role: str


_MESSAGE: Final = msgspec.json.Decoder(_Message)
_NONE: Final[Mapping[str, Any]] = MappingProxyType({})


class Wanted(NamedTuple):
    """How the caller wants the answer."""

    stream: bool
    include_usage: bool


class ChatRequest(NamedTuple):  # with so many fields, a frozen dataclass takes five times as long to make
    """A checked request: members of the upstream body but for `model`, and how the caller wants the answer.

    `question`: what the caller asks, where the revision has somewhere to look it up. `values`: of the declared variables, as JSON strings
    without quotes. `needs`: beyond text, where the revision has a tier that cannot do everything. `languages`: an `Accept-Language`
    header; `headers`: of those that rules may read, the ones that there are. `history`: the caller's messages, where a person may be
    handed them; `identity`: of the request; `synthetic`: nobody waits for the answer. `echo`: what the answer says again, where it does.
    """

    members: dict[str, bytes]
    wanted: Wanted
    question: str = ""
    values: Mapping[str, bytes] = _NONE
    needs: frozenset[Capability] = frozenset()
    languages: str = ""
    headers: Mapping[str, str] = _NONE
    history: tuple[bytes, ...] = ()
    identity: str = ""
    synthetic: bool = False
    echo: Mapping[str, bytes] = _NONE

    def for_model(self, model: str, *, asks_usage: bool = False) -> bytes:
        """The upstream body for one target. `asks_usage`: of a stream, whether or not its caller does."""
        members = {"model": quoted(model), **self.members}
        if asks_usage and self.wanted.stream and not self.wanted.include_usage:
            options = members.get("stream_options", b"null")
            others = {} if options == b"null" else split_object(options)
            members["stream_options"] = join_object({**others, "include_usage": b"true"})
        return join_object(members)


def parse_chat(
    text: bytes, *, revision: Revision, header_variables: Mapping[str, str], identity: str = "", echo: Mapping[str, bytes] = _NONE
) -> ChatRequest:
    """Check the caller's body and render the prompt around its messages. `identity` and `echo`: as of ChatRequest. Raises CallerError."""
    members = _members(text)
    history = _history(members.get("messages"))
    metadata = _metadata(members)
    values = check_values(revision.prompt.variables, metadata=metadata, headers=header_variables)
    stream = _flag(members.get("stream"), field="stream")
    members["messages"] = revision.prompt.render(history, values=values)
    members.pop("model", None)
    _set_metadata(members, kept={name: value for name, value in metadata.items() if name not in revision.prompt.variables}, was=metadata)
    if "max_tokens" in revision.parameters:
        members.pop("max_completion_tokens", None)  # the newer spelling of the same field; both at once are refused
    members.update(revision.parameters)
    return ChatRequest(
        members=members,
        wanted=Wanted(stream=stream, include_usage=_include_usage(members.get("stream_options"))),
        question=question_in(history) if revision.has_knowledge else "",
        values=values,
        history=tuple(history) if revision.human is not None else (),
        needs=needs_of(members, history=history) if revision.tells_needs else frozenset(),
        identity=identity,
        echo=echo,
    )


def _members(text: bytes) -> dict[str, bytes]:
    try:
        return split_body(text, wanted="a chat completion request")
    except NotJSONError as error:
        raise CallerError(f"the body {error}") from None


def _history(text: bytes | None) -> list[bytes]:
    """The caller's messages, as spelled. A chain that ends in a fixed answer must not hide that a model would refuse them."""
    if text is None:
        raise CallerError("`messages` is missing; set it", param="messages")
    try:
        messages = split_array(text)
    except NotJSONError as error:
        raise CallerError(f"`messages` {error}", param="messages") from None
    if not messages:
        raise CallerError("`messages` must not be empty; give at least one object with `role`", param="messages")
    for position, message in enumerate(messages):
        if not _has_role(message):
            raise CallerError(f"`messages[{position}]` must be an object with `role`, a string", param=f"messages[{position}]")
    return messages


def _has_role(message: bytes) -> bool:
    try:
        return bool(_MESSAGE.decode(message).role)
    except msgspec.ValidationError:
        return False
    except (msgspec.DecodeError, UnicodeDecodeError):  # JSON that msgspec refuses: lone surrogates
        role = split_object(message).get("role", b"") if message.startswith(b"{") else b""
        return role.startswith(b'"') and role != b'""'


def _metadata(members: Mapping[str, bytes]) -> dict[str, bytes]:
    text = members.get("metadata", b"null")
    if text == b"null":
        return {}
    try:
        return split_object(text)
    except NotJSONError:
        raise CallerError("`metadata` must be an object", param="metadata") from None


def _set_metadata(members: dict[str, bytes], *, kept: dict[str, bytes], was: dict[str, bytes]) -> None:
    if len(kept) == len(was):
        return  # nothing of it was ours: it stays as spelled
    if kept:
        members["metadata"] = join_object(kept)
    else:
        del members["metadata"]


def _flag(text: bytes | None, *, field: str) -> bool:
    match text:
        case None | b"null" | b"false":
            return False
        case b"true":
            return True
        case _:
            raise CallerError(f"`{field}` must be `true` or `false`", param=field)


def _include_usage(text: bytes | None) -> bool:
    if text is None or text == b"null":
        return False
    try:
        return split_object(text).get("include_usage") == b"true"
    except NotJSONError:
        raise CallerError("`stream_options` must be an object", param="stream_options") from None

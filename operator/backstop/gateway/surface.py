"""What is offered: paths, and how a request to one that is not the chain's own becomes one, and its answer one of that path's. PURE.

`/v1/completions` is a chat of one message, so that the prompt version stands around it as around any other. `/v1/responses` is a
chat too: `responserequest`, `responses`.
"""

from enum import StrEnum
from typing import Final

from .errors import CallerError
from .jsontext import NotJSONError, join_object, quoted, split_array, split_body, split_object, text_in
from .sse import DONE, EventSplitter


class Endpoint(StrEnum):
    """What can be asked, by path."""

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    EMBEDDINGS = "/v1/embeddings"
    RESPONSES = "/v1/responses"


MODELS_PATH: Final = "/v1/models"
_NOTHING: Final = (b"null", b"[]", b"false")
# Members that have no meaning for a chat, or another one; and what means nothing where it is there.
_NOT_OFFERED: Final = {
    "suffix": (b'""',),
    "echo": (),
    "best_of": (b"1",),
    "logprobs": (),
    "messages": (),
    "tools": (),
    "functions": (),
    "audio": (),
    "modalities": (),
}


def chat_of(text: bytes) -> bytes:
    """A chat request in place of a completion request. Raises CallerError."""
    try:
        members = split_body(text, wanted="a completion request")
    except NotJSONError as error:
        raise CallerError(f"the body {error}") from None
    for name, harmless in _NOT_OFFERED.items():
        if members.pop(name, b"null") not in (*_NOTHING, *harmless):
            raise CallerError(f"`{name}` is not offered on `{Endpoint.COMPLETIONS}`; leave it out", param=name)
    message = join_object({"role": b'"user"', "content": _one_text(members.pop("prompt", b"null"))})
    return join_object({**members, "messages": b"[" + message + b"]"})


def _one_text(prompt: bytes) -> bytes:
    try:
        texts = split_array(prompt) if prompt.startswith(b"[") else [prompt]
    except NotJSONError as error:
        raise CallerError(f"`prompt` {error}", param="prompt") from None
    if len(texts) != 1 or not texts[0].startswith(b'"'):
        raise CallerError("`prompt` must be one text; send a request for each, and no tokens", param="prompt")
    return texts[0]


class Completions:
    """Spells a chat's answers as those of `/v1/completions`; what is no answer stays as it is."""

    failed = False

    def whole(self, body: bytes) -> bytes:
        """A whole answer."""
        return _text_completion(body, part="message")

    def events(self, raw: bytes) -> bytes:
        """Complete events of a stream."""
        return b"".join(
            [
                event.raw if event.data is None or event.data == DONE else b"data: " + _one_line(event.data) + b"\n\n"
                for event in EventSplitter().feed(raw)
            ]
        )


def _one_line(chunk: bytes) -> bytes:
    """A chunk that came in several lines of data has line ends between its members, and one would end the line."""
    return _text_completion(chunk, part="delta").replace(b"\n", b" ")


def _text_completion(body: bytes, *, part: str) -> bytes:
    members = split_object(body)
    if not members.get("choices", b"null").startswith(b"["):
        return body
    choices = [_text_choice(split_object(choice), part=part) for choice in split_array(members["choices"])]
    return join_object({**members, "object": quoted("text_completion"), "choices": b"[" + b",".join(choices) + b"]"})


def _text_choice(choice: dict[str, bytes], *, part: str) -> bytes:
    said = choice.pop(part, b"null")
    content = split_object(said).get("content", b"null") if said.startswith(b"{") else b"null"
    return join_object({**choice, "text": b'"' + text_in(content) + b'"', "logprobs": b"null"})


def embeddings_of(text: bytes) -> dict[str, bytes]:
    """The members of a request for embeddings, but for `model`. Raises CallerError."""
    try:
        members = split_body(text, wanted="a request for embeddings", commas_count=False)
    except NotJSONError as error:
        raise CallerError(f"the body {error}") from None
    if members.get("input", b"null") in (b"null", b"[]", b'""'):
        raise CallerError("`input` is missing; set it", param="input")
    members.pop("model", None)
    return members

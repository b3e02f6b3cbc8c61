"""JSON as text: cuts objects and arrays into the spellings of their values, so that what passes through stays byte for byte.

The fast path is msgspec. What it refuses and JSON allows (lone surrogates) is cut by the standard library. PURE.
"""

import json
import re
from typing import Final, Never, TypeVar

import msgspec

_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY: Final = msgspec.json.Decoder(list[msgspec.Raw])
_SPACES: Final = re.compile(r"[ \t\r\n]*")
# What a body may be cut into: strings, and commas outside of them. Each part costs 140 to 240 bytes while it is cut, so 20 MiB of `1,`
# would take more than a GiB, and the loop for seconds. Ten thousand messages are sixty thousand parts.
MOST_PARTS: Final = 200_000
# A string that does not end counts as one, too: each byte is looked at once, whatever the text is.
_TEXTS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
# Names that most requests have, as JSON.
_SPELLED: Final = {
    name: b'"%b"' % name.encode()
    for name in ("model", "messages", "stream", "stream_options", "temperature", "top_p", "max_tokens", "max_completion_tokens", "tools")
}
Parts = TypeVar("Parts")


class NotJSONError(ValueError):
    """The text is not what was asked for; the message says what it should be."""


def no_number(name: str) -> Never:
    """`NaN` and its like, which Python reads and JSON does not have."""
    raise ValueError(name)


_READER: Final = json.JSONDecoder(parse_constant=no_number)


def split_object(text: bytes) -> dict[str, bytes]:
    """Members of a JSON object, each value as it is spelled. Raises NotJSONError."""
    members = _object_quickly(text)
    return _object_slowly(text) if members is None else members


def split_body(text: bytes, *, wanted: str, commas_count: bool = True) -> dict[str, bytes]:
    """Members of the JSON object that a caller sent. Raises NotJSONError, also for what `split_object` does not look into.

    `wanted`: what to send in its place; `commas_count`: False where lists are not cut any further, and may be long ones of numbers.
    """
    _check_parts(text, commas_count=commas_count)
    try:
        if not text.isascii():
            _decoded(text)
        members = _object_quickly(text)
    except NotJSONError as error:
        raise NotJSONError(f"{error}; send {wanted}") from None
    if members is not None:
        return members
    _check_parts(text, commas_count=True)  # the slow way makes an object of every value
    try:
        return _object_slowly(text)
    except NotJSONError as error:
        raise NotJSONError(f"{error}; send {wanted}") from None


def split_array(text: bytes) -> list[bytes]:
    """Elements of a JSON array, each as it is spelled. Raises NotJSONError."""
    try:
        return [bytes(raw) for raw in _ARRAY.decode(text)]
    except msgspec.ValidationError:
        raise NotJSONError("must be a list") from None
    except RecursionError:
        raise NotJSONError("is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _array_slowly(text)


def join_object(members: dict[str, bytes]) -> bytes:
    """The inverse of `split_object`, without spaces."""
    return b"{" + b",".join([(_SPELLED.get(name) or quoted(name)) + b":" + value for name, value in members.items()]) + b"}"


def quoted(text: str) -> bytes:
    """`text` as a JSON string, quotes included."""
    try:
        return msgspec.json.encode(text)
    except UnicodeEncodeError:  # a lone surrogate: only an escape can carry it
        return json.dumps(text).encode()


def text_in(spelled: bytes) -> bytes:
    """A text as JSON without its quotes; of a list of parts, those that are text. Empty where there is none."""
    if not spelled.startswith(b"["):
        return spelled[1:-1] if spelled.startswith(b'"') else b""
    parts = [split_object(part) for part in split_array(spelled) if part.startswith(b"{")]
    return b"".join([part["text"][1:-1] for part in parts if part.get("type") == b'"text"' and part.get("text", b"").startswith(b'"')])


def parse_scalar(text: bytes) -> object:
    """The value of a short JSON text, such as a variable; NotJSONError when it is none."""
    try:
        return _READER.decode(_decoded(text))
    except (ValueError, RecursionError):
        raise NotJSONError("is not valid JSON") from None


def _check_parts(text: bytes, *, commas_count: bool) -> None:
    """Raise NotJSONError where there are more than MOST_PARTS; most bodies are let through by counting bytes."""
    if text.count(b'"') + (text.count(b",") if commas_count else 0) <= MOST_PARTS:
        return
    parts = end = 0
    for string in _TEXTS.finditer(text):
        parts += 1 + (text.count(b",", end, string.start()) if commas_count else 0)
        end = string.end()
        if parts > MOST_PARTS:
            break
    if parts + (text.count(b",", end) if commas_count else 0) > MOST_PARTS:
        counted = "texts and commas between values" if commas_count else "texts"
        raise NotJSONError(f"has more than {MOST_PARTS:,} {counted}; send fewer at once")


def _object_quickly(text: bytes) -> dict[str, bytes] | None:
    """None for what msgspec refuses: no JSON, or some that it does not know."""
    try:
        return {name: bytes(raw) for name, raw in _OBJECT.decode(text).items()}
    except msgspec.ValidationError:
        raise NotJSONError("must be a JSON object") from None
    except RecursionError:
        raise NotJSONError("is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _object_slowly(text: bytes) -> dict[str, bytes]:
    source = _decoded(text)
    members: dict[str, bytes] = {}
    position = _skip(source, _open(source, "{", wanted="must be a JSON object"))
    if source.startswith("}", position):
        return _ended(source, position + 1, result=members)
    while True:
        name, position = _string(source, position)
        position = _skip(source, _expect(source, _skip(source, position), ":"))
        end = _value_end(source, position)
        members[name] = source[position:end].encode()
        position = _skip(source, end)
        if source.startswith("}", position):
            return _ended(source, position + 1, result=members)
        position = _skip(source, _expect(source, position, ","))


def _array_slowly(text: bytes) -> list[bytes]:
    source = _decoded(text)
    elements: list[bytes] = []
    position = _skip(source, _open(source, "[", wanted="must be a list"))
    if source.startswith("]", position):
        return _ended(source, position + 1, result=elements)
    while True:
        end = _value_end(source, position)
        elements.append(source[position:end].encode())
        position = _skip(source, end)
        if source.startswith("]", position):
            return _ended(source, position + 1, result=elements)
        position = _skip(source, _expect(source, position, ","))


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise NotJSONError("is not UTF-8 text") from None


def _skip(source: str, position: int) -> int:
    spaces = _SPACES.match(source, position)
    return position if spaces is None else spaces.end()


def _open(source: str, bracket: str, *, wanted: str) -> int:
    position = _skip(source, 0)
    if not source.startswith(bracket, position):
        try:
            _READER.decode(source)
        except (ValueError, RecursionError):
            raise NotJSONError("is not valid JSON") from None
        raise NotJSONError(wanted)
    return position + 1


def _expect(source: str, position: int, mark: str) -> int:
    if not source.startswith(mark, position):
        raise NotJSONError("is not valid JSON")
    return position + 1


def _string(source: str, position: int) -> tuple[str, int]:
    try:
        _expect(source, position, '"')
        name, end = _READER.raw_decode(source, position)
        return str(name), end
    except ValueError:
        raise NotJSONError("is not valid JSON") from None


def _value_end(source: str, position: int) -> int:
    try:
        return _READER.raw_decode(source, position)[1]
    except (ValueError, IndexError):
        raise NotJSONError("is not valid JSON") from None
    except RecursionError:
        raise NotJSONError("is nested too deeply") from None


def _ended(source: str, position: int, *, result: Parts) -> Parts:
    if _skip(source, position) != len(source):
        raise NotJSONError("is not valid JSON")
    return result

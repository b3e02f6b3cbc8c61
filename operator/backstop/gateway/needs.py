"""What a request asks of a model beyond text. PURE.

Reads what says so and nothing else; what it cannot read needs nothing, for the model itself says what is wrong with it.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ..api.fallbackpolicy import Capability

_NOTHING: Final = (b"null", b"[]", b"{}", b"false")
_PARTS: Final = {
    "image_url": Capability.VISION,
    "video_url": Capability.VISION,
    "input_audio": Capability.AUDIO,
    "audio_url": Capability.AUDIO,
    "file": Capability.FILES,
}


class _Part(msgspec.Struct):
    type: str = ""


class _Message(msgspec.Struct):
    content: list[_Part] | str | None = None


class _Format(msgspec.Struct):
    type: str = ""


_MESSAGE: Final = msgspec.json.Decoder(_Message)
_FORMAT: Final = msgspec.json.Decoder(_Format)
_NAMES: Final = msgspec.json.Decoder(list[str])
_NO_MESSAGE: Final = _Message()


def needs_of(members: Mapping[str, bytes], *, history: list[bytes]) -> frozenset[Capability]:
    """What the body with these members needs; `history`: the caller's messages. All as they are spelled."""
    needs = set()
    if any(members.get(name, b"null") not in _NOTHING for name in ("tools", "functions")):
        needs.add(Capability.TOOLS)
    if members.get("logprobs", b"null") not in _NOTHING:
        needs.add(Capability.LOGPROBS)
    if _read(_FORMAT, members.get("response_format", b"null"), otherwise=_Format()).type == "json_schema":
        needs.add(Capability.JSON_SCHEMA)
    if "audio" in _read(_NAMES, members.get("modalities", b"null"), otherwise=[]):
        needs.add(Capability.AUDIO)
    for message in history:
        content = _read(_MESSAGE, message, otherwise=_NO_MESSAGE).content
        if isinstance(content, list):
            needs.update(_PARTS[part.type] for part in content if part.type in _PARTS)
    return frozenset(needs)


def _read(decoder: msgspec.json.Decoder[Any], text: bytes, *, otherwise: Any) -> Any:
    try:
        return decoder.decode(text)
    except msgspec.ValidationError:
        return otherwise
    except (msgspec.DecodeError, UnicodeDecodeError):  # JSON that msgspec refuses: lone surrogates
        try:
            return msgspec.convert(json.loads(text), decoder.type)
        except (ValueError, RecursionError):
            return otherwise
    except RecursionError:
        return otherwise

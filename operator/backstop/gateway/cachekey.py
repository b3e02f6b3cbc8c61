"""Which requests are the same, and which answers their callers take: keys of the cache, and `Cache-Control`. PURE.

A key is a hash of what decides on an answer and of nothing else. Two bodies that a model could read differently never share one:
where that is not certain, there is no key.
"""

import hashlib
import json
import math
import unicodedata
from dataclasses import dataclass
from typing import Any, Final

from ..api.cachetier import CacheMatch
from .body import ChatRequest
from .jsontext import join_object, quoted
from .revision import ModelTier

# Longer ones cost milliseconds to read, and are hardly sent twice.
LONGEST_BODY: Final = 256 << 10
# Who asks, and how the answer is to be handed over: no model answers differently for them.
_NO_MATTER: Final = ("user", "safety_identifier", "prompt_cache_key", "metadata", "stream", "stream_options")
_ENDS: Final = ".!?… "
# Several answers, answers with what cannot be played back as a stream, or answers that are to be kept elsewhere too.
_ONLY: Final = {
    "n": (b"1", b"null"),
    "logprobs": (b"false", b"null"),
    "store": (b"false", b"null"),
    "audio": (b"null",),
    "modalities": (b'["text"]', b"null"),
}


@dataclass(frozen=True)
class CacheControl:
    """What a caller's `Cache-Control` says. `max_age` in seconds: older answers are not wanted; 0: no kept one is."""

    may_keep: bool = True
    max_age: float = math.inf


def read_cache_control(text: str) -> CacheControl:
    """The request directives of RFC 9111 that are honoured: `no-store`, `no-cache`, `max-age`. What cannot be read as a number is 0."""
    may_keep, max_age = True, math.inf
    for directive in text.lower().split(","):
        name, _, value = (part.strip() for part in directive.partition("="))
        match name:
            case "no-store":
                may_keep, max_age = False, 0.0
            case "no-cache":
                max_age = 0.0
            case "max-age":
                digits = value.strip('"')
                max_age = min(max_age, float(digits) if digits.isascii() and digits.isdigit() else 0.0)
    return CacheControl(may_keep, max_age)


def key_of(
    request: ChatRequest, *, target: ModelTier, prompt_digest: str, partition: bytes = b"", match: CacheMatch = CacheMatch.EXACT
) -> bytes | None:
    """The key of a request that goes to `target`; None where its answer is nobody else's.

    Made of the rendered body (order and spelling of members do not matter), the declared variables, the target, the prompt, and the
    `partition` of those who share answers.
    """
    if any(name in request.members and request.members[name] not in only for name, only in _ONLY.items()):
        return None
    members = {name: value for name, value in request.members.items() if name not in _NO_MATTER}
    if sum(map(len, members.values())) > LONGEST_BODY:
        return None
    members["model"] = quoted(target.model)
    try:
        body = _canonical(join_object(members), match=match)
    except (ValueError, RecursionError):
        return None
    hashed = hashlib.blake2b(digest_size=32)
    for part in (
        match.encode(),
        partition,
        prompt_digest.encode(),
        target.url.encode(),
        _canonical(join_object(_as_strings(request)), match=CacheMatch.EXACT),
        body,
    ):
        hashed.update(b"%d:" % len(part) + part)
    return hashed.digest()


def _as_strings(request: ChatRequest) -> dict[str, bytes]:
    return {name: b'"' + value + b'"' for name, value in request.values.items()}


def _canonical(text: bytes, *, match: CacheMatch) -> bytes:
    """One spelling for one value. Raises ValueError for what is not JSON, or could be read in two ways."""
    value = _READER.decode(text.decode())
    if match is CacheMatch.NORMALIZED:
        _normalize(value.get("messages"))
    return _WRITER.encode(value).encode()


def _normalize(messages: Any) -> None:
    """Put what users wrote into the form that stands for it, in place."""
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, dict) or message.get("role") != "user":
            continue
        content = message.get("content")
        if isinstance(content, str):
            message["content"] = normalized(content)
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                part["text"] = normalized(part["text"])


def normalized(text: str) -> str:
    """One case, one space between words, no end of a sentence at the end. Signs inside stay: `-5` is not `5`, nor `x²` `x2`."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return " ".join(folded.split()).rstrip(_ENDS)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of a member that is there twice some readers take the first, some the last: such a body must not stand for another."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is there twice")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


# Made once: `json.loads` and `json.dumps` with settings make one for each call.
_READER: Final = json.JSONDecoder(object_pairs_hook=_each_once, parse_float=_finite, parse_constant=_finite)
_WRITER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"))

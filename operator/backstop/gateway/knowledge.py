"""What a static tier answers: out of its knowledge base, by the caller's last message and language, or its default. PURE."""

from typing import Final

import msgspec

from ..api.fallbackpolicy import KnowledgeMatch
from ..api.knowledge import KnowledgeBase
from ..api.words import words_of
from .jsontext import NotJSONError, parse_scalar, split_array, split_object
from .locales import closest, wanted_locales
from .matcher import Matcher

# Of a message this much is looked at, at either end of it: questions stand before or after what they are about.
LOOKED_AT: Final = 4096


class _Part(msgspec.Struct):
    type: str = ""
    text: str = ""


class _Message(msgspec.Struct):
    role: str = ""
    content: str | list[_Part] | None = None


_MESSAGE: Final = msgspec.json.Decoder(_Message)


class StaticAnswers:
    """Looks answers up. `default`: where the knowledge base has none."""

    def __init__(self, base: KnowledgeBase, *, match: KnowledgeMatch, default: str) -> None:
        self._entries = base.entries
        self._defaults = base.defaults
        self._locale = base.locale
        self._default = default
        matcher = Matcher(base.entries)
        self._find = matcher.find_exactly if match is KnowledgeMatch.EXACT else matcher.find

    def answer(self, question: str, *, languages: str) -> str:
        """The answer to `question`, as `question_in` gives it, for a caller with this `Accept-Language` header."""
        wanted = wanted_locales(languages)
        number = self._find(words_of(question, most=2 * LOOKED_AT + 1))
        if number is None:
            return closest(self._defaults, wanted=wanted) or self._defaults.get(self._locale) or self._default
        answers = self._entries[number].answers
        return closest(answers, wanted=wanted) or answers.get("") or answers[self._locale]


def question_in(history: list[bytes]) -> str:
    """The text of the caller's last message of the role `user`; empty: there is none. A very long one is cut in its middle.

    `history`: messages as they were spelled, each a JSON object.
    """
    for spelled in reversed(history):
        role, text = text_of(spelled)
        if role == "user":
            return text if len(text) <= 2 * LOOKED_AT else f"{text[:LOOKED_AT]}\n{text[-LOOKED_AT:]}"
    return ""


def text_of(spelled: bytes) -> tuple[str, str]:
    """Role and text of a message as it was spelled, a JSON object; empty where there is none that can be read."""
    try:
        message = _MESSAGE.decode(spelled)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _read_slowly(spelled)
    if isinstance(message.content, list):
        return message.role, "\n".join(part.text for part in message.content if part.type == "text")
    return message.role, message.content or ""


def _read_slowly(spelled: bytes) -> tuple[str, str]:
    """For JSON that msgspec refuses (lone surrogates), and for contents of another shape, of which what is text counts."""
    try:
        members = split_object(spelled)
        role = parse_scalar(members.get("role", b"null"))
        content = members.get("content", b"null")
        if content.startswith(b"["):
            texts = [_text(part) for part in split_array(content)]
            return str(role), "\n".join(text for text in texts if text)
        text = parse_scalar(content) if content.startswith(b'"') else ""
    except NotJSONError:
        return "", ""
    return str(role), str(text)


def _text(part: bytes) -> str:
    if not part.startswith(b"{"):
        return ""
    members = split_object(part)
    text = parse_scalar(members.get("text", b"null")) if members.get("type") == b'"text"' else None
    return text if isinstance(text, str) else ""

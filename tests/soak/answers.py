"""What a caller has been answered: the text, whole or streamed, in the words of each endpoint; and whose it may be. PURE.

Raises ValueError or LookupError for what is no answer at all.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from backstop.api.metricnames import Outcome

CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"
RESPONSES: Final = "/v1/responses"
# What tiers without a model answer.
STATIC: Final = "Not now, please."
HOURS: Final = "From nine to five."
ACKNOWLEDGEMENT: Final = "A person answers {{ticket}}."
ASKS_HOURS: Final = "what are your opening hours?"
_FIXED: Final = {"static": re.escape(STATIC), "rules": re.escape(HOURS), "people": "A person answers [0-9a-f]{12}\\."}
_CONTINUED: Final = ": x-backstop-continued-by "
_FIRST_FAILED: Final = "x-backstop-first-tier failed"


@dataclass(frozen=True)
class Heard:
    """An answer. `continued_by`: the tier that finished a stream which another one began; `first_failed`: that was the chain's first."""

    outcome: Outcome
    text: str = ""
    continued_by: str = ""
    first_failed: bool = False


def whole(path: str, *, body: Any) -> Heard:
    """A whole answer."""
    return Heard(Outcome.SUCCESS, _text_of(path, body=body))


def streamed(path: str, *, lines: Sequence[str]) -> Heard:
    """A stream, which has ended as it should or with an error."""
    events = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    if not _is_whole(path, last=events[-1]):
        return Heard(Outcome.TRUNCATED)
    said = next((line.removeprefix(_CONTINUED) for line in lines if line.startswith(_CONTINUED)), "")
    pieces = [_piece(path, event=json.loads(event)) for event in events if event != "[DONE]"]
    text = "".join(pieces)
    return Heard(Outcome.SUCCESS, _argument(text) or text, said.partition(",")[0], _FIRST_FAILED in said)


def fits(heard: Heard, *, tier: str, question: str) -> bool:
    """Whether it is what this tier says to this question: a model says it back."""
    return re.fullmatch(_FIXED.get(tier, re.escape(question)), heard.text) is not None


def _is_whole(path: str, *, last: str) -> bool:
    if path == RESPONSES:
        kind = json.loads(last)["type"]
        if kind not in ("response.completed", "response.failed"):
            raise ValueError(f"the stream ends with `{kind}`")
        return bool(kind == "response.completed")
    if last != "[DONE]" and "error" not in json.loads(last):
        raise ValueError(f"the stream ends without `[DONE]` and without an error: {last[:80]!r}")
    return last == "[DONE]"


def _text_of(path: str, *, body: Any) -> str:
    if path == RESPONSES:
        return "".join(part["text"] for item in body["output"] for part in item["content"])
    choice = body["choices"][0]
    if path == COMPLETIONS:
        return str(choice["text"])
    calls = choice["message"].get("tool_calls")
    return _argument(calls[0]["function"]["arguments"]) if calls else str(choice["message"]["content"])


def _piece(path: str, *, event: Any) -> str:
    if path == RESPONSES:
        return str(event["delta"]) if event["type"] == "response.output_text.delta" else ""
    if path == COMPLETIONS:
        return "".join(choice["text"] for choice in event["choices"])
    deltas = [choice["delta"] for choice in event["choices"]]
    calls = [call["function"]["arguments"] for delta in deltas for call in delta.get("tool_calls") or ()]
    return "".join([*(delta.get("content") or "" for delta in deltas), *calls])


def _argument(arguments: str) -> str:
    """What a tool is called with; empty where this is no call of one."""
    return str(json.loads(arguments)["text"]) if arguments.startswith('{"text"') else ""

"""What the fake model does, by rules: the first one whose `match` occurs in the system prompt decides.

One JSON object per rule, as `POST /-/script` takes it; times are in milliseconds, shares in percent.
"""

from collections.abc import Sequence
from enum import StrEnum
from random import Random
from typing import Literal

import msgspec


class Fault(StrEnum):
    """Ways to misbehave, other than being slow or answering with an error."""

    NONE = "none"
    HANG = "hang"  # takes the request, never sends headers
    RESET = "reset"  # closes the connection in place of an answer
    MALFORMED = "malformed"  # 200, and a body that is not JSON
    ERROR_BODY = "error-body"  # 200, and an error in the body
    EMPTY = "empty"  # 200, and an answer without content
    ROLE_ONLY = "role-only"  # a stream's role chunk, then silence
    CUT = "cut"  # a stream that breaks after `cutAfterTokens`
    STALL = "stall"  # a stream that falls silent after `cutAfterTokens`, but for comments
    NO_DONE = "no-done"  # a complete stream without `[DONE]`
    UNFINISHED = "unfinished"  # a stream that ends properly as HTTP, after `cutAfterTokens`, without `finish_reason`
    GARBAGE = "garbage"  # a stream with a line that is not JSON after `cutAfterTokens`


class Rule(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """One rule. `errorPercent` of the requests get `errorStatus` at once; the others are answered after latency ± jitter."""

    match: str = ""
    text: str = "All is well."
    echo: bool = False  # say back what the last message asks, in place of `text`
    calls_tools: bool = False  # where tools are offered, say it by a call of the first one: `{"text": …}`
    latency_milliseconds: float = 0
    jitter_milliseconds: float = 0
    token_interval_milliseconds: float = 0
    error_percent: float = 0
    error_status: int = 500
    error_body: str | None = None
    error_retry_after: str | None = None  # the error's `Retry-After`
    fault: Fault = Fault.NONE
    cut_after_tokens: int = 0
    tokens: int | None = None  # so many pieces; unset: one for each word of `text`
    line_end: Literal["\n", "\r\n"] = "\n"
    slice_bytes: int | None = None  # send streams in slices of so many bytes, wherever they fall
    times: int | None = None  # after so many requests the rule is over, and the next one that matches decides; unset: never

    def latency(self, random: Random) -> float:
        """Seconds until this answer begins."""
        return max(0.0, self.latency_milliseconds + random.uniform(-1, 1) * self.jitter_milliseconds) / 1000

    def fails(self, random: Random) -> bool:
        """Whether this request gets the error."""
        return self.error_percent > 0 and random.random() * 100 < self.error_percent

    def pieces(self) -> list[str]:
        """The text in tokens."""
        if self.tokens is not None:
            return [f"t{number} " for number in range(self.tokens)]
        words = self.text.split(" ")
        return [word + " " for word in words[:-1]] + words[-1:]


DEFAULT_RULE = Rule()


def parse_rules(text: bytes) -> tuple[Rule, ...]:
    """Rules from JSON; msgspec.DecodeError names what is wrong."""
    return msgspec.json.decode(text, type=tuple[Rule, ...])


def choose(rules: Sequence[Rule], *, prompt: str, used: Sequence[int]) -> int | None:
    """Index of the first rule that matches and is not over; None when none does. `used`: how often each rule has decided."""
    for position, rule in enumerate(rules):
        if rule.match in prompt and (rule.times is None or used[position] < rule.times):
            return position
    return None

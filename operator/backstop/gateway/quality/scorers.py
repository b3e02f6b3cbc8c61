"""The scorers that need nothing but the answer and its request: each takes what was written and gives a verdict. PURE.

All of them are heuristics, made to be compared between two revisions; docs/concepts/quality.md says what each sees and misses.
"""

import math
import re
from typing import Final

import msgspec

from ...api.answerschema import Accepts
from .grounds import Grounds, figures_in, without_links, words_in
from .verdict import FAILED, PASSED, SKIPPED, Verdict, scored
from .written import Written

# With fewer words, chance decides.
FEWEST_WORDS: Final = 5
FEWEST_GROUNDS: Final = 10
FEWEST_REPEATABLE: Final = 40  # words
_RUN: Final = 4  # words that are the same in the same order
_FIRST: Final = 200  # characters in which who refuses says so
_WORD: Final = re.compile(r"[\w']+")
_REFUSALS: Final = (
    *("i'm sorry", "i am sorry", "i'm afraid", "i'm unable", "i am unable", "i'm not able", "i am not able", "as an ai"),
    *("i can't", "i cannot", "i can not", "i won't", "i will not", "i don't have", "i do not have", "i don't know", "i do not know"),
    *("ich kann nicht", "ich kann leider", "ich kann ihnen nicht", "ich kann dir nicht", "es tut mir leid", "das weiss ich nicht"),
    *("je suis désolé", "je ne peux pas", "je ne sais pas", "lo siento", "no puedo", "no lo sé"),
)


def lexical(written: Written, *, grounds: Grounds | None, fail_below: float) -> Verdict:
    """The share of the answer's words that stand in its request. Who says that they do not know makes nothing up."""
    if grounds is None or len(grounds.words) < FEWEST_GROUNDS or is_refusal(written):
        return SKIPPED
    words = words_in(written.answer)
    if len(words) < FEWEST_WORDS:
        return SKIPPED
    return scored(sum(word in grounds.words for word in words) / len(words), fail_below=fail_below)


def numbers_and_links(written: Written, *, grounds: Grounds | None, fail_below: float) -> Verdict:
    """The share of the answer's figures and links that stand in its request. An answer without one makes none up."""
    if grounds is None:
        return SKIPPED
    text, links = without_links(written.answer)
    supported = [any(known == link or known.startswith(f"{link}/") for known in grounds.links) for link in links]
    supported += [not readings.isdisjoint(grounds.figures) for readings in figures_in(text)]
    return scored(sum(supported) / len(supported) if supported else 1.0, fail_below=fail_below)


def confidence(written: Written, *, fail_below: float) -> Verdict:
    """The geometric mean of the probabilities that the model gave its own tokens."""
    if not written.certainties:
        return SKIPPED
    mean = sum(written.certainties) / len(written.certainties)
    return scored(math.exp(min(0.0, mean)), fail_below=fail_below)


def refusal(written: Written) -> Verdict:
    """Whether the model answers at all."""
    return FAILED if is_refusal(written) else PASSED


def is_refusal(written: Written) -> bool:
    """Whether it says so, in the field that is for it or in its first words."""
    if written.refused or written.finish == "content_filter":
        return True
    said = " ".join(_WORD.findall(written.answer[:_FIRST].casefold().replace("\u2019", "'")))
    return any(f" {refusal} " in f" {said} " for refusal in _REFUSALS)


def repetition(written: Written, *, fail_below: float) -> Verdict:
    """The share of runs of four words that are there for the first time."""
    words = _WORD.findall(written.answer.casefold())
    if len(words) < FEWEST_REPEATABLE:
        return SKIPPED
    runs = [tuple(words[start : start + _RUN]) for start in range(len(words) - _RUN + 1)]
    return scored(len(set(runs)) / len(runs), fail_below=fail_below)


def truncation(written: Written) -> Verdict:
    """Whether the answer ended for its length, and not because it was over."""
    match written.finish:
        case "length":
            return FAILED
        case "stop" | "tool_calls" | "function_call":
            return PASSED
        case _:
            return SKIPPED


def is_json(written: Written) -> Verdict:
    """Whether an answer that was asked for as JSON is an object of it. What was cut for its length says nothing."""
    return follows_schema(written, accepts=lambda parsed: isinstance(parsed, dict), asked_only=True)


def follows_schema(written: Written, *, accepts: Accepts, asked_only: bool) -> Verdict:
    """Whether an answer is JSON, and nothing else, that a schema accepts. What was cut for its length says nothing.

    `asked_only`: only where the request asked for JSON. Text around it, such as a fence, is none: a caller's parser refuses it too.
    """
    if (asked_only and not written.wants_json) or written.is_cut or written.finish != "stop":
        return SKIPPED
    try:
        parsed = msgspec.json.decode(written.answer)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return FAILED
    return PASSED if accepts(parsed) else FAILED

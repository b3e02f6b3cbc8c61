"""`python -m bench.quality`: the time of the longest step, and of all of them, that judging an answer takes. A Markdown table.

Each step as the quickest of many rounds, so that what else the machine does is left out. Texts are of random words and figures, seeded.
"""

import json
import time
from random import Random
from typing import Any

from backstop.api.quality import PersonalKind, Quality
from backstop.gateway.quality.grounds import grounds_of
from backstop.gateway.quality.settings import BuiltIn, compile_quality
from backstop.gateway.quality.written import LONGEST_ANSWER, LONGEST_CONTEXT, Result, Sampled, Steps, read

ROUNDS = 30
SCORERS: dict[str, dict[str, Any]] = {
    "words": {"type": "Lexical"},
    "figures": {"type": "NumbersAndLinks"},
    "refusals": {"type": "Refusal"},
    "again": {"type": "Repetition"},
    "whole": {"type": "Truncation"},
    "rules": {"type": "Patterns", "patterns": {"personal": list(PersonalKind), "terms": [f"rival{n}" for n in range(50)]}},
}


def main() -> None:
    """Measure, and print."""
    print("| answer | request | all, µs | the longest step, µs |\n|---|---|---|---|")
    for answer, context in ((800, 2_000), (2_000, 16_000), (LONGEST_ANSWER, LONGEST_CONTEXT - 1)):
        for kind, make in (("whole", _whole), ("stream", _stream)):
            whole, longest = _measured(make(answer, context=context))
            print(f"| {answer:,} characters, {kind} | {context:,} | {whole * 1e6:,.0f} | {longest * 1e6:,.0f} |")


def _measured(sampled: Sampled) -> tuple[float, float]:
    quality = Quality.model_validate({"scorers": [{"name": name, **fields} for name, fields in SCORERS.items()]})
    scorers = compile_quality(quality, authorizations={}, authorities={}, about={}).scorers
    quickest: list[float] = []
    for _ in range(ROUNDS):
        times: list[float] = []
        written = _timed(read(sampled), times=times)
        assert written is not None
        assert written.context is not None
        grounds = _timed(grounds_of(written.context), times=times)
        for scorer in scorers:
            assert isinstance(scorer, BuiltIn)
            began = time.perf_counter()
            scorer.judge(written, grounds)
            times.append(time.perf_counter() - began)
        quickest = [min(pair) for pair in zip(quickest or times, times, strict=True)]  # of each step
    return sum(quickest), max(quickest)


def _timed(steps: Steps[Result], *, times: list[float]) -> Result:
    while True:
        began = time.perf_counter()
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
        finally:
            times.append(time.perf_counter() - began)


def _text(length: int, *, seed: str) -> str:
    random, words, written = Random(seed), [], 0
    while written < length:
        letters = "".join(random.choices("etaoinshrdlu", k=random.randint(2, 10)))
        word = letters if random.random() > 0.05 else f"{random.randint(1, 99_999):,}"
        words.append(word)
        written += len(word) + 1
    return " ".join(words)[:length]


def _messages(length: int) -> bytes:
    return json.dumps([{"role": "system", "content": _text(length - 5, seed="context")}, {"role": "user", "content": "When?"}]).encode()


def _whole(length: int, *, context: int) -> Sampled:
    choice = {"index": 0, "message": {"role": "assistant", "content": _text(length, seed="answer")}, "finish_reason": "stop"}
    return Sampled(messages=_messages(context), body=json.dumps({"choices": [choice]}).encode())


def _stream(length: int, *, context: int) -> Sampled:
    text, head = _text(length, seed="answer"), {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    pieces = [text[start : start + 4] for start in range(0, length, 4)]
    chunks = [{**head, "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]} for piece in pieces]
    return Sampled(messages=_messages(context), events=tuple(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks))


if __name__ == "__main__":
    main()

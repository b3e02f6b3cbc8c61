"""What must survive between two evaluations, and its compact form for `.status.analysis`.

The counters themselves are not kept: they are read again from the source at each target's watermark. The packed form is a
version, a dot, and base85 of compressed JSON; times are whole milliseconds, counted back from the newest watermark.
Version 1 knew thresholds alone, and is read as well: what is no threshold any more begins its tests anew, and counting goes on.
"""

import base64
import binascii
import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any, assert_never

from .reading import Counts
from .rule import ArmBlock
from .rules import RuleState
from .sequential import mean
from .sequential.coarse import coarser as fewer_digits
from .sequential.mean import MeanState
from .sequential.state import SequentialState, from_numbers, memory_to_numbers, to_numbers, with_memory
from .silence import Silence
from .threshold import WINDOW_BLOCKS, Episode, ThresholdState, coarser

VERSION = "2"
BEFORE = "1"
PACKED_BYTES = 8192
# How many blocks of each threshold's window are kept, and digits of each test's evidence, as many as fit: after a restart, windows of many
# objectives are coarser at their far ends.
KEPT = ((WINDOW_BLOCKS, 7), (16, 6), (12, 5), (8, 4), (4, 3), (2, 3), (2, 2))
DIGITS = 7
# How often stable's history is asked for, if it cannot be read, and how long after the first failure; then twice as long each time.
HISTORY_TRIES, RETRY_SECONDS = 5, 15.0
# Newest first; more targets than this at once cannot be watched (evaluation says so).
MAX_TARGETS = 256
# What stands for the figures of a step that older versions did not write: judged requests of all steps, the silence, those of stable,
# whether stable's history is read, which source they are from, of which objectives the history is still wanted, and what each measures.
_ADDED_SINCE = (None, None, 0, 1, "", (), ())


@dataclass(frozen=True)
class DisplayQuantile:
    """A latency quantile for people: milliseconds, and whether it is a value, a lower (`>`) or an upper (`≤`) bound."""

    milliseconds: int
    sign: str  # "≈", ">" or "≤"


@dataclass(frozen=True)
class ObjectiveState:
    """One objective's part. The rule's state goes on over a change of weight; `step_requests` starts again.

    `planned_blocks`: of the rollout, as it was planned when the rule's state began. `history`: None once it is read, or never is.
    `measure`: of which requests it is (`Objective.measure`); empty where an older version that did not write it has begun the state.
    """

    rule: RuleState
    step_requests: int = 0
    canary_quantile: DisplayQuantile | None = None
    stable_quantile: DisplayQuantile | None = None
    planned_blocks: int = 1
    history: "WantedHistory | None" = None
    measure: str = ""


@dataclass(frozen=True)
class WantedHistory:
    """What stable did before an objective's tests began, which is `before`, is still to be read.

    `failed`: how often it could not be. `again`: when to ask again; None: with the next question. Times in seconds since the epoch.
    """

    before: float
    failed: int = 0
    again: float | None = None

    @property
    def is_given_up(self) -> bool:
        """Whether it is not asked for any more."""
        return self.failed >= HISTORY_TRIES

    def later(self, *, now: float) -> "WantedHistory":
        """It could not be read: the next question does without it, and then there is time for those that count the canary."""
        return replace(self, failed=self.failed + 1, again=now + RETRY_SECONDS * 2**self.failed)


@dataclass(frozen=True)
class AnalysisState:
    """The place of one policy's analysis. Empty: nothing seen yet.

    `watermarks`: target (as `target_key` names it) → time of its newest sample in a closed block.
    `since`: start of the step that the step counts are of.
    `objectives`: by fingerprint, so that an edited objective starts anew.
    `requests`: judged canary requests of all steps; None where an older version that did not count them has begun the state.
    `silence`: what was sent to the canary in this step and is not answered, if nothing was since. `step_beside`: judged requests of stable.
    `source`: name of the metric source that it was counted from; empty where an older version that did not write it has begun the state.
    """

    canary: str = ""
    stable: str = ""
    since: float | None = None
    block_end: float | None = None
    watermarks: Mapping[str, float] = field(default_factory=dict)
    step_requests: int = 0
    step_sent: int = 0
    objectives: Mapping[str, ObjectiveState] = field(default_factory=dict)
    requests: int | None = 0
    silence: Silence | None = None
    step_beside: int = 0
    source: str = ""


@dataclass(frozen=True)
class UnreadableState:
    """The packed text is not of this version, or damaged: the analysis starts anew."""

    sentence: str


def with_source(state: AnalysisState, *, source: str) -> AnalysisState:
    """The state to go on from with the counters of this source; anew where those of another were counted.

    What one source has seen up to a watermark is not what another has: blocks would be counted twice, or not at all, and evidence would
    be of both. Only the requests of earlier steps stay counted: those of this one are read again.
    """
    if state.source in ("", source):
        return replace(state, source=source)
    earlier = None if state.requests is None else state.requests - state.step_requests
    return AnalysisState(canary=state.canary, stable=state.stable, source=source, requests=earlier)


def target_key(target: str) -> str:
    """A scrape target's name in the state: 8 characters, as names of pods are long."""
    return base64.urlsafe_b64encode(hashlib.sha256(target.encode("utf-8", "replace")).digest()[:6]).decode()


def pack(state: AnalysisState) -> str:
    """State → at most 8 KiB of text for up to 256 targets and a dozen objectives, with windows and evidence as fine as fit.

    Of more evidence than that, as of a dozen latencies on as many targets, some is left out, and begins anew after a restart.
    """
    for blocks, digits in KEPT:
        text = _packed(state, blocks=blocks, digits=digits)
        if len(text) <= PACKED_BYTES:
            return text
    return _packed_in_part(state)


def _packed_in_part(state: AnalysisState) -> str:
    """The state without as few objectives as may be."""
    kept = dict(state.objectives)
    blocks, digits = KEPT[-1]
    while True:
        kept.popitem()
        text = _packed(replace(state, objectives=kept), blocks=blocks, digits=digits)
        if len(text) <= PACKED_BYTES or not kept:
            return text


def _packed(state: AnalysisState, *, blocks: int, digits: int) -> str:
    newest = max(state.watermarks.values(), default=state.block_end or 0.0)
    origin = _to_ms(newest)

    def time(at: float | None) -> int | None:
        return None if at is None else origin - _to_ms(at)

    pending = [
        [key, time(one.history.before), one.history.failed, time(one.history.again)]
        for key, one in sorted(state.objectives.items())
        if one.history is not None
    ]
    document = [
        state.canary,
        state.stable,
        origin,
        time(state.since),
        time(state.block_end),
        [
            state.step_requests,
            state.step_sent,
            state.requests,
            None if state.silence is None else [time(state.silence.since), state.silence.sent],
            state.step_beside,
            int(not pending),  # all that older versions know of it
            state.source,
            pending,
            [value.measure for _, value in sorted(state.objectives.items())],
        ],
        [[target, time(at)] for target, at in sorted(state.watermarks.items())],
        [[key, _pack_objective(value, origin=origin, blocks=blocks, digits=digits)] for key, value in sorted(state.objectives.items())],
    ]
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    return f"{VERSION}.{base64.b85encode(zlib.compress(text.encode(), 9)).decode()}"


def unpack(text: str) -> AnalysisState | UnreadableState:
    """The inverse of `pack`; anything else is `UnreadableState`, never an exception."""
    version, _, body = text.partition(".")
    if version not in (BEFORE, VERSION):
        return UnreadableState(f"`status.analysis` is of version {version[:20]!r}, not {VERSION!r}; the analysis starts anew.")
    try:
        document = json.loads(_inflate(base64.b85decode(body)))
        return _unpack_document(document, version=version)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError, binascii.Error, zlib.error):
        return UnreadableState("`status.analysis` is damaged; the analysis starts anew.")


def is_of_version_before(text: str) -> bool:
    """Whether an older version has packed it, of which only thresholds go on."""
    return text.startswith(f"{BEFORE}.")


def _inflate(packed: bytes) -> bytes:
    inflater = zlib.decompressobj()
    text = inflater.decompress(packed, 64 * PACKED_BYTES)
    if not inflater.eof:
        raise ValueError("longer than any state that was packed here")
    return text


def _to_ms(at: float) -> int:
    return round(at * 1000)


def _pack_counts(counts: Counts | None) -> list[int]:
    return [] if counts is None else [counts.bad, counts.total]


def _pack_objective(state: ObjectiveState, *, origin: int, blocks: int, digits: int) -> list[Any]:
    return [
        state.step_requests,
        [[q.milliseconds, q.sign] if q else [] for q in (state.canary_quantile, state.stable_quantile)],
        state.planned_blocks,
        *_pack_rule(state.rule, origin=origin, blocks=blocks, digits=digits),
    ]


def _pack_rule(state: RuleState, *, origin: int, blocks: int, digits: int) -> list[Any]:
    """What kind of state it is, and its figures."""
    match state:
        case ThresholdState():
            return ["threshold", *_pack_threshold(state, origin=origin, blocks=blocks)]
        case SequentialState():
            kept = state if digits >= DIGITS else fewer_digits(state, digits=digits)
            numbers = to_numbers(kept, origin=origin / 1000)
            return ["sequential", [_figure(number) for number in numbers], [_figure(number) for number in memory_to_numbers(kept)]]
        case MeanState():
            return ["mean", [_figure(number) for number in mean.to_numbers(state, origin=origin / 1000)]]
    assert_never(state)


def _figure(number: float) -> float | None:
    """A figure of seven digits, a whole one in full; minus infinity, which JSON does not have, as null."""
    if number == -math.inf:
        return None
    if number == round(number) and abs(number) < 2**53:
        return round(number)
    return round(number, 3) if abs(number) >= 10 ** (DIGITS - 3) else float(f"{number:.{DIGITS}g}")  # times to the millisecond


def _figures(packed: list[Any]) -> list[float]:
    return [-math.inf if number is None else float(number) for number in packed]


def _pack_threshold(state: ThresholdState, *, origin: int, blocks: int) -> list[Any]:
    episode = state.episode
    return [
        [
            [origin - _to_ms(b.start), origin - _to_ms(b.end), _pack_counts(b.canary), _pack_counts(b.stable), int(b.after_gap)]
            for b in coarser(state.window, blocks=blocks)
        ],
        []
        if episode is None
        else [
            origin - _to_ms(episode.first_bad),
            origin - _to_ms(episode.newest_bad),
            _pack_counts(episode.canary),
            _pack_counts(episode.stable),
        ],
    ]


def _unpack_document(document: Any, *, version: str) -> AnalysisState:
    canary, stable, origin, since, block_end, step, watermarks, objectives = document
    # An older version has written the first two of them, or more.
    step_requests, step_sent, requests, silence, step_beside, _, source, pending, measures = (*step, *_ADDED_SINCE[len(step) - 2 :])[:9]

    def time(back: int | None) -> float | None:
        return None if back is None else (origin - back) / 1000

    wanted = {str(key): _unpack_history(before, failed, again, origin=origin) for key, before, failed, again in pending}
    if not (isinstance(canary, str) and isinstance(stable, str) and isinstance(source, str)):
        raise TypeError("revisions and sources are text")
    return AnalysisState(
        canary=canary,
        stable=stable,
        since=time(since),
        block_end=time(block_end),
        watermarks={str(target): (origin - int(back)) / 1000 for target, back in watermarks},
        step_requests=int(step_requests),
        step_sent=int(step_sent),
        objectives={
            str(key): replace(
                _unpack_objective(value, origin=origin, version=version), history=wanted.get(str(key)), measure=str(measure or "")
            )
            for (key, value), measure in zip_longest(objectives, measures[: len(objectives)])
        },
        requests=None if requests is None else int(requests),
        silence=None if silence is None else Silence(since=(origin - int(silence[0])) / 1000, sent=int(silence[1])),
        step_beside=int(step_beside),
        source=source,
    )


def _unpack_history(before: int, failed: int, again: int | None, *, origin: int) -> WantedHistory:
    return WantedHistory(before=(origin - before) / 1000, failed=int(failed), again=None if again is None else (origin - again) / 1000)


def _unpack_objective(document: Any, *, origin: int, version: str) -> ObjectiveState:
    step_requests, quantiles, *rest = document
    planned_blocks, kind, *figures = (1, "threshold", *rest) if version == BEFORE else rest
    canary_quantile, stable_quantile = (DisplayQuantile(milliseconds=int(q[0]), sign=str(q[1])) if q else None for q in quantiles)
    return ObjectiveState(
        rule=_unpack_rule(kind, figures, origin=origin),
        step_requests=int(step_requests),
        canary_quantile=canary_quantile,
        stable_quantile=stable_quantile,
        planned_blocks=int(planned_blocks),
    )


def _unpack_rule(kind: str, figures: list[Any], *, origin: int) -> RuleState:
    match kind, figures:
        case "threshold", [window, episode]:
            return _unpack_threshold(window, episode, origin=origin)
        case "sequential", [numbers, *memory] if len(memory) <= 1:
            state = from_numbers(_figures(numbers), origin=origin / 1000)
            # Before, all of it was remembered together for ever.
            return with_memory(state, numbers=_figures(memory[0])) if memory else state
        case "mean", [numbers]:
            return mean.from_numbers(_figures(numbers), origin=origin / 1000)
        case _:
            raise ValueError("a state of a rule that there is not")


def _unpack_threshold(window: Any, episode: Any, *, origin: int) -> ThresholdState:
    return ThresholdState(
        window=tuple(
            ArmBlock(
                start=(origin - start) / 1000,
                end=(origin - end) / 1000,
                canary=_unpack_counts(canary) or Counts(),
                stable=_unpack_counts(stable),
                after_gap=bool(gap),
            )
            for start, end, canary, stable, gap in window
        ),
        episode=_unpack_episode(episode, origin=origin),
    )


def _unpack_episode(document: Any, *, origin: int) -> Episode | None:
    if not document:
        return None
    first_bad, newest_bad, canary, stable = document
    return Episode(
        first_bad=(origin - first_bad) / 1000,
        newest_bad=(origin - newest_bad) / 1000,
        canary=_unpack_counts(canary) or Counts(),
        stable=_unpack_counts(stable),
    )


def _unpack_counts(document: Any) -> Counts | None:
    if not document:
        return None
    bad, total = document
    return Counts(bad=int(bad), total=int(total))

"""One evaluation of one policy: samples in, readings and the next state out. Deterministic; the time comes in as `now`."""

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import assert_never

from ..api.reasons import Reason
from .ahead import AHEAD_SECONDS, ahead
from .blocks import JITTER, MISSED_SCRAPES, Block, close_blocks
from .deltas import Scrape
from .evidence import CANARY, WATCHED, Arms, bound_missing, decimal, limit_of, outlook, percent_of, unanswered
from .folding import folded, history_wanted, rule_for, unmeasured, with_history
from .indicators import judged_requests, missing_bound, sent_requests
from .objective import GATEWAYS, Objective
from .policy import Evaluation, LivePolicy, Told
from .reading import Breached, Breaching, Healthy, ReadingState, SLOReading, Standing, Unknown, Waiting, is_suspected, state_name
from .rules import AnyRule, blocks_in, counts_in, fits, is_promotable, judged, rule_of, tests_among
from .samples import BoundMissing, Fetched, NoData, NotANumber, Partial, ProviderError, Sample, Series, Unread
from .screening import screened
from .sequential.mean import MeanState
from .sequential.memory import knowing_bursts_of
from .sequential.state import SequentialState
from .setback import blind, can_go_on, taken_for_now
from .silence import Silence, after_block
from .state import MAX_TARGETS, AnalysisState, ObjectiveState, target_key, with_source
from .telling import told as sentence
from .threshold import CLOCK_SLACK_SECONDS

# Newest sample older than this many scrape intervals: nothing is being scraped.
STALE_INTERVALS = 4
SAME_TIME_SECONDS = 0.002


@dataclass(frozen=True)
class _Seen:
    """What could be read, and in `blind`, by part, why that part could not be seen. `set_back`: clocks were, and that is why."""

    scrapes: dict[str, list[Scrape]]
    blind: Mapping[str, Unread]
    set_back: bool = False


@dataclass(frozen=True)
class _Verdict:
    """What an objective's state comes to, without the words for it."""

    objective: Objective
    rule: AnyRule
    kept: ObjectiveState
    state: ReadingState
    reason: Reason
    promotable: bool
    over: bool

    @property
    def standing(self) -> Standing:
        return Standing(
            self.objective.name,
            state_name(self.state),
            self.reason,
            promotable=self.promotable,
            over=self.over,
            suspected=is_suspected(self.state),
        )


def evaluate(fetched: Fetched, *, policy: LivePolicy, now: float, scrape_interval: float, told: Told | None = None) -> Evaluation:
    """Closes what blocks it can, folds them into each objective's state, and reads the verdicts from that.

    `now` in seconds since the epoch, `scrape_interval` in seconds. `told`: what is known already; the sentences take as long as all the
    judging, and of a healthy canary nobody reads nine of ten. Never raises for anything that a source can answer.
    """
    before = _resumed(policy, now=now, scrape_interval=scrape_interval)
    if seconds := ahead(before, now=now):
        return _set_back(fetched, policy=policy, before=before, seconds=seconds, now=now)
    # Of what is counted already the times are enough, unless it is some objective's history.
    counted = {} if policy.wants_history else before.watermarks
    seen = _seen(fetched, parts=policy.parts, counted=counted, now=now, scrape_interval=scrape_interval)
    if policy.wants_history:
        unread = {part for part, why in seen.blind.items() if not isinstance(why, NoData)}
        before = with_history(before, scrapes=seen.scrapes, unread=unread, policy=policy, now=now, scrape_interval=scrape_interval)
    blocks = []
    if policy.since is not None:
        blocks = close_blocks(
            seen.scrapes,
            watermarks=before.watermarks,
            block_end=before.block_end,
            since=policy.since,
            from_zero=policy.from_zero,
            scrape_interval=scrape_interval,
        )
    missing = _missing_bounds(policy, seen=seen)
    after = before
    for block in blocks:
        after = _folded(after, block=block, policy=policy, missing=missing)
    verdicts = [_verdict(one, policy=policy, state=after, seen=seen, missing=missing) for one in policy.objectives]
    if not any(isinstance(one.state, Breaching) for one in verdicts):
        after = _asking_again(after, policy=policy, blind=seen.blind, now=now)
    is_news = told is None or now >= told.until or told.standings != tuple(one.standing for one in verdicts)
    return Evaluation(
        readings=tuple(_reading(one, policy=policy, state=after, seen=seen, now=now) for one in verdicts) if is_news else (),
        state=after,
        closed_block=bool(blocks),
        canary_requests=after.step_requests,
        canary_sent=after.step_sent,
    )


def _set_back(fetched: Fetched, *, policy: LivePolicy, before: AnalysisState, seconds: float, now: float) -> Evaluation:
    """Of a state that is so many seconds `ahead`: nothing is counted, and it is taken for now where the source has nothing of then."""
    goes_on, why = can_go_on(fetched, now=now), blind(fetched, seconds=seconds, now=now)
    after = taken_for_now(before, policy=policy, now=now) if goes_on else before
    seen = _Seen(scrapes={}, blind=dict.fromkeys(policy.parts, why), set_back=goes_on or isinstance(fetched, Sample))
    verdicts = [_verdict(one, policy=policy, state=after, seen=seen, missing={}) for one in policy.objectives]
    readings = tuple(_reading(one, policy=policy, state=after, seen=seen, now=now) for one in verdicts)
    return Evaluation(readings, after, closed_block=False, canary_requests=after.step_requests, canary_sent=after.step_sent)


def newest_samples(fetched: Fetched) -> frozenset[tuple[str, float]]:
    """Target and time of every series' newest sample: while these stay the same there is nothing new to evaluate."""
    return frozenset((target, at) for _, target, at in fetched.newest) if isinstance(fetched, Sample) else frozenset()


def is_stale(fetched: Fetched, *, now: float, scrape_interval: float) -> bool:
    """Whether something is not being scraped any more, was not answered, or is of a time to come."""
    if not isinstance(fetched, Sample) or fetched.unread:
        return True
    newest: dict[str, float] = {}
    for part, _, at in fetched.newest:
        newest[part] = max(newest.get(part, -math.inf), at)
    if max(newest.values(), default=-math.inf) > now + AHEAD_SECONDS:
        return True
    return now - min(newest.values(), default=-math.inf) > STALE_INTERVALS * scrape_interval


def _asking_again(state: AnalysisState, *, policy: LivePolicy, blind: Container[str], now: float) -> AnalysisState:
    """The state, with history wanted again where that is due and the source answers: not while a breach is to be decided."""
    due = {
        one.fingerprint: replace(kept, history=replace(kept.history, again=None))
        for one in policy.objectives
        if (kept := state.objectives[one.fingerprint]).history is not None
        and kept.history.again is not None
        and kept.history.again <= now
        and one.part not in blind
    }
    return replace(state, objectives={**state.objectives, **due}) if due else state


def _resumed(policy: LivePolicy, *, now: float, scrape_interval: float) -> AnalysisState:
    """The state to go on from: anew for other revisions or another source; with new step counts when the step is another."""
    state = with_source(policy.state, source=policy.source)
    if (state.canary, state.stable) != (policy.canary, policy.stable):
        state = AnalysisState(canary=policy.canary, stable=policy.stable, source=policy.source)
    objectives = {o.fingerprint: _kept(o, policy=policy, state=state, now=now, scrape_interval=scrape_interval) for o in policy.objectives}
    if not _same_time(state.since, policy.since):
        objectives = {key: replace(one, step_requests=0) for key, one in objectives.items()}
        return replace(state, since=policy.since, step_requests=0, step_sent=0, silence=None, step_beside=0, objectives=objectives)
    return replace(state, objectives=objectives)


def _kept(objective: Objective, *, policy: LivePolicy, state: AnalysisState, now: float, scrape_interval: float) -> ObjectiveState:
    """What is kept of an objective, or the beginning."""
    kept = state.objectives.get(objective.fingerprint)
    if kept is not None and fits(rule_for(objective, policy=policy, kept=kept), kept.rule):
        return kept if kept.measure else replace(kept, measure=objective.measure)
    planned = blocks_in(policy.planned_seconds, scrape_interval=scrape_interval)
    rule = rule_of(objective, tests=tests_among(policy.objectives), planned_blocks=planned)
    history = history_wanted(policy, objective, block_end=state.block_end, now=now, interval=scrape_interval)
    begun = ObjectiveState(rule=rule.start(), planned_blocks=planned, history=history, measure=objective.measure)
    return begun if history is not None else _knowing(begun, others=state.objectives.values())


def _knowing(begun: ObjectiveState, *, others: Iterable[ObjectiveState]) -> ObjectiveState:
    """The beginning of an objective of which no history is read, with what one of the same requests knew: that which it was edited from."""
    known = (one.rule for one in others if one.measure == begun.measure and isinstance(one.rule, SequentialState))
    if not isinstance(begun.rule, SequentialState) or (other := next(known, None)) is None:
        return begun
    return replace(begun, rule=knowing_bursts_of(begun.rule, other=other))


def _same_time(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) < SAME_TIME_SECONDS


def _seen(fetched: Fetched, *, parts: Sequence[str], counted: Mapping[str, float], now: float, scrape_interval: float) -> _Seen:
    match fetched:
        case NoData() | NotANumber() | Partial() | ProviderError() | BoundMissing():
            return _Seen(scrapes={}, blind=dict.fromkeys(parts, fetched))
        case Sample():
            scrapes: dict[str, list[Scrape]] = {}
            blind = dict(fetched.unread)
            for part in (part for part in parts if part not in blind):
                series = [one for one in fetched.series if one.counter.part == part]
                found, why = _part(series, part=part, counted=counted, targets=len(scrapes), now=now, scrape_interval=scrape_interval)
                scrapes |= found
                if why is not None:
                    blind[part] = why
            return _Seen(scrapes=scrapes, blind=blind)
    assert_never(fetched)


def _part(
    series: Sequence[Series], *, part: str, counted: Mapping[str, float], targets: int, now: float, scrape_interval: float
) -> tuple[dict[str, list[Scrape]], Unread | None]:
    """The scrapes of one part, and why it cannot be seen all the same.

    `counted`: the watermarks, by the targets' keys. `targets`: how many there are in the other parts.
    """
    what = "gateways" if part == GATEWAYS else "own counters"
    if not series:
        return {}, NoData(f"The metrics source has no samples of this policy's {what}; are their pods scraped?")
    keys = {target: target_key(target) for target in {one.target for one in series}}
    scrapes = screened(series, counted={target: counted[key] for target, key in keys.items() if key in counted})
    if isinstance(scrapes, NotANumber):
        return {}, scrapes
    if targets + len(scrapes) > MAX_TARGETS:
        pods = "gateway pods" if part == GATEWAYS else "pods, one for each pair of selectors in `promQL` that they have counters of,"
        many = f"{targets + len(scrapes)} {pods} were scraped for this policy; at most {MAX_TARGETS} can be judged together."
        return {}, NotANumber(many)
    scrapes = {keys[target]: seen for target, seen in scrapes.items()}
    if (spacing := _closest(scrapes)) is not None and spacing > (MISSED_SCRAPES + JITTER) * scrape_interval:
        # Blocks do not wait for what its author scrapes more seldom than the gateways.
        return scrapes if part == GATEWAYS else {}, NotANumber(
            f"The samples of this policy's {what} are {spacing:.0f} s apart, while the metrics source is declared with "
            f"`scrapeIntervalSeconds` {scrape_interval:g}: correct that, unless scrapes have just failed."
        )
    age = now - max(seen[-1].at for seen in scrapes.values())
    if age > STALE_INTERVALS * scrape_interval:
        why = f"The newest sample of this policy's {what} is {age:.0f} s old, at a scrape interval of {scrape_interval:g} s."
        return scrapes, NotANumber(why)
    if -age > AHEAD_SECONDS:
        # Counted, they would be of steps that they are not of, and all that comes once the clock is set would be late.
        return {}, NotANumber(
            f"The newest sample of this policy's {what} is of {-age:.0f} s from now by the operator's clock; "
            "set that and the metrics source's."
        )
    return scrapes, None


def _closest(scrapes: dict[str, list[Scrape]]) -> float | None:
    """The shortest time between two scrapes of a target, in seconds; None where no target has two."""
    return min((later.at - one.at for seen in scrapes.values() for one, later in pairwise(seen)), default=None)


def _missing_bounds(policy: LivePolicy, *, seen: _Seen) -> dict[str, tuple[float, ...]]:
    """By fingerprint, the objectives whose limit is no bucket bound where requests were counted, with the bounds that are there."""
    newest = [scrapes[-1].values for scrapes in seen.scrapes.values()]
    found = {
        o.fingerprint: missing_bound(o.latency, targets=newest, revision=policy.canary) for o in policy.objectives if o.latency is not None
    }
    return {fingerprint: bounds for fingerprint, bounds in found.items() if bounds is not None}


def _folded(state: AnalysisState, *, block: Block, policy: LivePolicy, missing: Container[str]) -> AnalysisState:
    answered = judged_requests(block.counted, revision=policy.canary)
    newest_first = sorted((dict(state.watermarks) | dict(block.watermarks)).items(), key=lambda item: (-item[1], item[0]))
    return replace(
        state,
        block_end=block.end,
        watermarks=dict(newest_first[:MAX_TARGETS]),
        step_requests=state.step_requests + answered,
        requests=None if state.requests is None else state.requests + answered,
        step_sent=state.step_sent + sent_requests(block.counted, revision=policy.canary),
        silence=after_block(state.silence, counted=block.counted, end=block.end, revision=policy.canary),
        step_beside=state.step_beside + judged_requests(block.counted, revision=policy.stable),
        objectives={
            o.fingerprint: (unmeasured if o.fingerprint in missing else folded)(
                state.objectives[o.fingerprint], o, block=block, policy=policy
            )
            for o in policy.objectives
        },
    )


def _verdict(
    objective: Objective, *, policy: LivePolicy, state: AnalysisState, seen: _Seen, missing: Mapping[str, tuple[float, ...]]
) -> _Verdict:
    kept = state.objectives[objective.fingerprint]
    rule = rule_for(objective, policy=policy, kept=kept)
    silence = state.silence if objective.part == GATEWAYS and state.silence is not None and state.silence.tells else None
    verdict, reason = _judged(objective, rule=rule, state=kept, seen=seen, missing=missing, silence=silence, ends=state.block_end or 0.0)
    if seen.set_back:
        reason = Reason.CLOCK_SET_BACK
    promotable = isinstance(verdict, Healthy) and is_promotable(rule, kept.rule)
    # Only where two revisions are compared one after the other does anything follow from it; each turn of it is a write of status.
    over = policy.watched and _is_over(objective, kept=kept)
    return _Verdict(objective, rule, kept, verdict, reason, promotable, over)


def _is_over(objective: Objective, *, kept: ObjectiveState) -> bool:
    """Whether what is counted is over the limit, however little evidence that is. Of an increase there is no such limit."""
    if objective.above_stable:
        return False
    if isinstance(kept.rule, MeanState) and (mean := kept.rule.told[0].mean) is not None:
        return mean > objective.allowed
    canary, _ = counts_in(kept.rule)
    return canary.bad > objective.allowed * canary.total


def _reading(of: _Verdict, *, policy: LivePolicy, state: AnalysisState, seen: _Seen, now: float) -> SLOReading:
    objective, kept = of.objective, of.kept
    canary, stable = counts_in(kept.rule)
    means = [one.mean for one in kept.rule.told] if isinstance(kept.rule, MeanState) else [None, None]
    canary_mean, stable_mean = (None if one is None else decimal(one, digits=6) for one in means)
    return SLOReading(
        name=objective.name,
        state=of.state,
        reason=of.reason,
        value=percent_of(canary) if objective.mean is None else canary_mean,
        limit=limit_of(objective),
        canary=canary,
        stable=stable,
        step_requests=kept.step_requests,
        evidence=_evidence(of, policy=policy, state=state, seen=seen, now=now),
        promotable=of.promotable,
        over=of.over,
        is_mean=objective.mean is not None,
        canary_mean=canary_mean,
        stable_mean=stable_mean,
    )


def _evidence(of: _Verdict, *, policy: LivePolicy, state: AnalysisState, seen: _Seen, now: float) -> str:
    """The sentence of a reading."""
    arms: Arms = WATCHED if policy.watched else CANARY
    objective, verdict = of.objective, of.state
    if isinstance(verdict, Unknown):
        return verdict.why
    if (blind := seen.blind.get(objective.part)) is not None:
        return f"{blind.sentence.removesuffix('.')}; no step waits for it, for it is not `required`."
    if of.reason is Reason.NO_TRAFFIC and state.silence is not None:
        return unanswered(objective, silence=state.silence, ends=state.block_end or 0.0, policy=policy, arms=arms)
    outlook_words = _outlook(verdict, state=state, share=policy.share) if objective.counts_every_request else ""
    return sentence(objective, rule=of.rule, verdict=verdict, policy=policy, state=state, arms=arms, outlook=outlook_words, now=now)


def _outlook(verdict: ReadingState, *, state: AnalysisState, share: float | None) -> str:
    if share is None or not isinstance(verdict, Waiting) or state.since is None or state.block_end is None:
        return ""
    return outlook(
        more=verdict.more, share=share, judged=state.step_requests, beside=state.step_beside, seconds=state.block_end - state.since
    )


def _judged(
    objective: Objective,
    *,
    rule: AnyRule,
    state: ObjectiveState,
    seen: _Seen,
    missing: Mapping[str, tuple[float, ...]],
    silence: Silence | None,
    ends: float,
) -> tuple[ReadingState, Reason]:
    """`silence`: one that tells something; `ends`: the end of the newest block."""
    match seen.blind.get(objective.part):
        case None:
            pass
        case NoData() if objective.part != GATEWAYS and not objective.required:
            return Waiting(objective.min_requests), Reason.WAITING_FOR_SAMPLES
        case NoData(why) | NotANumber(why) | Partial(why) | ProviderError(why):
            return Unknown(why), Reason.METRICS_UNAVAILABLE
        case BoundMissing(why):
            return Unknown(why), Reason.BUCKET_BOUNDARY_MISSING
    if objective.latency is not None and objective.fingerprint in missing:
        bounds = missing[objective.fingerprint]
        return bound_missing(seconds=objective.latency.seconds, seen=bounds), Reason.BUCKET_BOUNDARY_MISSING
    verdict = judged(rule, state.rule)
    if silence is not None and objective.silent_seconds is not None and not isinstance(verdict, Breached):
        long_enough = ends - silence.since >= objective.silent_seconds - CLOCK_SLACK_SECONDS
        if long_enough:  # whatever was counted before: what hangs adds nothing to it any more
            return Breached(since=silence.since), Reason.NO_TRAFFIC
    match verdict:
        case Breaching(shared=True):
            return verdict, Reason.SHARED_BREACH
        case Breached() | Breaching():
            return verdict, objective.breach
        case Healthy() if silence is not None:
            return Waiting(max(1, objective.min_requests - state.step_requests)), Reason.NO_TRAFFIC
        case Healthy():
            more = objective.min_requests - state.step_requests
            return (Waiting(more), Reason.WAITING_FOR_SAMPLES) if more > 0 else (verdict, Reason.METRICS_AVAILABLE)
    assert_never(verdict)

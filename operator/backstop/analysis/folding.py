"""A closed block → what each objective sees of it, and its state after it. Knows counters, rules and states; no sentences, no sources."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from .blocks import JITTER, Block, close_blocks
from .deltas import Scrape
from .indicators import counts_of, counts_over, sum_of
from .objective import GATEWAYS, Objective
from .policy import LivePolicy
from .quantile import display_quantile
from .queries import history_seconds
from .reading import Counts
from .rule import ArmBlock, BoundCounts
from .rules import AnyRule, observed, rule_of, tests_among
from .sequential.mean import MeanBlock, Sum
from .sequential.rule import Sequential
from .sequential.state import SequentialState
from .state import AnalysisState, ObjectiveState


def rule_for(objective: Objective, *, policy: LivePolicy, kept: ObjectiveState) -> AnyRule:
    """The rule that judges an objective of this policy, by the plan that its state began with."""
    return rule_of(objective, tests=tests_among(policy.objectives), planned_blocks=kept.planned_blocks)


def folded(kept: ObjectiveState, objective: Objective, *, block: Block, policy: LivePolicy) -> ObjectiveState:
    """The objective's state after the block."""
    if objective.mean is not None:
        sums = mean_block(objective, block=block, policy=policy)
        rule = observed(rule_for(objective, policy=policy, kept=kept), kept.rule, block=sums)
        judged = sums.canary.requests if sums.canary.mean is not None else 0
        return replace(kept, rule=rule, step_requests=kept.step_requests + judged)
    arms = arm_block(objective, block=block, policy=policy)
    canary_quantile, stable_quantile = kept.canary_quantile, kept.stable_quantile
    if objective.latency is not None and (percent := objective.latency.percent) is not None:
        canary_quantile = display_quantile(block.counted, revision=policy.canary, percent=percent) or canary_quantile
        stable_quantile = display_quantile(block.counted, revision=policy.stable, percent=percent) or stable_quantile
    return replace(
        kept,
        rule=observed(rule_for(objective, policy=policy, kept=kept), kept.rule, block=arms),
        step_requests=kept.step_requests + arms.canary.total,
        canary_quantile=canary_quantile,
        stable_quantile=stable_quantile,
    )


def unmeasured(kept: ObjectiveState, objective: Objective, *, block: Block, policy: LivePolicy) -> ObjectiveState:
    """What cannot be measured is not counted, and no window goes on across it."""
    empty = ArmBlock(start=block.start, end=block.end, canary=Counts(), stable=None, after_gap=True)
    return replace(kept, rule=observed(rule_for(objective, policy=policy, kept=kept), kept.rule, block=empty))


def mean_block(objective: Objective, *, block: Block, policy: LivePolicy) -> MeanBlock:
    """What the requests of a block came to."""
    canary, unknown = sum_of(objective, counted=block.counted, revision=policy.canary)
    stable, _ = sum_of(objective, counted=block.counted, revision=policy.stable) if policy.stable else (Sum(), 0)
    gap = objective.part in block.gaps
    return MeanBlock(start=block.start, end=block.end, canary=canary, stable=stable, after_gap=gap, unknown=unknown)


def arm_block(objective: Objective, *, block: Block, policy: LivePolicy) -> ArmBlock:
    """The objective's counts of a block."""
    stable = _counts(objective, block=block, revision=policy.stable) if policy.stable else None
    arms = ArmBlock(
        start=block.start,
        end=block.end,
        canary=_counts(objective, block=block, revision=policy.canary) or Counts(),
        stable=stable,
        after_gap=objective.part in block.gaps,
    )
    if objective.sequential is None:
        return arms
    bounds, compared = objective.bounds_beside, None
    if stable is not None and objective.part == GATEWAYS and not objective.above_stable and block.has_cache_hits:
        canary_asked, stable_asked = (
            _counts(objective, block=block, revision=revision, beside=True) for revision in (policy.canary, policy.stable)
        )
        compared = BoundCounts(canary_asked or Counts(), stable=stable_asked)
    targets = [increase.counted for increase in block.increases]
    return replace(
        arms,
        bounds=counts_over(bounds, targets=targets, canary=policy.canary, stable=policy.stable) if bounds else (),
        stable_pods=_by_pod(objective, block=block, stable=policy.stable) if stable is not None else (),
        compared=compared,
    )


def _counts(objective: Objective, *, block: Block, revision: str, beside: bool = False) -> Counts | None:
    """The objective's counts of one revision in a block; None where there are none. `beside`: see `counts_of`.

    Of a latency, target by target: one whose gateway does not have the limit as a bound tells nothing of what is over it.
    """
    if objective.latency is None:
        return counts_of(objective, counted=block.counted, revision=revision, beside=beside)
    each = (counts_of(objective, counted=increase.counted, revision=revision, beside=beside) for increase in block.increases)
    known = [counts for counts in each if counts is not None]
    return sum(known, Counts()) if known else None


def _by_pod(objective: Objective, *, block: Block, stable: str) -> tuple[Counts, ...]:
    """Stable's counts by the entry pod; none where there is one alone, or where two processes count what is bad and what is all of it."""
    targets = {increase.target for increase in block.increases}
    if len(targets) < 2 or objective.part != GATEWAYS:
        return ()
    found = dict.fromkeys(sorted(targets), Counts())
    for increase in block.increases:
        found[increase.target] += counts_of(objective, counted=increase.counted, revision=stable) or Counts()
    return tuple(counts for counts in found.values() if counts.total > 0)


def with_history(
    state: AnalysisState, *, scrapes: dict[str, list[Scrape]], policy: LivePolicy, now: float, scrape_interval: float
) -> AnalysisState:
    """The state, with what stable did in the last minutes before the canary is judged: read once, before the first block is counted.

    `scrapes`: as far back as they were asked for. `now`, `scrape_interval` in seconds.
    """
    # The first block may reach one scrape back.
    until = (now if policy.since is None else min(now, policy.since)) - (1 + JITTER) * scrape_interval
    blocks = close_blocks(
        scrapes,
        watermarks={},
        block_end=None,
        since=until - history_seconds(scrape_interval),
        scrape_interval=scrape_interval,
    )
    before = [block for block in blocks if block.end <= until]
    objectives = {o.fingerprint: _seeded(state.objectives[o.fingerprint], o, history=before, policy=policy) for o in policy.objectives}
    return replace(state, seeded=True, objectives=objectives)


def _seeded(kept: ObjectiveState, objective: Objective, *, history: Sequence[Block], policy: LivePolicy) -> ObjectiveState:
    rule = rule_for(objective, policy=policy, kept=kept)
    if not isinstance(rule, Sequential) or not isinstance(kept.rule, SequentialState):
        return kept
    blocks: Iterable[ArmBlock] = (arm_block(objective, block=block, policy=policy) for block in history)
    return replace(kept, rule=rule.seeded(kept.rule, history=blocks))

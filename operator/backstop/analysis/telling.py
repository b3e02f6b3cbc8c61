"""The evidence sentence of an objective, by the rule that judges it: counts, evidence, what is missing, and where to look it up."""

from typing import assert_never

from .evidence import Arms, bad_words, counted, explained, over_words, quantile_words, query_of, unjudged
from .objective import Objective
from .policy import LivePolicy
from .reading import Breached, Breaching, Healthy, Waiting
from .rules import PROMOTION_RISK, AnyRule, RuleState, counts_in, is_promotable
from .sequential.explanation import NotShown, needed_for_promotion
from .sequential.explanation import explained as evidence_of
from .sequential.mean import Mean, MeanState
from .sequential.meanwords import explained as mean_of
from .sequential.rule import Sequential
from .sequential.state import SequentialState
from .sequential.window import canary_of
from .state import AnalysisState


def told(
    objective: Objective,
    *,
    rule: AnyRule,
    verdict: Healthy | Breaching | Breached | Waiting,
    policy: LivePolicy,
    state: AnalysisState,
    arms: Arms,
    outlook: str,
    now: float,
) -> str:
    """The sentence. `outlook`: how long what waits will take; `now`: of the decision, seconds since the epoch."""
    kept = state.objectives[objective.fingerprint]
    revisions, bound = (policy.canary, policy.stable), _bound_told(objective, state=kept.rule)
    query = query_of(objective, namespace=policy.namespace, policy=policy.name, revisions=revisions, bound=bound)
    quantiles = kept.canary_quantile, kept.stable_quantile
    left_out = ""
    if isinstance(verdict, Waiting) and objective.counts_every_request:
        left_out = unjudged(sent=state.step_sent, judged=state.step_requests)
    if isinstance(rule, Mean):
        assert isinstance(kept.rule, MeanState), "a state goes on under the rule that it began with"
        assert objective.mean is not None, "the rule of means is for means"
        text = mean_of(
            objective.name,
            unit=objective.mean.unit,
            rule=rule,
            state=kept.rule,
            verdict=Healthy() if isinstance(verdict, Waiting) else verdict,
            now=now,
            canary=arms.judged,
            stable=arms.beside,
        )
        if isinstance(verdict, Waiting):
            text += f"; needs {verdict.more:,} more {arms.judged} requests {arms.since}{outlook}"
        return f"{text}. Query: {query}"
    if isinstance(rule, Sequential):
        assert isinstance(kept.rule, SequentialState), "a state goes on under the rule that it began with"
        text = evidence_of(
            objective.name,
            bad=bad_words(objective, bound=bound),
            bounds=[over_words(one) for one in objective.bounds_beside],
            rule=rule,
            state=kept.rule,
            verdict=Healthy() if isinstance(verdict, Waiting) else verdict,
            now=now,
            canary=arms.judged,
            stable=arms.beside,
        )
        if kept.history is not None and kept.history.is_given_up:
            text += f"; what {arms.beside} did before could not be read, nor in {kept.history.failed - 1} tries more"
        text += left_out + quantile_words(objective, quantiles=quantiles, arms=arms)
        if isinstance(verdict, Healthy):
            text += _to_promotion(rule, kept.rule)
        if isinstance(verdict, Waiting):
            text += f"; needs {verdict.more:,} more {arms.judged} requests {arms.since}{outlook}"
        return f"{text}. Query: {query}"
    canary, stable = counts_in(kept.rule)
    episode = kept.rule.episode
    return explained(
        objective,
        state=verdict,
        seen=counted(objective, canary=canary, stable=stable, arms=arms) + left_out,
        query=query,
        quantiles=quantiles,
        seconds=episode.newest_bad - episode.first_bad if episode else 0.0,
        arms=arms,
        outlook=outlook,
    )


def _bound_told(objective: Objective, *, state: RuleState) -> float | None:
    """The latency bound (seconds) by which a breach is told where that is not the limit."""
    if not isinstance(state, SequentialState) or state.followed == 0:
        return None
    return objective.bounds_beside[state.followed - 1]


def _to_promotion(rule: Sequential, state: SequentialState) -> str:
    """What is missing for the step to end early; empty where that is not asked for."""
    if not rule.weighs_promotion:
        return ""
    if is_promotable(rule, state):
        return "; good enough to end the step early"
    seen = canary_of(state.window)
    need = needed_for_promotion(rule, state=state, share=seen.bad / seen.total if seen.total else 0.0, risk=PROMOTION_RISK)
    if isinstance(need, NotShown):
        return f"; the step does not end early while {_never_shown(need, rule=rule)}"
    if need.requests == 0:
        return "; not yet known to be good enough to end the step early"
    seconds = "" if need.seconds is None else f" (≈ {need.seconds:,.0f} s)"
    return f"; to end the step early needs ≈ {need.requests:,} more requests{seconds} like these"


def _never_shown(what: NotShown, *, rule: Sequential) -> str:
    match what:
        case NotShown.WITHIN_LIMIT:
            return "requests are like these, which never show that it is within its limit"
        case NotShown.NO_WORSE if rule.margin == 0:
            return "requests are like these, which never show that it is better than stable"
        case NotShown.NO_WORSE:
            return f"requests are like these, which never show that it is less than {100 * rule.margin:.10g} points worse than stable"
        case NotShown.NO_STABLE:
            return "stable has no requests to compare with"
        case NotShown.NO_CANARY:
            return "the canary has no requests"
    assert_never(what)

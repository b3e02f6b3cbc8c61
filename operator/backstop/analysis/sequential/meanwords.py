"""The sentence that says why a rule on a mean decided, or what it still needs. Knows figures and words."""

from ...api.clock import render_time
from ..evidence import decimal
from ..reading import Breached, Breaching
from ..rule import Verdict
from .explanation import MOST_MORE, WON_BEFORE, Need, began_at, held_by_what_was, lasting, needs, written
from .mean import Mean, MeanState, Sum


def explained(
    name: str,
    *,
    unit: str,
    rule: Mean,
    state: MeanState,
    verdict: Verdict,
    now: float,
    canary: str = "canary",
    stable: str = "stable",
) -> str:
    """`cost: 0.0312 USD per request over 412 canary requests (allowed 0.02) against …; evidence e = 4,072 ≥ 1,000 (…); began ≈ …`.

    `unit`: of the sum, as in "USD" or "tokens". `now`: of the decision, seconds since the epoch.
    """
    text = f"{name}: {_counted(rule, state=state, unit=unit, canary=canary, stable=stable)}"
    ln_e, threshold = rule.evidence(state), rule.risk.ln_threshold
    sign = "≥" if ln_e >= threshold else "of"
    text += f"; evidence e = {written(ln_e)} {sign} {written(threshold)}"
    text += f" (false-rollback risk of the whole rollout ≤ {100 * rule.risk.share:.10g} %)"
    match verdict:
        case Breached(since=since, suspected=suspected):
            text += f"; {WON_BEFORE}" if state.episode is None else began_at(since, now=now)
            return f"{text}; only suspected, as {stable} had no requests to compare with" if suspected else text
        case Breaching(since=since, shared=True):
            return f"{text}; {stable} is over it too, so that a rollback cannot help; since {render_time(since)}"
        case Breaching() if state.episode is None:
            return text + held_by_what_was(rule.risk)
        case Breaching(since=since):
            text += f"; since {render_time(since)}{_lasting(rule, state=state)}"
            need = _needed(rule, state=state)
            return text if need is None else text + needs(need)
    return text


def _counted(rule: Mean, *, state: MeanState, unit: str, canary: str, stable: str) -> str:
    allowed = f"allowed {decimal(rule.target, digits=10)}"
    judged, beside = state.told
    left_out = f"; {state.unknown:,} {canary} requests more are not judged, as what they came to is not known" if state.unknown else ""
    if judged.mean is None:
        return f"no {canary} request counted yet ({allowed} {unit} per request){left_out}"
    text = f"{_per_request(judged, unit=unit)} over {judged.requests:,} {canary} requests ({allowed})"
    if beside.mean is None:
        return f"{text}, none on {stable} to compare with{left_out}"
    return f"{text} against {_per_request(beside, unit=unit)} over {beside.requests:,} on {stable}{left_out}"


def _per_request(total: Sum, *, unit: str) -> str:
    mean = total.amount / total.requests
    return f"{mean:,.0f} {unit} per request" if mean >= 1000 else f"{decimal(mean, digits=3)} {unit} per request"


def _lasting(rule: Mean, *, state: MeanState) -> str:
    episode = state.episode
    if not rule.for_seconds or episode is None:
        return ""
    return lasting(episode.newest_bad - episode.first_bad, of=rule.for_seconds)


def _needed(rule: Mean, *, state: MeanState) -> Need | None:
    """How many more requests like those of the running breach decide. How long they take is known from its second block on."""
    blocks, episode = rule.blocks_needed(state), state.episode
    if blocks is None or episode is None:
        return None
    seconds = blocks * (state.seen_until - episode.first_bad) / (episode.blocks - 1) if episode.blocks > 1 else None
    return Need(requests=min(MOST_MORE, round(blocks * episode.canary.requests / episode.blocks)), seconds=seconds)

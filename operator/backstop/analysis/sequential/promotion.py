"""Evidence that the canary is good enough: non-inferiority, the tests the other way round.

H0′: the canary's bad share is at least stable's + margin; and, where there is a limit, at least the limit. Each has its e-value, and both
must be refuted: E′ = min. Absolute: the likelihood ratio against p0, mixed over odds multipliers below 1. Relative: the two-sample
e-value with δ = margin and guesses a of m × the odds of b + margin, mixed over the same multipliers.
Evidence of n clean requests is at most (1 − p0)^−n: "under 1 %" with β = 5 % takes 299 of them at least.

Symbols: p0 limit, β risk of a wrong promotion, K, N bad and all canary requests.
Source: as `likelihood` and `twosample`; S. Wellek, "Testing Statistical Hypotheses of Equivalence and Noninferiority" (2010), ch. 6.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .likelihood import log_ratios
from .logspace import log_mean
from .odds import BETTER, inside, share_at
from .twosample import Pair, log_es


@dataclass(frozen=True)
class Promotion:
    """ln of each member's product, against the limit and against stable."""

    ln_absolute: tuple[float, ...] = (0.0,) * len(BETTER)
    ln_relative: tuple[float, ...] = (0.0,) * len(BETTER)


def with_evidence(state: Promotion, *, block: Pair, allowed: float | None, b: float, margin: float) -> Promotion:
    """One more block, bursts divided out of its counts already; `b` is the guess of stable's share from past blocks."""
    absolute = state.ln_absolute
    if allowed is not None:
        absolute = tuple(one + e for one, e in zip(absolute, growth_against_limit(block, allowed=allowed), strict=True))
    relative = tuple(one + e for one, e in zip(state.ln_relative, growth_against_stable(block, b=b, margin=margin), strict=True))
    return Promotion(ln_absolute=absolute, ln_relative=relative)


def log_promotion(state: Promotion, *, absolute: bool, relative: bool) -> float:
    """ln E′ of those of the two that are asked for (one at least)."""
    evidence = [log_mean(state.ln_absolute)] if absolute else []
    if relative:
        evidence.append(log_mean(state.ln_relative))
    return min(evidence)


def log_point(*, clean: int, allowed: float) -> float:
    """ln E of so many clean requests against `allowed` by the ratio to the share 0: no test can have more."""
    return -clean * math.log1p(-allowed)


def clean_needed(*, allowed: float, risk: float) -> int:
    """The least number of clean requests that any test needs to say "under `allowed`" at the risk β."""
    return math.ceil(math.log(risk) / math.log1p(-inside(allowed)))


def growth_against_limit(block: Pair, *, allowed: float) -> list[float]:
    """What a block adds to each member against the limit; bursts divided out of its counts already."""
    return list(log_ratios(bad=block.canary_bad, total=block.canary_total, allowed=allowed, multipliers=BETTER))


def growth_against_stable(block: Pair, *, b: float, margin: float) -> list[float]:
    """The same against stable, whose share is guessed to be `b`."""
    null = inside(b + margin)
    return log_es(block, guesses=[inside(share_at(m, of=null)) for m in BETTER], b=b, delta=margin)


def more_needed(members: Sequence[float], *, growth: Sequence[float], risk: float) -> float | None:
    """How many more blocks (not necessarily whole) that add `growth` to each until the mixture has 1/β; None where they would never do.

    ln E is convex in their number, so that Newton's steps from the right end at the answer.
    """
    target = -math.log(risk)
    if log_mean(members) >= target:
        return 0.0
    if max(growth) <= 0:
        return None
    more = min((target + math.log(len(members)) - one) / slope for one, slope in zip(members, growth, strict=True) if slope > 0)
    for _ in range(50):
        terms = [one + slope * more for one, slope in zip(members, growth, strict=True)]
        value = log_mean(terms)
        top = max(terms)
        weights = [math.exp(term - top) for term in terms]
        rise = sum(w * slope for w, slope in zip(weights, growth, strict=True)) / sum(weights)
        if rise <= 0 or value - target < 1e-9:
            break
        more -= (value - target) / rise
    return more

"""Evidence that the canary is good enough: non-inferiority, the tests the other way round.

H0′: the canary's bad share is at least stable's + margin; and, where there is a limit, at least the limit. Each has its e-value, and both
must be refuted: E′ = min. Absolute: the likelihood ratio against p0, mixed over odds multipliers below 1. Relative: the two-sample
e-value with δ = margin and guesses a of m × the odds of b + margin, mixed over the same multipliers.
Evidence of n clean requests is at most (1 − p0)^−n: "under 1 %" with β = 5 % takes 299 of them at least.

Symbols: p0 limit, β risk of a wrong promotion, K, N bad and all canary requests.
Source: as `likelihood` and `twosample`; S. Wellek, "Testing Statistical Hypotheses of Equivalence and Noninferiority" (2010), ch. 6.
"""

import math
from dataclasses import dataclass

from .likelihood import log_ratios
from .logspace import log_mean
from .odds import BETTER, inside, share_at
from .twosample import Pair, log_es

MOST_MORE = 10**9


@dataclass(frozen=True)
class Promotion:
    """ln of each member's product, against the limit and against stable."""

    ln_absolute: tuple[float, ...] = (0.0,) * len(BETTER)
    ln_relative: tuple[float, ...] = (0.0,) * len(BETTER)


def with_evidence(state: Promotion, *, block: Pair, allowed: float | None, b: float, margin: float) -> Promotion:
    """One more block, bursts divided out of its counts already; `b` is the guess of stable's share from past blocks."""
    absolute = state.ln_absolute
    if allowed is not None:
        ratios = log_ratios(bad=block.canary_bad, total=block.canary_total, allowed=allowed, multipliers=BETTER)
        absolute = tuple(one + e for one, e in zip(absolute, ratios, strict=True))
    null = inside(b + margin)
    guesses = [inside(share_at(m, of=null)) for m in BETTER]
    ln_e = log_es(block, guesses=guesses, b=b, delta=margin)
    relative = tuple(one + e for one, e in zip(state.ln_relative, ln_e, strict=True))
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


def more_needed(state: Promotion, *, allowed: float, share: float, risk: float) -> int | None:
    """How many more requests with the bad share `share` until the absolute test has 1/β; None where they would never do.

    ln E is convex in the number of requests, so that Newton's steps from the right end at the answer.
    """
    target = -math.log(risk)
    slopes = tuple(log_ratios(bad=share, total=1.0, allowed=allowed, multipliers=BETTER))
    best = max(slopes)
    if log_mean(state.ln_absolute) >= target:
        return 0
    if best <= 0:
        return None
    more = min((target + math.log(len(BETTER)) - one) / slope for one, slope in zip(state.ln_absolute, slopes, strict=True) if slope > 0)
    for _ in range(50):
        terms = [one + slope * more for one, slope in zip(state.ln_absolute, slopes, strict=True)]
        value = log_mean(terms)
        top = max(terms)
        weights = [math.exp(term - top) for term in terms]
        growth = sum(w * slope for w, slope in zip(weights, slopes, strict=True)) / sum(weights)
        if growth <= 0 or value - target < 1e-9:
            break
        more -= (value - target) / growth
    return min(MOST_MORE, max(1, math.ceil(more - 1e-6)))

"""The latency-budget matrix: who answers until when, where every tier before has taken all of its time. A table for people. PURE."""

from collections.abc import Sequence
from typing import Final, assert_never

from .chain import content_deadline
from .revision import AnyTier, CacheTier, HumanTier, ModelTier, Revision, RulesTier, StaticTier, model_of

_HEAD: Final = ("TIER", "KIND", "ANSWERS", "FROM ms", "UNTIL ms", "LEFT ms", "TRIES", "CAN", "WINDOW", "EMBEDDINGS")
_NUMBERS: Final = ("FROM ms", "UNTIL ms", "LEFT ms", "TRIES", "WINDOW", "HEDGE ms")
_HEDGE: Final = "HEDGE ms"  # where there is any
_NOTHING: Final = "-"


def latency_matrix(revision: Revision) -> str:
    """The policy's chain, a line for each tier, times from when the request is there.

    `FROM` and `UNTIL`: when the tier's turn begins at the latest, and when it ends; `LEFT`: of the budget, for those after it; `HEDGE`:
    how long after its beginning the next model's turn begins beside it.
    """
    hedges = any(isinstance(tier, ModelTier) and tier.hedge_after is not None for tier in revision.tiers)
    rows, free = (
        [(*_HEAD, _HEDGE) if hedges else _HEAD],
        0.0 if revision.cache is None else revision.cache.look_up,
    )  # when all before it have taken all of their time
    beside: float | None = None  # when the next model begins, where that is sooner
    for tier in revision.tiers:
        begins = ends = free
        if isinstance(tier, ModelTier):
            begins = free if beside is None else min(free, beside)
            ends = max(begins, content_deadline(tier, now=begins, budget_end=revision.budget))
            beside = None if tier.hedge_after is None else begins + tier.hedge_after
            free = max(free, ends)
        row = (tier.name, *_kind(tier), _ms(begins), _ms(ends), _ms(revision.budget - ends), *_able(tier))
        rows.append((*row, _hedge(tier)) if hedges else row)
    heading = (
        f"policy {revision.namespace}/{revision.policy}, prompt version {revision.prompt_version}, revision {revision.name}, "
        f"budget {_ms(revision.budget)} ms"
    )
    return "\n".join([heading, "", *_aligned(rows), "", _ending(revision), ""])


def _kind(tier: AnyTier) -> tuple[str, str]:
    match tier:
        case ModelTier():
            return "model", model_of(tier)
        case CacheTier():
            return "cache", "what it has kept"
        case StaticTier():
            return "static", model_of(tier)
        case RulesTier():
            return "rules", model_of(tier)
        case HumanTier():
            return "human", model_of(tier)
        case _:
            assert_never(tier)


def _able(tier: AnyTier) -> tuple[str, str, str, str]:
    if not isinstance(tier, ModelTier):
        return _NOTHING, _NOTHING, _NOTHING, _NOTHING
    able = "all" if tier.able is None else ",".join(sorted(tier.able)) or "text"
    window = _NOTHING if tier.window is None else str(tier.window)
    return str(1 + tier.retries), able, window, tier.embedding_model or _NOTHING


def _hedge(tier: AnyTier) -> str:
    return _NOTHING if not isinstance(tier, ModelTier) or tier.hedge_after is None else _ms(tier.hedge_after)


def _ending(revision: Revision) -> str:
    """What becomes of a request for which nobody before had an answer."""
    last = revision.tiers[-1]
    if isinstance(last, StaticTier):
        return f"The chain is total: `{last.name}` answers whatever happens before it."
    return (
        "The chain is not total: when no tier answers, the caller gets the first target's error. A `static` tier at its end would answer."
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        named = zip(rows[0], row, widths, strict=True)
        cells = [cell.rjust(width) if name in _NUMBERS else cell.ljust(width) for name, cell, width in named]
        lines.append("  ".join(cells).rstrip())
    return lines

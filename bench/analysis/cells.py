"""The cells of the table: which truth, which judges, and what the design promises of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from statistics import NormalDist

from backstop.analysis.sequential.rule import AtMost, NoMoreThanStable

from .bounds import divergence, information
from .judges import KAYENTA, PLANNED_SECONDS, Judge, OurMeans, Ours, Shipped, others, shipped
from .streams import STABLE_PER_CANARY, THOUSANDTHS, Share, Truth, always

RATES = (1, 10, 100)
# The two rows of the plot.
HEALTHY, DETECTED = "healthy, 0.5 %", "0.5 → 2 %"
LIMIT = 0.01
INCREASE = 0.0005
RISK = 0.005
OURS_LIMIT = "Sequential tests, limit of 1 %"
OURS_INCREASE = "Sequential tests, increase of 0.05 points"
# Where little is known of stable.
ALONE = {"Sequential tests, limit of 1 %, beside nothing": Ours(AtMost(LIMIT), alone=True)}
UNREAD = {
    "Sequential tests, limit of 1 %, without a history": Ours(AtMost(LIMIT), history=False),
    "Sequential tests, increase of 0.05 points, without a history": Ours(NoMoreThanStable(INCREASE), history=False),
}
# A latency that is lognormal: 1 % of stable's and 5 % of the canary's requests are over the limit, 1.3 times as slow.
TAIL_MULTIPLES = (2 / 3, 4 / 3, 5 / 3, 2.0, 3.0)


@dataclass(frozen=True)
class Cell:
    """One row: `onset` None is a healthy canary, whose rollbacks are counted; else the seconds at which it turns bad.

    `targets`: by request rate, most false rollbacks (a share) or longest median time to detection in seconds. `bounds`: Wald's, in
    canary requests, by judge.
    """

    what: str
    truth: Truth
    judges: Mapping[str, Judge]
    onset: float | None = None
    targets: Mapping[int, float] | None = None
    bounds: Mapping[str, float] | None = None
    seconds: float = PLANNED_SECONDS


def cells() -> list[Cell]:
    """All rows, false rollbacks first."""
    return [*_healthy(), *_worse(), *_sustained(), *_sustained_increase(), *_warm_caches(), *_means()]


def _healthy() -> list[Cell]:
    promised = dict.fromkeys(RATES, RISK)
    both = _all()
    increase = {name: judge for name, judge in both.items() if name != OURS_LIMIT}
    ours = {name: both[name] for name in (OURS_LIMIT, OURS_INCREASE)}
    fine = always(0.005)
    return [
        Cell(HEALTHY, Truth(fine, fine), both, targets=promised),
        Cell("canary at the limit of 1 %, stable 0.5 %", Truth(always(LIMIT), fine), {OURS_LIMIT: both[OURS_LIMIT]}, targets=promised),
        Cell("drift, 0.25 % to 1 % and back", Truth(_drift, _drift), both, targets=promised),
        Cell("shared incident, 10 % for 5 min", Truth(_incident, _incident), both, targets=promised),
        Cell("bursts, ICC 0.02", Truth(fine, fine, correlation=0.02), both, targets=promised),
        Cell("bursts, ICC 0.1", Truth(fine, fine, correlation=0.1), both, targets=promised),
        Cell("bursts, ICC 0.1, which stable's ten pods have at once", Truth(fine, fine, correlation=0.1, pods=10), ours, targets=promised),
        Cell("bursts, ICC 0.1, and nothing on stable", Truth(fine, fine, correlation=0.1), ALONE, targets=promised),
        Cell("bursts, ICC 0.1, and stable's history is not known", Truth(fine, fine, correlation=0.1), UNREAD),
        Cell("bursts of 25 s in each arm by itself, ICC 0.02", Truth(fine, fine, correlation=0.02, stays=0.8), ours),
        Cell("waves of two minutes in both arms, 0.1 % to 0.9 %", Truth(_waves, _waves), increase),
        Cell("gaps, one scrape of five fails", Truth(fine, fine, missing=0.2), both, targets=promised),
    ]


def _worse() -> list[Cell]:
    fine = always(0.005)
    judges = _all()
    ours = {name: judges[name] for name in (OURS_LIMIT, OURS_INCREASE)}
    tails, several = _tails()
    one_bound: dict[str, Judge] = {
        "Sequential tests, increase of 0.5 points, at the limit": Ours(NoMoreThanStable(0.005)),
        "Sequential tests, increase of 0.05 points, at the limit": Ours(NoMoreThanStable(INCREASE)),
    }
    limited: dict[str, Judge] = {"Sequential tests, limit of 2 %": Ours(AtMost(0.02))}
    limited_bounds = {name: _bound_of_limit(0.05, b=0.01, limit=0.02) for name in limited}
    latency_bounds = {name: _bound(0.05, b=0.01, delta=delta) for name, delta in zip(one_bound, (0.005, INCREASE), strict=True)}
    return [
        Cell(DETECTED, Truth(always(0.02), fine), judges, 0.0, {1: 660, 10: 70, 100: 10}, _both_bounds(0.02)),
        Cell("0.5 → 10 %", Truth(always(0.1), fine), judges, 0.0, {1: 55, 10: 10, 100: 5}, _both_bounds(0.1)),
        Cell("outage", Truth(always(1.0), fine), judges, 0.0, {1: 10, 10: 5, 100: 5}, _both_bounds(1.0)),
        Cell("outage at 600 s, and nothing on stable", Truth(_late(1.0, at=600.0), fine), ALONE, 600.0, seconds=900.0),
        Cell("0.5 → 2 %, at 600 s", Truth(_late(0.02, at=600.0), fine), judges, 600.0, {1: 820, 10: 110, 100: 15}),
        Cell("0.5 → 10 %, an hour after an incident that both shared", Truth(_hour_later, _incident), ours, 4500.0, seconds=5400.0),
        Cell("0.5 → 10 %, at 2 h, four times the plan", Truth(_late(0.1, at=7200.0), fine), ours, 7200.0, seconds=9000.0),
        Cell(
            "outage at 600 s, bursts of 25 s in each arm by itself, ICC 0.02",
            Truth(_late(1.0, at=600.0), fine, correlation=0.02, stays=0.8),
            ours,
            600.0,
            seconds=900.0,
        ),
        Cell(
            "over 150 ms 1 → 5 %, 1.3 × as slow, six bounds",
            Truth(always(0.05), always(0.01), tails=tails),
            {"Sequential tests, increase of 0.5 points, six bounds": several},
            0.0,
            {1: 220, 10: 25, 100: 5},
        ),
        Cell("over 150 ms 1 → 5 %, two increases", Truth(always(0.05), always(0.01)), one_bound, 0.0, bounds=latency_bounds),
        Cell("over 150 ms 1 → 5 %, a limit", Truth(always(0.05), always(0.01)), limited, 0.0, bounds=limited_bounds),
        Cell("0.5 → 2 %, watched for 2 h", Truth(always(0.02), fine), ours, 0.0, bounds=_both_bounds(0.02), seconds=7200.0),
    ]


def _sustained() -> list[Cell]:
    judge: dict[str, Judge] = {
        "Backstop's threshold, 5 % for 30 s": Shipped(Fraction(5, 100), for_seconds=30),
        "Sequential tests, limit of 5 % for 30 s": Ours(AtMost(0.05), for_seconds=30),
    }
    fine = always(0.01)

    def row(what: str, share: float, targets: Mapping[int, float]) -> Cell:
        return Cell(f"{what} from 100 s on", Truth(_late(share, at=100.0), fine), judge, 100.0, targets)

    return [
        Cell("canary at the limit of 5 %, stable 1 %, for 30 s", Truth(always(0.05), fine), judge, targets=dict.fromkeys(RATES, RISK)),
        Cell("25 s of total failure", Truth(_blip, fine), judge, targets=dict.fromkeys(RATES, RISK), seconds=300.0),
        Cell("two failures of 20 s, 30 s apart", Truth(_blips, fine), judge, targets=dict.fromkeys(RATES, RISK), seconds=300.0),
        row("outage", 1.0, dict.fromkeys(RATES, 35.0)),
        row("1 → 20 %", 0.2, {1: 90, 10: 35}),
        row("1 → 10 %", 0.1, {10: 70}),
    ]


def _sustained_increase() -> list[Cell]:
    """What must last beside a stable that changes, or shows at a lower latency bound than the limit alone."""
    lasting: dict[str, Judge] = {"Sequential tests, increase of 0.05 points for 30 s": Ours(NoMoreThanStable(INCREASE), for_seconds=30)}
    fine, promised = always(0.005), dict.fromkeys(RATES, RISK)
    # Over the limit 2 % on both, over a higher bound 0.5 %; over a lower one three times as many of the canary's.
    lower: dict[str, Judge] = {
        "Sequential tests, increase of 0.5 points, three bounds": Ours(NoMoreThanStable(0.005), comparisons=3),
        "Sequential tests, increase of 0.5 points for 30 s, three bounds": Ours(NoMoreThanStable(0.005), for_seconds=30, comparisons=3),
    }
    both = _all()
    moved: dict[str, Judge] = {name: both[name] for name in (OURS_LIMIT, OURS_INCREASE)} | lasting
    return [
        Cell("healthy, 0.5 %, for 30 s", Truth(fine, fine), lasting, targets=promised),
        Cell("drift, 0.25 % to 1 % and back, for 30 s", Truth(_drift, _drift), lasting, targets=promised),
        Cell("10 → 30 % over a lower bound alone", Truth(always(0.02), always(0.02), tails=((0.3, 0.1), (0.005, 0.005))), lower, 0.0),
        Cell("1 → 3 %, stable had 5 % before the canary came", Truth(always(0.03), _fallen), moved, 0.0),
        Cell("1 → 3 %, stable had 5 % until five minutes before", Truth(always(0.03), always(0.01), before=_fell_before), moved, 0.0),
        Cell("1 → 3 %, stable had 5 % for a minute more", Truth(always(0.03), _fell_after, before=always(0.05)), moved, 0.0),
        Cell("1 → 3 %, stable had 1 % before, too", Truth(always(0.03), always(0.01)), moved, 0.0),
    ]


def _warm_caches() -> list[Cell]:
    """The same model on both; stable answers two of five requests from its cache at once, and the canary none."""
    judges, promised = _all(), dict.fromkeys(RATES, RISK)
    # A threshold on the canary's own share asks nothing of stable, and its row would be that of no cache.
    beside = {name: judges[name] for name in (OURS_INCREASE, KAYENTA)}

    def row(what: str, share: float, judges: Mapping[str, Judge]) -> Cell:
        return Cell(what, Truth(always(share), always(share), cached=0.4), judges, targets=promised)

    return [
        row("0.5 % of what the model is asked for, two fifths hidden by stable's warm cache", 0.005, beside),
        row("1.25 % of what the model is asked for, 0.75 % of all with stable's warm cache", 0.0125, judges),
        Cell("0.5 → 2 % of what the model is asked for, stable's cache warm", Truth(always(0.02), always(0.005), cached=0.4), beside, 0.0),
    ]


def _means() -> list[Cell]:
    """What a request comes to, against a target of 1: single requests vary by 1.4 times their mean, in the skewed row by 4.5 times."""
    judges: dict[str, Judge] = {"Sequential tests, mean of at most 1": OurMeans(1.0), **others(limit=THOUSANDTHS)}
    ours = {name: judges[name] for name in list(judges)[:1]}
    promised = dict.fromkeys(RATES, RISK)

    def row(
        what: str, canary: Share, stable: Share, judges: Mapping[str, Judge], *, shape: float = 0.5, onset: float | None = None
    ) -> Cell:
        return Cell(f"means: {what}", Truth(canary, stable, shape=shape), judges, onset, targets=promised if onset is None else None)

    return [
        row("0.9 of the target", always(0.9), always(0.9), judges),
        row("canary at the very target, stable at 0.9", always(1.0), always(0.9), ours),
        row("canary at the very target, skewed", always(1.0), always(0.9), ours, shape=0.05),
        row("incident that both share, 1.5 times the target for 5 min", _dear, _dear, judges),
        row("0.8 → 1.5 times the target", always(1.5), always(0.8), judges, onset=0.0),
        row("0.8 → 3 times the target", always(3.0), always(0.8), judges, onset=0.0),
        row("0.8 → 1.5 times the target, at 600 s", _dear_late, always(0.8), judges, onset=600.0),
    ]


def _all() -> dict[str, Judge]:
    """What judges by a limit of 1 % first."""
    return {
        **shipped(limit=Fraction(1, 100)),
        OURS_LIMIT: Ours(AtMost(LIMIT)),
        OURS_INCREASE: Ours(NoMoreThanStable(INCREASE)),
        **others(limit=LIMIT),
    }


def _bound(a: float, *, b: float, delta: float) -> float:
    return math.log(1 / RISK) / information(a, b=b, ratio=STABLE_PER_CANARY, delta=delta)


def _bound_of_limit(a: float, *, b: float, limit: float) -> float:
    """Both tests must be refuted: the greater of the two bounds."""
    return max(math.log(1 / RISK) / divergence(a, q=limit), _bound(a, b=b, delta=0.1 * limit))


def _both_bounds(a: float) -> dict[str, float]:
    return {OURS_INCREASE: _bound(a, b=0.005, delta=INCREASE), OURS_LIMIT: _bound_of_limit(a, b=0.005, limit=LIMIT)}


def _tails() -> tuple[tuple[tuple[float, float], ...], Judge]:
    normal = NormalDist()
    over, slow = normal.inv_cdf(0.99), normal.inv_cdf(0.95)
    sigma = math.log(1.3) / (over - slow)
    tails = tuple(
        (1 - normal.cdf(slow + math.log(multiple) / sigma), 1 - normal.cdf(over + math.log(multiple) / sigma))
        for multiple in TAIL_MULTIPLES
    )
    return tails, Ours(NoMoreThanStable(0.005), comparisons=1 + len(tails))


def _late(share: float, *, at: float) -> Share:
    return lambda t: share if t >= at else (0.01 if at == 100.0 else 0.005)


def _blip(t: float) -> float:
    return 1.0 if 100.0 <= t < 125.0 else 0.01


def _blips(t: float) -> float:
    return 1.0 if 100.0 <= t < 120.0 or 150.0 <= t < 170.0 else 0.01


def _hour_later(t: float) -> float:
    return 0.1 if t >= 4500.0 else _incident(t)


def _incident(t: float) -> float:
    return 0.1 if 600.0 <= t < 900.0 else 0.005


def _dear(t: float) -> float:
    return 1.5 if 600.0 <= t < 900.0 else 0.8


def _dear_late(t: float) -> float:
    return 1.5 if t >= 600.0 else 0.8


def _drift(t: float) -> float:
    return 0.005 * 2 ** math.sin(2 * math.pi * t / 1200.0)


def _fallen(t: float) -> float:
    """Stable's history is what it has at 0."""
    return 0.05 if t <= 0.0 else 0.01


def _fell_before(t: float) -> float:
    return 0.05 if t < -300.0 else 0.01


def _fell_after(t: float) -> float:
    return 0.05 if t < 60.0 else 0.01


def _waves(t: float) -> float:
    return 0.005 + 0.004 * math.sin(2 * math.pi * t / 120.0)

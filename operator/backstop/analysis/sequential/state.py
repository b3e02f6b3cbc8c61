"""What a sequential rule remembers of one objective: a fixed number of figures, whatever the number of blocks."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from ..reading import Counts
from ..threshold import Episode
from .bursts import Bursts, Succession
from .odds import BETTER, WORSE
from .promotion import Promotion
from .relative import Relative, Seen, compared
from .restarts import Restarts, started
from .window import SPANS, Span


@dataclass(frozen=True)
class Older:
    """What the generation before knew of bursts, and what it saw at each bound that is compared (`memory`)."""

    bursts: Bursts
    succession: Succession
    seen: tuple[Seen, ...]


@dataclass(frozen=True)
class SequentialState:
    """State of one objective.

    `absolute`, `stable_absolute`: against the limit, of the canary and of stable. `relatives`: canary against stable, at the limit and at
    each further latency bound. `history`: stable's bad and all requests of before the canary. `drift`: the running sum by which the
    beginning of a regression is told. `newest_is_bad`: of the newest block with a request; `seen_until`: its end.
    `followed`: at which of `relatives` a breach is dated and told, 0 for the limit (`following`); what the window and the episode count.
    `remembered`: seconds that `bursts`, `succession` and what the comparisons saw are of; `older`: the same of before.
    """

    absolute: Restarts
    stable_absolute: Restarts
    relatives: tuple[Relative, ...]
    promotion: Promotion
    bursts: Bursts
    succession: Succession
    window: tuple[Span, ...] = ()
    episode: Episode | None = None
    history: Counts = field(default_factory=Counts)
    drift: float = 0.0
    newest_is_bad: bool = False
    seen_until: float = 0.0
    followed: int = 0
    remembered: float = 0.0
    older: Older | None = None


def nothing_seen(*, comparisons: int) -> SequentialState:
    """Before the first block; `comparisons`: latency bounds that are compared, 1 for everything else."""
    return SequentialState(
        absolute=started(len(WORSE)),
        stable_absolute=started(len(WORSE)),
        relatives=tuple(compared() for _ in range(comparisons)),
        promotion=Promotion(),
        bursts=Bursts(),
        succession=Succession(),
    )


def to_numbers(state: SequentialState, *, origin: float) -> list[float]:
    """The state as a flat list; times are seconds before `origin`. Minus infinity (nothing at work) is one of the figures."""
    # One figure for two, so that older versions read this, and their states are read.
    flags = int(state.newest_is_bad) + 2 * state.followed
    numbers: list[float] = [len(state.relatives), state.drift, flags, origin - state.seen_until]
    numbers += _restarts_out(state.absolute)
    numbers += _restarts_out(state.stable_absolute)
    for one in state.relatives:
        seen = one.seen
        numbers += [one.ln_plug_in, *_restarts_out(one.restarts)]
        numbers += [seen.canary_bad, seen.canary_total, seen.stable_bad, seen.stable_total]
    numbers += [*state.promotion.ln_absolute, *state.promotion.ln_relative]
    b, s = state.bursts, state.succession
    numbers += [b.bad, b.total, b.bad_squares, b.products, b.total_squares]
    numbers += [s.blocks, s.sum, s.squares, s.products, s.newest, s.inverses]
    numbers += [state.history.bad, state.history.total, len(state.window)]
    for span in state.window:
        numbers += [span.seconds, span.canary.bad, span.canary.total, span.stable.bad, span.stable.total]
    if (episode := state.episode) is not None:
        numbers += [origin - episode.first_bad, origin - episode.newest_bad, episode.canary.bad, episode.canary.total]
        numbers += [] if episode.stable is None else [episode.stable.bad, episode.stable.total]
    return numbers


def memory_to_numbers(state: SequentialState) -> list[float]:
    """What `to_numbers` leaves out: how old what is remembered is, and what is remembered of before that."""
    if (older := state.older) is None:
        return [state.remembered]
    b, s = older.bursts, older.succession
    numbers = [state.remembered, b.bad, b.total, b.bad_squares, b.products, b.total_squares]
    numbers += [s.blocks, s.sum, s.squares, s.products, s.newest, s.inverses]
    for seen in older.seen:
        numbers += [seen.canary_bad, seen.canary_total, seen.stable_bad, seen.stable_total]
    return numbers


def with_memory(state: SequentialState, *, numbers: Sequence[float]) -> SequentialState:
    """The state with what `memory_to_numbers` gave. Raises ValueError for anything else."""
    if not all(map(math.isfinite, numbers)) or len(numbers) not in (1, 12 + 4 * len(state.relatives)):
        raise ValueError("what an objective remembers is damaged")
    remembered, *rest = numbers
    if not rest:
        return replace(state, remembered=remembered)
    left = iter(rest)
    bursts = Bursts(*(next(left) for _ in range(5)))
    succession = _succession_in(left)
    older = Older(bursts=bursts, succession=succession, seen=tuple(Seen(*(next(left) for _ in range(4))) for _ in state.relatives))
    return replace(state, remembered=remembered, older=older)


def from_numbers(numbers: Sequence[float], *, origin: float) -> SequentialState:
    """The inverse of `to_numbers`. Raises ValueError for anything that it cannot have written."""
    if any(math.isnan(number) for number in numbers):
        raise ValueError("the state of an objective has a figure that is no number")
    left = iter(numbers)
    try:
        state = _state_in(left, origin=origin)
    except RuntimeError as error:  # what a generator makes of the end of another
        raise ValueError("the state of an objective ends too early") from error
    except (StopIteration, OverflowError):
        raise ValueError("the state of an objective ends too early, or has a count without end") from None
    if next(left, None) is not None:
        raise ValueError("the state of an objective goes on after its end")
    return state


def _state_in(left: Iterator[float], *, origin: float) -> SequentialState:
    comparisons, drift, flags = int(next(left)), next(left), int(next(left))
    seen_until = origin - next(left)
    absolute, stable_absolute = _restarts_in(left), _restarts_in(left)
    relatives = tuple(_relative_in(left) for _ in range(_bounded(comparisons, most=MOST_COMPARISONS)))
    promotion = Promotion(
        ln_absolute=tuple(next(left) for _ in BETTER),
        ln_relative=tuple(next(left) for _ in BETTER),
    )
    bursts = Bursts(*(next(left) for _ in range(5)))
    succession = _succession_in(left)
    history = _counts_in(left)
    window = tuple(
        Span(seconds=next(left), canary=_counts_in(left), stable=_counts_in(left)) for _ in range(_bounded(int(next(left)), most=SPANS))
    )
    return SequentialState(
        absolute=absolute,
        stable_absolute=stable_absolute,
        relatives=relatives,
        promotion=promotion,
        bursts=bursts,
        succession=succession,
        window=window,
        episode=_episode_in(list(left), origin=origin),
        history=history,
        drift=drift,
        newest_is_bad=flags % 2 == 1,
        seen_until=seen_until,
        followed=_bounded(flags // 2, most=max(0, comparisons - 1)),
    )


# Bounds that are compared at most: with more, six objectives would not fit into a policy's status.
MOST_COMPARISONS = 8


def _bounded(number: int, *, most: int) -> int:
    if not 0 <= number <= most:
        raise ValueError(f"the state of an objective has {number} of what there are {most} of at most")
    return number


def _restarts_out(state: Restarts) -> list[float]:
    return [state.blocks, *state.ln_capital]


def _restarts_in(left: Iterator[float]) -> Restarts:
    blocks = int(next(left))
    return Restarts(ln_capital=tuple(next(left) for _ in WORSE), blocks=blocks)


def _succession_in(left: Iterator[float]) -> Succession:
    blocks, total, squares, products, newest, inverses = int(next(left)), *(next(left) for _ in range(5))
    return Succession(blocks=blocks, sum=total, squares=squares, products=products, newest=newest, inverses=inverses)


def _relative_in(left: Iterator[float]) -> Relative:
    ln_plug_in, restarts = next(left), _restarts_in(left)
    return Relative(ln_plug_in=ln_plug_in, restarts=restarts, seen=Seen(*(next(left) for _ in range(4))))


def _counts_in(left: Iterator[float]) -> Counts:
    return Counts(bad=int(next(left)), total=int(next(left)))


def _episode_in(left: list[float], *, origin: float) -> Episode | None:
    match left:
        case []:
            return None
        case [first, newest, bad, total, *stable] if len(stable) in (0, 2) and all(map(math.isfinite, left)):
            return Episode(
                first_bad=origin - first,
                newest_bad=origin - newest,
                canary=Counts(bad=int(bad), total=int(total)),
                stable=Counts(bad=int(stable[0]), total=int(stable[1])) if stable else None,
            )
        case _:
            raise ValueError("the episode of an objective is damaged")

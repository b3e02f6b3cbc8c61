"""A state with fewer digits, where many objectives must fit into little room. Knows which figures bear it.

Logarithms of evidence do: what is near a threshold is a small figure, and keeps its digits. Sums that are subtracted from each other
(`bursts`) do not, and counts are told.
"""

import math
from collections.abc import Iterable
from dataclasses import replace

from .restarts import Restarts
from .state import SequentialState


def coarser(state: SequentialState, *, digits: int) -> SequentialState:
    """The state, with so many significant digits (two or more) of each logarithm."""
    promotion = state.promotion
    return replace(
        state,
        absolute=_restarts(state.absolute, digits=digits),
        stable_absolute=_restarts(state.stable_absolute, digits=digits),
        relatives=tuple(
            replace(one, ln_plug_in=significant(one.ln_plug_in, digits=digits), restarts=_restarts(one.restarts, digits=digits))
            for one in state.relatives
        ),
        promotion=replace(
            promotion, ln_absolute=_all(promotion.ln_absolute, digits=digits), ln_relative=_all(promotion.ln_relative, digits=digits)
        ),
    )


def significant(number: float, *, digits: int) -> float:
    """The number to so many significant digits; of one below 1, so many after the point; never above it, so that nothing is won by it.

    What is not finite stays.
    """
    if not math.isfinite(number) or number == 0:
        return number
    places = max(0, digits - 1 - max(0, math.floor(math.log10(abs(number)))))
    rounded = round(number, places)
    return rounded if rounded <= number else round(rounded - 10**-places, places)


def _restarts(state: Restarts, *, digits: int) -> Restarts:
    return replace(state, ln_capital=_all(state.ln_capital, digits=digits))


def _all(numbers: Iterable[float], *, digits: int) -> tuple[float, ...]:
    return tuple(significant(number, digits=digits) for number in numbers)

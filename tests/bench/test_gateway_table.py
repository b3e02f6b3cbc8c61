"""The gateway bench's table: medians of the rounds, and ratios of what was measured together."""

from bench.gateway.calls import Calls, Spread
from bench.gateway.measure import Figures
from bench.gateway.table import Round, table

NOTHING = Spread(0.0, 0.0, 0)


def figures(name: str, per_second: float, *, tokens: float | None = None) -> Figures:
    found = Figures(name, "1", whole={32: Calls(per_second, 0.0, NOTHING, NOTHING, NOTHING, NOTHING)})
    if tokens is not None:
        found.streams = Calls(0.0, tokens, NOTHING, NOTHING, NOTHING, NOTHING)
    return found


def row(text: str, what: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {what} ")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_a_figure_is_the_median_of_its_rounds_and_a_ratio_of_what_was_measured_in_the_same_one() -> None:
    # A machine that is twice as fast for one round changes no ratio.
    rounds = [Round(figures("direct", 90_000), [figures("A", a), figures("B", b)]) for a, b in ((1000, 20), (2000, 40), (1200, 20))]
    assert row(table(rounds), "requests/s, 32 connections") == ["90,000", "1,200", "20", "50.0 (50.0…60.0)"]


def test_one_round_has_no_spread_and_what_a_stack_did_not_do_is_left_empty_and_told_once() -> None:
    lame = figures("B", 20)
    lame.notes.append("B: it does not stream")
    one = Round(figures("direct", 9000, tokens=8000), [figures("A", 1000, tokens=2000), lame])
    text = table([one])
    assert row(text, "requests/s, 32 connections") == ["9,000", "1,000", "20", "50.0"]
    assert row(text, "tokens/s, 32 streams") == ["8,000", "2,000", "", ""]
    assert "The ceiling is 9.0 times the best of ours: enough. Of tokens/s it is 4.0 times the best of ours: enough." in text
    assert table([one, one]).count("B: it does not stream") == 1


def test_a_ceiling_that_is_too_near_is_told() -> None:
    assert "2.0 times the best of ours: **too little to tell**" in table([Round(figures("direct", 2000), [figures("A", 1000)])])

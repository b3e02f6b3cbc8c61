"""When a policy is asked for again: not before its next block can close."""

import pytest

from backstop.analysis.due import due_at
from backstop.analysis.samples import Counter, NoData, Sample, Series
from backstop.analysis.state import AnalysisState, target_key

SCRAPE = 5.0
NOW = 1000.0


def answer(**newest: float) -> Sample:
    """Targets, each with its newest sample."""
    return Sample(tuple(Series(target, Counter("served", "r1"), ((at - SCRAPE, 1.0), (at, 2.0))) for target, at in newest.items()))


def state(**watermarks: float) -> AnalysisState:
    return AnalysisState(watermarks={target_key(target): at for target, at in watermarks.items()})


@pytest.mark.parametrize(
    ("newest", "watermarks", "due"),
    [
        # A block has just closed: the next one does with the target that was scraped last.
        ({"a": 996.0, "b": 999.0}, {"a": 996.0, "b": 999.0}, 1004.0),
        # One target has given its next sample; the other is waited for.
        ({"a": 999.0, "b": 996.5}, {"a": 994.0, "b": 996.5}, 1001.5),
        # The sample that is waited for is late: as soon as may be.
        ({"a": 999.0, "b": 994.0}, {"a": 994.0, "b": 994.0}, 999.0),
        # A target that fell silent holds nobody up.
        ({"a": 998.0, "gone": 700.0}, {"a": 998.0, "gone": 700.0}, 1003.0),
        # A target that is new has no watermark.
        ({"a": 998.0, "new": 999.0}, {"a": 998.0}, 1003.0),
        # A clock that is ahead of this one.
        ({"a": 1060.0}, {"a": 1060.0}, NOW + SCRAPE),
    ],
)
def test_a_policy_is_asked_for_again_when_its_next_block_can_close(
    newest: dict[str, float], watermarks: dict[str, float], due: float
) -> None:
    assert due_at(answer(**newest), state=state(**watermarks), now=NOW, scrape_interval=SCRAPE) == due


@pytest.mark.parametrize(("fetched", "known"), [(NoData("none"), state(a=999.0)), (answer(a=999.0), AnalysisState())])
def test_without_samples_or_a_closed_block_it_is_asked_at_every_poll(fetched: Sample | NoData, known: AnalysisState) -> None:
    assert due_at(fetched, state=known, now=NOW, scrape_interval=SCRAPE) == NOW

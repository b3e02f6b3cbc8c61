"""What scorers say: a label, and a score where there is one. PURE."""

from dataclasses import dataclass
from typing import Final

from ...api.metricnames import QualityLabel


@dataclass(frozen=True)
class Verdict:
    """Of one scorer on one answer. `score`: from 0 to 1; None: there is none."""

    label: QualityLabel
    score: float | None = None


SKIPPED: Final = Verdict(QualityLabel.SKIP)
NO_VERDICT: Final = Verdict(QualityLabel.ERROR)
PASSED: Final = Verdict(QualityLabel.PASS)
FAILED: Final = Verdict(QualityLabel.FAIL)


def scored(score: float, *, fail_below: float) -> Verdict:
    """A verdict by its score."""
    return Verdict(QualityLabel.FAIL if score < fail_below else QualityLabel.PASS, score)


def over_all(verdicts: list[Verdict]) -> QualityLabel:
    """What several scorers say of one answer together, so that it counts once: the worst, and nothing while one of them gave no verdict.

    To go by those that did would make answers look good, or bad, whenever another one is down.
    """
    labels = {verdict.label for verdict in verdicts}
    for label in (QualityLabel.ERROR, QualityLabel.FAIL, QualityLabel.PASS):
        if label in labels:
            return label
    return QualityLabel.SKIP

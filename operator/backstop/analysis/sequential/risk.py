"""The risk of a false rollback, split over the tests of a rollout.

threshold_i = 1/(α·w_i) with Σw_i ≤ 1. By Ville's inequality P(E_i ever ≥ 1/(α·w_i)) ≤ α·w_i, and by the union bound the chance that any
test of a healthy rollout ever reaches its threshold is Σα·w_i ≤ α, however the tests depend on each other. Equal weights w_i = 1/tests.
√(1/α), over which no step is passed, is half of the way, in logarithms, to the threshold of a test that is alone: a choice.

Symbols: α `falseRollbackPercent` as a share, E_i evidence of a test, w_i its weight.
Source: J. Ville, "Étude critique de la notion de collectif" (1939), the inequality for non-negative martingales; C. E. Bonferroni,
"Teoria statistica delle classi e calcolo delle probabilità" (1936), the union bound.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Risk:
    """α of the whole rollout (0 < α < 1), over so many tests."""

    share: float
    tests: int

    @property
    def ln_threshold(self) -> float:
        """ln of the evidence at which one test fires."""
        return math.log(self.tests / self.share)

    @property
    def ln_pass(self) -> float:
        """ln √(1/α): with more evidence than this against it a step is not passed."""
        return -0.5 * math.log(self.share)

"""The risk of a false rollback, split over the tests of a rollout.

threshold_i = 1/(α·w_i) with Σw_i ≤ 1; by Ville's inequality and the union bound the chance that any test of a healthy rollout
ever reaches its threshold is α at most. Equal weights w_i = 1/tests.

Symbols: α `falseRollbackPercent` as a share, w_i weight of a test.
Source: J. Ville, "Étude critique de la notion de collectif" (1939); C. E. Bonferroni (1936).
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

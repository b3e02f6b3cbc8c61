"""The block form of the absolute test: bets on whole blocks, valid under any dependence between the requests of a block.

E = mean over λ of Π_t (1 + λ·(x_t/p0 − 1)), where x_t is the block's share k/n, or its mean Δsum/Δcount; blocks without a request
are skipped. H0: the mean of x_t, given all before, is at most p0. A bet λ in (0, 1) on a non-negative x never goes below 1 − λ.

Where nothing is known of how bad requests come in bursts, a limit of a share is bet against so (`log_bets_at`): a stake for each odds
multiplier m of the request form (`likelihood`), λ = (m − 1)·p0 / (1 + (m − 1)·p0), for which 1 + λ·(x/p0 − 1) = (1 + (m − 1)·x) / D_m. A
block of one request is then the same in both, and capital goes on from the one to the other.

Symbols: p0 the limit (share, or mean per request), λ the part of the capital that is bet.
Source: I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting", J. R. Stat. Soc. B 86 (2024),
section 4, capital processes; the mixture over λ is theirs too (hedged capital).
"""

import math
from collections.abc import Sequence

from .odds import WORSE

STAKES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)
LN_STAKE_WEIGHTS = tuple(-math.log(len(STAKES)) for _ in STAKES)
# A limit of 0 is bet against as against this part of one request (or of one unit).
LEAST_LIMIT = 1e-12


def log_bets(*, mean: float, limit: float) -> tuple[float, ...]:
    """ln (1 + λ·(mean/limit − 1)) of one block for each stake. `mean` is finite and not negative."""
    gain = mean / max(limit, LEAST_LIMIT) - 1
    return tuple(math.log1p(stake * gain) for stake in STAKES)


def log_bets_at(*, share: float, allowed: float, multipliers: Sequence[float] = WORSE) -> tuple[float, ...]:
    """The same of one block's bad share, at the stakes that belong to these odds multipliers. Both shares are from 0 to 1."""
    return tuple(math.log1p((m - 1) * share) - math.log1p((m - 1) * allowed) for m in multipliers)

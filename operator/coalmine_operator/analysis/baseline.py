"""Canary against a frozen baseline: an e-process on the canary's counts alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

#: Weight of the bet's prior, in requests.
CONCENTRATION: Final = 50.0
#: A smaller baseline is no baseline.
LEAST: Final = 1000


def log_e_drift(live: Sequence[int], baseline: Sequence[int]) -> float:
    """Log e-value for "outputs are not distributed like the baseline"; both count the same bins.

    Dirichlet-multinomial around the baseline with weight 50 against the posterior predictive of the baseline's own
    counts (Jeffreys), rather than against the baseline's frequencies as if they were the truth: see
    tests/unit/test_simulation_drift.py for what a sampled baseline does to the latter.
    """
    posterior = [count + 0.5 for count in baseline]
    total = sum(posterior)
    return _dirichlet([CONCENTRATION * a / total for a in posterior], live) - _dirichlet(posterior, live)


def _dirichlet(prior: Sequence[float], counts: Sequence[int]) -> float:
    """Log-probability of a sequence with these counts under a Dirichlet-multinomial."""
    a, n = sum(prior), sum(counts)
    value = math.lgamma(a) - math.lgamma(a + n)
    return value + math.fsum(math.lgamma(p + c) - math.lgamma(p) for p, c in zip(prior, counts, strict=True) if c)

"""How large a difference is, once the e-value says that there is one."""

from __future__ import annotations

import math
from collections.abc import Sequence


def psi(live: Sequence[int], reference: Sequence[int]) -> tuple[float, float]:
    """Population stability index of two lists of counts over the same bins, and the variance of this estimate.

    sum (q - p) ln(q / p) with half a count added to each bin on both sides (Jeffreys), minus what two equal
    distributions show on average, (B - 1)(1/n + 1/m): so it may be below 0. Bins that are empty on both sides are no
    bins. The variance is the delta method's.
    """
    pairs = [(a, b) for a, b in zip(live, reference, strict=True) if a or b]
    n, m = sum(a for a, _ in pairs), sum(b for _, b in pairs)
    if not n or not m:
        return 0.0, 0.0
    half = len(pairs) / 2
    shares = [((a + 0.5) / (n + half), (b + 0.5) / (m + half)) for a, b in pairs]
    value = math.fsum((q - p) * math.log(q / p) for q, p in shares)
    variance = _variance([(q, math.log(q / p) - p / q) for q, p in shares]) / n
    variance += _variance([(p, math.log(p / q) - q / p) for q, p in shares]) / m
    return value - (len(pairs) - 1) * (1 / n + 1 / m), variance


def _variance(weighted: list[tuple[float, float]]) -> float:
    """Of values given with their probabilities."""
    mean = math.fsum(w * x for w, x in weighted)
    return math.fsum(w * (x - mean) ** 2 for w, x in weighted)

"""How large a difference is, once the e-value says that there is one."""

from __future__ import annotations

import math
from collections.abc import Sequence


def psi(live: Sequence[float], reference: Sequence[float]) -> float:
    """Population stability index of two lists of counts over the same bins, corrected for chance; may be below 0.

    sum (q - p) ln(q / p) with half a count added to each bin on both sides (Jeffreys), minus what two equal
    distributions show on average, (B - 1)(1/n + 1/m). Bins that are empty on both sides are no bins.
    """
    pairs = [(a, b) for a, b in zip(live, reference, strict=True) if a or b]
    if len(pairs) < 2:
        return 0.0
    n, m = sum(a for a, _ in pairs), sum(b for _, b in pairs)
    if not n or not m:
        return 0.0
    half = len(pairs) / 2
    total = 0.0
    for a, b in pairs:
        q, p = (a + 0.5) / (n + half), (b + 0.5) / (m + half)
        total += (q - p) * math.log(q / p)
    return total - (len(pairs) - 1) * (1 / n + 1 / m)

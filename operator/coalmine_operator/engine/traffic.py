"""Who gets which share: the steps' wish, bent to who is ready."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence


def share_out(wanted: Mapping[str, int], reserve: Sequence[str], is_ready: Callable[[str], bool]) -> dict[str, int]:
    """Weights (per cent, summing to 100) by revision.

    `wanted` sums to 100. The weight of a revision that is not ready goes to the first ready one of `reserve`, and then
    of those that have a weight (largest first): one that was given none has not earned any. Where nobody is ready,
    everything stays as wanted: there is no better place.
    """
    weights = {name: weight for name, weight in wanted.items() if weight}
    stand_ins = [*reserve, *sorted(weights, key=lambda name: -weights[name])]
    stand_in = next((name for name in stand_ins if is_ready(name)), None)
    if stand_in is None:
        return weights
    shares: dict[str, int] = {}
    for name, weight in weights.items():
        taker = name if is_ready(name) else stand_in
        shares[taker] = shares.get(taker, 0) + weight
    return shares


def pods_for(weight: int, replicas: int) -> int:
    """Pods a canary needs before it may get `weight` per cent of what `replicas` pods of stable carry."""
    return min(replicas, max(1, math.ceil(replicas * weight / 100)))

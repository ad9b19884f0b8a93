"""Bins that cannot tell versions apart: nearly all answers of both lie in one that may hold anything.

With the sidecar's default edges all prices and all counts of tokens are "1.0 or more", in every version: a PSI of 0, of
which nothing follows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from coalmine_sidecar.contract import DEFAULT_EDGES, OutputCounts
from coalmine_sidecar.monitoring import bin_names

from .counts import freeze_bins

#: Why a metric is Unknown.
BINS_CANNOT_TELL: Final = "BinsCannotTell"
#: The share of answers in other bins that changes nothing: an empty answer now and then.
STRAY: Final = 0.05


def blind_bin(canary: OutputCounts, stable: OutputCounts, *, stray: float = STRAY) -> str:
    """The name of the bin that both share and that cannot tell them apart, or empty. Both have the same edges."""
    found = _only_bin(stable.bins, stable.edges, stray)
    if found is None or found != _only_bin(canary.bins, canary.edges, stray):
        return ""
    if _only_numbers(stable, stray) & _only_numbers(canary, stray):
        return ""
    return bin_names(stable.edges)[found]


def recut(bins: Mapping[str, tuple[float, ...]], values: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, ...]]:
    """New edges of those outputs whose `bins` (or default ones) tell nothing of stable's `values`, where others do."""
    return {
        name: edges
        for name, edges in freeze_bins(values).items()
        if _blind_to(values[name], bins.get(name, DEFAULT_EDGES)) and not _blind_to(values[name], edges)
    }


def _blind_to(values: Iterable[float], edges: tuple[float, ...]) -> bool:
    places = Counter(bisect_right(edges, value) for value in values)
    return _only_bin([places[place] for place in range(len(edges) + 1)], edges, STRAY) is not None


def _only_bin(bins: Sequence[int], edges: tuple[float, ...], stray: float) -> int | None:
    """The bin with nearly all counts, if nothing is known of it: an open one, or any of the default ones."""
    if not (total := sum(bins)):
        return None
    fullest = max(range(len(bins)), key=bins.__getitem__)
    known = edges != DEFAULT_EDGES and 0 < fullest < len(edges)
    return None if known or bins[fullest] < (1 - stray) * total else fullest


def _only_numbers(counts: OutputCounts, stray: float) -> set[str]:
    """Of whole numbers, which are counted by name, too: the one that nearly all answers are."""
    least = (1 - stray) * sum(counts.bins)
    return {name for name, count in counts.classes.items() if count >= least and name.removeprefix("-").isdecimal()}

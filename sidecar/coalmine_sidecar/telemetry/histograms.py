"""A histogram as prometheus_client's families take it."""

from __future__ import annotations

from itertools import accumulate

from prometheus_client.samples import Exemplar

from .counters import Histogram

Bucket = tuple[str, float] | tuple[str, float, Exemplar]


def buckets_of(histogram: Histogram) -> list[Bucket]:
    """Upper bounds, cumulative counts, and exemplars, for which only OpenMetrics has a place: its writer takes them."""
    bounds = (*map(repr, histogram.bounds), "+Inf")
    buckets: list[Bucket] = list(zip(bounds, accumulate(histogram.counts), strict=True))
    for at, exemplar in enumerate(histogram.exemplars):
        if exemplar is not None:
            value, trace, seconds = exemplar
            buckets[at] = (*buckets[at][:2], Exemplar({"trace_id": trace.decode("ascii")}, value, seconds))
    return buckets

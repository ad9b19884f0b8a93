"""A histogram as prometheus_client's families take it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.samples import Exemplar

from .counters import Histogram

_Bucket = tuple[str, float] | tuple[str, float, Exemplar]


def add_histogram(family: HistogramMetricFamily, labels: Sequence[str], histogram: Histogram) -> None:
    """Add one series, with its exemplars; only OpenMetrics has a place for these, and its writer takes them."""
    bounds = (*map(repr, histogram.bounds), "+Inf")
    buckets: list[_Bucket] = list(zip(bounds, accumulate(histogram.counts), strict=True))
    for at, exemplar in enumerate(histogram.exemplars):
        if exemplar is not None:
            value, trace, seconds = exemplar
            buckets[at] = (*buckets[at][:2], Exemplar({"trace_id": trace.decode("ascii")}, value, seconds))
    family.add_metric(labels, buckets, histogram.total)

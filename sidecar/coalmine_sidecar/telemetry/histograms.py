"""A histogram as a metric family takes it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from ..families import Exemplar, HistogramMetricFamily
from .counters import Histogram


def add_histogram(family: HistogramMetricFamily, labels: Sequence[str], histogram: Histogram) -> None:
    """Add one series, with its exemplars; only OpenMetrics has a place for these, and its writer takes them."""
    bounds = (*map(repr, histogram.bounds), "+Inf")
    exemplars: list[Exemplar | None] = [None] * len(bounds)
    for at, exemplar in enumerate(histogram.exemplars):
        if exemplar is not None:
            value, trace, seconds = exemplar
            exemplars[at] = Exemplar({"trace_id": trace.decode("ascii")}, value, seconds)
    family.add_metric(labels, list(zip(bounds, accumulate(histogram.counts), exemplars, strict=True)), histogram.total)

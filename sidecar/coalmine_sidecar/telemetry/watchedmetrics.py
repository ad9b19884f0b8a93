"""Everything that monitoring counts of revisions, as metric families."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..families import CounterMetricFamily, GaugeMetricFamily, Metric
from .counters import Series
from .performancemetrics import performance_metrics
from .slices import slice_metrics
from .valuemetrics import feature_metrics, output_metrics

_Labels = tuple[str, ...]


def watched_metrics(names: _Labels, ingress: Sequence[tuple[_Labels, Series]]) -> Iterator[Metric]:
    """`names` are the labels that come first, with their values beside each revision's series."""
    watched = [(labels, series, series.watched) for labels, series in ingress if series.watched is not None]
    if not watched:
        return
    failures = CounterMetricFamily(
        "coalmine_request_read_failures",
        "Requests of which something was not read, or in whose answer no prediction was found.",
        labels=(*names, "reason"),
    )
    series_ = GaugeMetricFamily(
        "coalmine_monitoring_series", "Series that features, slices and performance may become.", labels=names
    )
    limit = GaugeMetricFamily("coalmine_monitoring_series_limit", "Series that they may become at most.", labels=names)
    left_out = GaugeMetricFamily(
        "coalmine_monitoring_left_out", "Features and slices without room in the limit.", labels=(*names, "kind")
    )
    for labels, _, one in watched:
        for reason, count in one.read_failures.items():
            failures.add_metric((*labels, reason), count)
        series_.add_metric(labels, one.series)
        limit.add_metric(labels, one.limit)
        for kind, count in one.left_out.items():
            left_out.add_metric((*labels, kind), count)
    yield from (failures, series_, limit, left_out)
    yield from feature_metrics(
        names, [(labels, feature) for labels, _, one in watched for feature in one.features.values()]
    )
    yield from output_metrics(
        names, [(labels, output) for labels, series, _ in watched for output in series.outputs.by_name.values()]
    )
    yield from performance_metrics(names, [(labels, one.performance) for labels, _, one in watched])
    yield from slice_metrics(names, [(labels, one.performance.slices) for labels, _, one in watched])

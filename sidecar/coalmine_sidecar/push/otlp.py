"""prometheus_client's families as OTLP's JSON: pure.

Our own mapping, since it is this file: opentelemetry-sdk with its HTTP exporter and all they need are 14 MB on disk
and, imported, 16 MB of memory in every model's pod, and their instruments would have to be fed beside our counters.
JSON instead of protobuf for the same reason: receivers take both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from prometheus_client.core import Metric
from prometheus_client.samples import Exemplar, Sample

from .. import VERSION

#: AGGREGATION_TEMPORALITY_CUMULATIVE: totals since `startTimeUnixNano`.
_CUMULATIVE: Final = 2
_NANO: Final = 1_000_000_000

Json = dict[str, Any]


def document(resource: Mapping[str, str], metrics: Iterable[Json]) -> Json:
    """An ExportMetricsServiceRequest. `resource`: attributes of who tells (`service.name` and so on)."""
    scope = {"name": "coalmine_sidecar", "version": VERSION}
    told = {
        "resource": {"attributes": _attributes(resource)},
        "scopeMetrics": [{"scope": scope, "metrics": [*metrics]}],
    }
    return {"resourceMetrics": [told]}


def to_metrics(family: Metric, *, started: float, now: float) -> Iterator[Json]:
    """A family as OTLP's metrics: one, or none where it has no samples. Times in Unix seconds.

    Counters are monotonic sums called as the family (receivers that speak Prometheus' names add `_total` again), gauges
    gauges, histograms histograms with explicit bounds. What else there is comes as gauges by its samples' names.
    """
    times = {"startTimeUnixNano": str(int(started * _NANO)), "timeUnixNano": str(int(now * _NANO))}
    about = {"name": family.name, "description": family.documentation}
    if family.type == "histogram":
        points = _histograms(family.samples, times)
        if points:
            yield about | {"histogram": {"dataPoints": points, "aggregationTemporality": _CUMULATIVE}}
    elif family.type == "counter":
        points = [_number(sample) | times for sample in family.samples if sample.name == f"{family.name}_total"]
        if points:
            total = {"dataPoints": points, "aggregationTemporality": _CUMULATIVE, "isMonotonic": True}
            yield about | {"sum": total}
    else:
        by_name: dict[str, list[Json]] = {}
        for sample in family.samples:
            by_name.setdefault(sample.name, []).append(_number(sample) | {"timeUnixNano": times["timeUnixNano"]})
        for name, points in by_name.items():
            yield about | {"name": name, "gauge": {"dataPoints": points}}


def _number(sample: Sample) -> Json:
    return {"attributes": _attributes(sample.labels), "asDouble": _double(sample.value)}


def _histograms(samples: Iterable[Sample], times: Json) -> list[Json]:
    """A point for each set of labels. Buckets of prometheus_client are cumulative and in order, OTLP's are neither."""
    points: dict[tuple[tuple[str, str], ...], Json] = {}
    below: dict[tuple[tuple[str, str], ...], float] = {}
    for sample in samples:
        labels = tuple((name, value) for name, value in sample.labels.items() if name != "le")
        point = points.get(labels)
        if point is None:
            point = points[labels] = {
                "attributes": _attributes(dict(labels)),
                **times,
                "count": "0",
                "bucketCounts": [],
                "explicitBounds": [],
            }
        if sample.name.endswith("_bucket"):
            bound = float(sample.labels["le"])
            if math.isfinite(bound):
                point["explicitBounds"].append(bound)
            point["bucketCounts"].append(str(int(sample.value - below.get(labels, 0.0))))
            below[labels] = sample.value
            if sample.exemplar is not None:
                point.setdefault("exemplars", []).append(_exemplar(sample.exemplar))
        elif sample.name.endswith("_count"):
            point["count"] = str(int(sample.value))
        elif sample.name.endswith("_sum"):
            point["sum"] = _double(sample.value)
    return list(points.values())


def _exemplar(exemplar: Exemplar) -> Json:
    labels = dict(exemplar.labels)
    found: Json = {
        "asDouble": _double(exemplar.value),
        "timeUnixNano": str(int(float(exemplar.timestamp or 0) * _NANO)),
    }
    if trace := labels.pop("trace_id", ""):
        found["traceId"] = trace
    if labels:
        found["filteredAttributes"] = _attributes(labels)
    return found


def _attributes(labels: Mapping[str, str]) -> list[Json]:
    return [{"key": name, "value": {"stringValue": value}} for name, value in labels.items()]


def _double(value: float) -> float | str:
    """protobuf's JSON writes what JSON has no numbers for as text."""
    value = float(value)
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"

"""Metric families as OTLP's JSON: pure.

Our own mapping, since it is this file: opentelemetry-sdk with its HTTP exporter and all they need are 14 MB on disk
and, imported, 16 MB of memory in every model's pod, and their instruments would have to be fed beside our counters.
JSON instead of protobuf for the same reason: receivers take both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby, islice
from typing import Any, Final

import msgspec

from .. import VERSION
from .family import Exemplar, Family, Sample

#: AGGREGATION_TEMPORALITY_CUMULATIVE: totals since `startTimeUnixNano`.
_CUMULATIVE: Final = 2
_NANO: Final = 1_000_000_000
#: Points that are written at a stretch: some tenths of a millisecond.
AT_A_STRETCH: Final = 64

Json = dict[str, Any]
encode = msgspec.json.Encoder().encode


class OtlpMetric:
    """A metric whose points are still to be written, AT_A_STRETCH at a time: requests wait meanwhile.

    `kind`: sum, gauge or histogram, and `about` what stands beside its points.
    """

    def __init__(self, name: str, description: str, kind: str, about: Json, points: Iterable[Json]) -> None:
        self._head = {"name": name, "description": description}
        self._kind = kind
        self._about = about
        self._points = iter(points)
        self._written: list[bytes] = []

    def write(self) -> Iterator[None]:
        """Write all points, and stop behind each stretch."""
        while points := list(islice(self._points, AT_A_STRETCH)):
            self._written.append(encode(points)[1:-1])
            yield

    def json(self) -> bytes:
        """The metric with the points written so far."""
        points = msgspec.Raw(b"[" + b",".join(self._written) + b"]")
        return encode(self._head | {self._kind: self._about | {"dataPoints": points}})


def document(resource: Mapping[str, str], metrics: Iterable[bytes]) -> bytes:
    """An ExportMetricsServiceRequest. `resource`: attributes of who tells (`service.name` and so on)."""
    scope = {"name": "coalmine", "version": VERSION}
    told = msgspec.Raw(b"[" + b",".join(metrics) + b"]")
    return encode(
        {
            "resourceMetrics": [
                {
                    "resource": {"attributes": _attributes(resource)},
                    "scopeMetrics": [{"scope": scope, "metrics": told}],
                }
            ]
        }
    )


def to_metrics(family: Family, *, started: float, now: float) -> Iterator[OtlpMetric]:
    """A family as OTLP's metrics: one, or none where it has no samples. Times in Unix seconds.

    Counters are monotonic sums called as the family (receivers that speak Prometheus' names add `_total` again), gauges
    gauges, histograms histograms with explicit bounds. What else there is comes as gauges by its samples' names.
    """
    name, text, samples = family.name, family.documentation, family.samples
    told = {"timeUnixNano": str(int(now * _NANO))}
    since = told | {"startTimeUnixNano": str(int(started * _NANO))}
    if not samples:
        return
    if family.type == "histogram":
        points = (_histogram(list(series), since) for _, series in groupby(samples, _without_bound))
        yield OtlpMetric(name, text, "histogram", {"aggregationTemporality": _CUMULATIVE}, points)
    elif family.type == "counter":
        about = {"aggregationTemporality": _CUMULATIVE, "isMonotonic": True}
        points = (_number(sample, since) for sample in samples if sample.name == f"{name}_total")
        yield OtlpMetric(name, text, "sum", about, points)
    else:
        for called, some in groupby(sorted(samples, key=_name), _name):
            yield OtlpMetric(called, text, "gauge", {}, [_number(sample, told) for sample in some])


def _name(sample: Sample) -> str:
    return sample.name


def _without_bound(sample: Sample) -> Json:
    """The labels of a histogram's series, whose samples stand together."""
    return {name: value for name, value in sample.labels.items() if name != "le"}


def _number(sample: Sample, times: Json) -> Json:
    return {"attributes": _attributes(sample.labels), "asDouble": _double(sample.value), **times}


def _histogram(samples: Sequence[Sample], times: Json) -> Json:
    """A series' point. A family's buckets are cumulative, OTLP's are not."""
    counts: list[str] = []
    bounds: list[float] = []
    exemplars: list[Json] = []
    point: Json = {"attributes": _attributes(_without_bound(samples[0])), **times}
    below = 0.0
    for sample in samples:
        if sample.name.endswith("_bucket"):
            bound = float(sample.labels["le"])
            if math.isfinite(bound):
                bounds.append(bound)
            counts.append(str(int(sample.value - below)))
            below = sample.value
            if sample.exemplar is not None:
                exemplars.append(_exemplar(sample.exemplar))
        elif sample.name.endswith("_count"):
            point["count"] = str(int(sample.value))
        elif sample.name.endswith("_sum"):
            point["sum"] = _double(sample.value)
    point |= {"bucketCounts": counts, "explicitBounds": bounds}
    return point | {"exemplars": exemplars} if exemplars else point


def _exemplar(exemplar: Exemplar) -> Json:
    labels = dict(exemplar.labels)
    at = str(int(float(exemplar.timestamp or 0) * _NANO))
    found: Json = {"asDouble": _double(exemplar.value), "timeUnixNano": at}
    if trace := labels.pop("trace_id", ""):
        found["traceId"] = trace
    if labels:
        found["filteredAttributes"] = _attributes(labels)
    return found


def _attributes(labels: Mapping[str, str]) -> list[msgspec.Raw]:
    return [_attribute(name, value) for name, value in labels.items()]


@lru_cache(4096)
def _attribute(name: str, value: str) -> msgspec.Raw:
    """Written once: few labels have many values, and every series has them again."""
    return msgspec.Raw(encode({"key": name, "value": {"stringValue": value}}))


def _double(value: float) -> float | str:
    """protobuf's JSON writes what JSON has no numbers for as text."""
    value = float(value)
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"

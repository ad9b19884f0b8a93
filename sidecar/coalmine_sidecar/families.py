"""Metric families as scrapes and pushes take them: pure data.

Not prometheus_client's, with which an HTTP server and more is loaded: a MB in every model's pod. Attributes are called
as its own are: its writers and its bridge to Graphite take these families, too, and tests hold ours against them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple


class Exemplar(NamedTuple):
    """One observation of a bucket. `timestamp`: Unix seconds."""

    labels: dict[str, str]
    value: float
    timestamp: float


class Sample(NamedTuple):
    """A line of an exposition. Fields that are None are prometheus_client's; we have none of these."""

    name: str
    labels: dict[str, str]
    value: float
    timestamp: None = None
    exemplar: Exemplar | None = None
    native_histogram: None = None


class Metric:
    """A family; `name` is without a counter's `_total`. `samples` of one series stand together."""

    unit: Final = ""

    def __init__(
        self, name: str, documentation: str, kind: Literal["counter", "gauge", "histogram"], labels: Sequence[str]
    ) -> None:
        self.name = name
        self.documentation = documentation
        self.type = kind
        self.samples: list[Sample] = []
        self._labels = tuple(labels)

    def _named(self, values: Sequence[str]) -> dict[str, str]:
        return dict(zip(self._labels, values, strict=True))


class CounterMetricFamily(Metric):
    """`value`: of one that has no labels."""

    def __init__(self, name: str, documentation: str, value: float | None = None, labels: Sequence[str] = ()) -> None:
        super().__init__(name, documentation, "counter", labels)
        self._total = f"{name}_total"
        if value is not None:
            self.add_metric((), value)

    def add_metric(self, labels: Sequence[str], value: float) -> None:
        """Add a series; raises ValueError unless it has a value for each label."""
        self.samples.append(Sample(self._total, self._named(labels), value))


class GaugeMetricFamily(Metric):
    """`value`: of one that has no labels."""

    def __init__(self, name: str, documentation: str, value: float | None = None, labels: Sequence[str] = ()) -> None:
        super().__init__(name, documentation, "gauge", labels)
        if value is not None:
            self.add_metric((), value)

    def add_metric(self, labels: Sequence[str], value: float) -> None:
        """Add a series; raises ValueError unless it has a value for each label."""
        self.samples.append(Sample(self.name, self._named(labels), value))


class HistogramMetricFamily(Metric):
    def __init__(self, name: str, documentation: str, labels: Sequence[str] = ()) -> None:
        super().__init__(name, documentation, "histogram", labels)

    def add_metric(
        self, labels: Sequence[str], buckets: Sequence[tuple[str, float, Exemplar | None]], sum_value: float
    ) -> None:
        """Add a series; raises ValueError unless it has a value for each label.

        `buckets`: upper bounds, cumulative counts and exemplars, in order, the last one `+Inf`. No value is below zero.
        """
        named = self._named(labels)
        for bound, count, exemplar in buckets:
            self.samples.append(Sample(f"{self.name}_bucket", named | {"le": bound}, count, exemplar=exemplar))
        self.samples.append(Sample(f"{self.name}_count", named, buckets[-1][1]))
        self.samples.append(Sample(f"{self.name}_sum", named, sum_value))

"""Text for Prometheus, made in pieces: a pod may have thousands of lines, and requests are not to wait for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ..families import Metric
from .render import TelemetryCollector
from .store import Telemetry
from .textformat import EOF, choose_format, write

#: Metrics of those that are no part of Telemetry.
Beside = Iterable[Callable[[], Iterable[Metric]]]


def collect(telemetry: Telemetry, beside: Beside = ()) -> list[Metric]:
    """All metrics of a sidecar, read at once."""
    return [*TelemetryCollector(telemetry).collect(), *(metric for more in beside for metric in more())]


def expose(telemetry: Telemetry, accept: str, beside: Beside = ()) -> tuple[str, Iterator[bytes]]:
    """Content type and pieces of an exposition, classic or OpenMetrics as `accept` asks.

    All counters are read at once; each piece is one metric, written when it is taken.
    """
    content_type, openmetrics = choose_format(accept)
    metrics = collect(telemetry, beside)

    def pieces() -> Iterator[bytes]:
        for metric in metrics:
            yield write(metric, openmetrics=openmetrics).encode()
        if openmetrics:
            yield EOF.encode()

    return content_type, pieces()

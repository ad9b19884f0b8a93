"""What became of the events of the payload log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ..families import CounterMetricFamily, GaugeMetricFamily, Metric

#: Of an event. `dropped_queue`: the sink is too slow, or away; `dropped_end`: the process ended, or the settings
#: changed, before it was sent.
OUTCOMES: Final = ("sent", "failed", "dropped_queue", "dropped_end")
#: Of a body: cut, or left out since what to redact in it could not be found.
CHANGES: Final = ("truncated", "omitted_not_json", "omitted_size")


class Counters:
    """Every event offered is at last one of `outcomes`; those that wait are `queued`, of `queued_bytes` in all."""

    def __init__(self) -> None:
        self.offered = 0
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self.changes = dict.fromkeys(CHANGES, 0)
        self.queued = 0
        self.queued_bytes = 0


def payload_metrics(counters: Counters) -> Iterator[Metric]:
    """Prometheus families, all zero-initialised."""
    log = CounterMetricFamily("coalmine_payload_log", "Events of the payload log by outcome.", labels=("outcome",))
    for outcome, count in counters.outcomes.items():
        log.add_metric((outcome,), count)
    yield log
    bodies = CounterMetricFamily(
        "coalmine_payload_log_bodies", "Bodies that the payload log cut, or left out.", labels=("change",)
    )
    for change, count in counters.changes.items():
        bodies.add_metric((change,), count)
    yield bodies
    yield GaugeMetricFamily(
        "coalmine_payload_log_queued", "Events of the payload log that wait for its sink.", value=counters.queued
    )
    yield GaugeMetricFamily(
        "coalmine_payload_log_queued_bytes", "Bodies of the events that wait.", value=counters.queued_bytes
    )

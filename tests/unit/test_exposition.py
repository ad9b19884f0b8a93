"""Our lines of an exposition are prometheus_client's, byte by byte, in both formats."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from coalmine_sidecar.telemetry import Telemetry
from coalmine_sidecar.telemetry.exposition import expose

CLASSIC = ""
OPENMETRICS = "application/openmetrics-text;version=1.0.0"
NUMBERS = st.one_of(st.integers(), st.floats(), st.just(10**25))
TEXTS = st.text(max_size=20)


class All(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self.metrics = metrics

    def collect(self) -> list[Metric]:
        return self.metrics


def written(metrics: list[Metric], accept: str) -> bytes:
    """By us, without what a sidecar has of its own."""
    telemetry = Telemetry(pod="p", revision="a")
    _, own = expose(telemetry, accept)
    _, all_ = expose(telemetry, accept, [lambda: metrics])
    end = b"# EOF\n"
    return b"".join(all_).removeprefix(b"".join(own).removesuffix(end))


@given(st.lists(st.tuples(TEXTS, TEXTS, NUMBERS), max_size=5), st.sampled_from([CLASSIC, OPENMETRICS]))
def test_counters_and_gauges(rows: list[tuple[str, str, float]], accept: str) -> None:
    counter = CounterMetricFamily("coalmine_c", 'what "it"\nsays\\', labels=("zone", "bin"))
    gauge = GaugeMetricFamily("coalmine_g", "a gauge", labels=("b", "a"))
    plain = GaugeMetricFamily("coalmine_p", "without labels", value=1.5)
    for one, other, value in rows:
        counter.add_metric((one, other), value)
        gauge.add_metric((one, other), value)
    metrics: list[Metric] = [counter, gauge, plain]
    encode, _ = choose_encoder(accept)
    assert written(metrics, accept) == encode(All(metrics))


@pytest.mark.parametrize("accept", [CLASSIC, OPENMETRICS])
@pytest.mark.parametrize("exemplar", [None, Exemplar({"trace_id": "4bf92f"}, 0.2, 1_795_000_000.0)])
def test_histograms_with_and_without_exemplars(accept: str, exemplar: Exemplar | None) -> None:
    family = HistogramMetricFamily("coalmine_h_seconds", "a histogram", labels=("model",))
    first = ("0.5", 2.0) if exemplar is None else ("0.5", 2.0, exemplar)
    family.add_metric(("fraud",), [first, ("+Inf", 3.0)], 1.25)
    metrics: list[Metric] = [family, CounterMetricFamily("coalmine_empty", "of nothing", labels=("a",))]
    encode, _ = choose_encoder(accept)
    assert written(metrics, accept) == encode(All(metrics))
    assert written(metrics, accept) == encode(All(metrics)), "writing changes nothing"

"""Our families and their text are prometheus_client's, byte by byte, in both formats; and it is not loaded for them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import metrics_core as theirs
from prometheus_client.exposition import choose_encoder
from prometheus_client.samples import Exemplar as TheirExemplar

from coalmine_sidecar import families as ours
from coalmine_sidecar.telemetry import Telemetry
from coalmine_sidecar.telemetry.exposition import expose
from coalmine_sidecar.telemetry.textformat import choose_format, write

CLASSIC = ""
OPENMETRICS = "application/openmetrics-text;version=1.0.0"
FORMATS = st.sampled_from([CLASSIC, OPENMETRICS])
NUMBERS = st.one_of(
    st.integers(-(10**300), 10**300),
    st.floats(),
    st.floats(9e5, 2e16),
    st.integers(5, 17).map(lambda power: 10**power),
    st.sampled_from([float("nan"), float("inf"), float("-inf"), -0.0, 10**25, 2**53 + 1]),
)
TEXTS = st.text(max_size=20) | st.text('"\\\nn', max_size=6)
#: None ends in `_total`, which prometheus_client takes off.
NAMES = st.from_regex(r"\A[a-z][a-z0-9_]{0,12}x\Z")
LABELS = st.lists(NAMES, unique=True, max_size=3)
EXEMPLARS = st.none() | st.tuples(st.dictionaries(NAMES, TEXTS, min_size=1, max_size=2), NUMBERS, st.floats(0, 4e9))


class All:
    """A collector, as far as prometheus_client's writers look."""

    def __init__(self, metrics: Iterable[Any]) -> None:
        self.metrics = metrics

    def collect(self) -> Iterable[Any]:
        return self.metrics


def written(metrics: Iterable[ours.Metric], accept: str) -> bytes:
    """By us, as an exposition."""
    openmetrics = accept == OPENMETRICS
    return "".join(write(metric, openmetrics=openmetrics) for metric in metrics).encode() + b"# EOF\n" * openmetrics


def told(family: Any) -> tuple[Any, ...]:
    # As text: not a number equals nothing.
    return family.name, family.documentation, family.type, family.unit, repr(family.samples)


@given(st.data(), NAMES, TEXTS, LABELS, FORMATS)
def test_counters_and_gauges(data: st.DataObject, name: str, text: str, labels: list[str], accept: str) -> None:
    rows = data.draw(st.lists(st.tuples(st.tuples(*[TEXTS] * len(labels)), NUMBERS), max_size=4))
    families: list[ours.Metric] = []
    for mine, other in (
        (ours.CounterMetricFamily, theirs.CounterMetricFamily),
        (ours.GaugeMetricFamily, theirs.GaugeMetricFamily),
    ):
        family, reference = (
            mine(f"coalmine_{name}", text, labels=labels),
            other(f"coalmine_{name}", text, labels=labels),
        )
        alone, reference_alone = mine("coalmine_p", text, value=1.5), other("coalmine_p", text, value=1.5)
        for values, number in rows:
            family.add_metric(values, number)
            reference.add_metric(values, number)
        assert told(family) == told(reference)
        assert told(alone) == told(reference_alone)
        families += family, alone
    encode, _ = choose_encoder(accept)
    assert written(families, accept) == encode(All(families))


@given(st.lists(st.tuples(TEXTS, st.lists(st.tuples(NUMBERS, EXEMPLARS), min_size=1, max_size=4)), max_size=3), FORMATS)
def test_histograms_with_and_without_exemplars(rows: list[tuple[str, list[Any]]], accept: str) -> None:
    family = ours.HistogramMetricFamily("coalmine_h_seconds", "a histogram", labels=("model",))
    reference = theirs.HistogramMetricFamily("coalmine_h_seconds", "a histogram", labels=("model",))
    for model, buckets in rows:
        bounds = [*map(repr, map(float, range(len(buckets) - 1))), "+Inf"]
        found = [(n, exemplar and ours.Exemplar(*exemplar)) for n, exemplar in buckets]
        family.add_metric((model,), [(b, *f) for b, f in zip(bounds, found, strict=True)], 1.25)
        expected = [
            (b, n, TheirExemplar(*exemplar)) if exemplar else (b, n)
            for b, (n, exemplar) in zip(bounds, buckets, strict=True)
        ]
        reference.add_metric((model,), expected, 1.25)
    assert told(family) == told(reference)
    encode, _ = choose_encoder(accept)
    assert written([family], accept) == encode(All([reference])) == encode(All([family]))


PARAMETERS = st.sampled_from(
    ["version=0.0.4", "version=1.0.0", "version=0.0.1", "version=1", "version=2.0.0", "version=", "q=0.5", "escaping=x"]
    + [f"escaping={name}" for name in ("allow-utf-8", "underscores", "dots", "values")]
)
MEDIA = st.sampled_from(["application/openmetrics-text", "text/plain", "*/*", "", " text/plain "])


@given(st.lists(st.tuples(MEDIA, st.lists(PARAMETERS, max_size=3, unique_by=lambda p: p.split("=")[0]))))
def test_the_format_is_the_one_that_prometheus_client_chooses(asked: list[tuple[str, list[str]]]) -> None:
    accept = ",".join("; ".join([media, *parameters]) for media, parameters in asked)
    encode, content_type = choose_encoder(accept)
    found = choose_format(accept)
    # Nothing in our names is to be written in another way.
    assert found.content_type == re.sub("escaping=(dots|values)", "escaping=underscores", content_type)
    assert found.openmetrics == encode(All([])).endswith(b"# EOF\n")


@pytest.mark.parametrize("version", ["1.x", '"1.0.0"', "1.0.0-rc.1", "²", "1" * 5000])
def test_a_version_that_is_none_is_not_told_back(version: str) -> None:
    assert choose_format(f"text/plain;version={version}").content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert not choose_format(f"application/openmetrics-text;version={version}").openmetrics


@pytest.mark.parametrize("accept", [CLASSIC, OPENMETRICS])
def test_a_piece_is_a_metric(accept: str) -> None:
    telemetry = Telemetry(pod="p", revision="a")
    more = [ours.GaugeMetricFamily("coalmine_more", "More.", value=1), ours.GaugeMetricFamily("coalmine_none", "None.")]
    _, own = expose(telemetry, accept)
    _, pieces = expose(telemetry, accept, [lambda: more])
    end = [b"# EOF\n"] * (accept == OPENMETRICS)
    expected = [piece for piece in own if piece not in end] + [written([one], CLASSIC) for one in more] + end
    assert list(pieces) == expected


def test_a_series_has_a_value_for_each_label() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ours.CounterMetricFamily("coalmine_c", "Of two.", labels=("a", "b")).add_metric(("only",), 1)


def test_a_sidecar_that_is_scraped_or_pushes_otlp_does_not_load_prometheus_client() -> None:
    code = """
import asyncio, sys
import coalmine_sidecar.__main__
from coalmine_sidecar.feedback.service import FeedbackService
from coalmine_sidecar.payload import PayloadLogs
from coalmine_sidecar.push.pusher import start
from coalmine_sidecar.push.settings import PushSettings
from coalmine_sidecar.telemetry import Telemetry
from coalmine_sidecar.telemetry.exposition import expose

async def main():
    pushing = start(PushSettings(otlp="http://127.0.0.1:9/v1/metrics"), None, lambda: None)
    telemetry = Telemetry(pod="p", revision="a")
    assert b"coalmine_push_total" in b"".join(expose(telemetry, "", [pushing.collect])[1])
    await pushing.stop()

asyncio.run(main())
print([name for name in ("prometheus_client", "http.server", "wsgiref", "socketserver", "mmap") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr

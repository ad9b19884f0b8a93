"""Histograms that are filled with many values at once hold what they would hold, filled with each by itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_sidecar.telemetry.counters import LATENCY, Histogram

#: Also values on a bound.
values = st.lists(st.one_of(st.floats(0, 100), st.sampled_from(LATENCY)))
traced = st.lists(st.tuples(st.one_of(st.floats(0, 100), st.sampled_from(LATENCY)), st.sampled_from([b"", b"a", b"b"])))


@given(st.lists(values, max_size=4))
def test_all_at_once_is_one_after_the_other(batches: list[list[float]]) -> None:
    together, singly = Histogram(LATENCY), Histogram(LATENCY)
    for batch in batches:
        together.observe_all(batch)
        for value in batch:
            singly.observe(value)
    assert together.counts == singly.counts
    assert together.total == pytest.approx(singly.total)


@given(traced)
def test_the_newest_traced_value_of_each_bucket_is_its_exemplar(answers: list[tuple[float, bytes]]) -> None:
    histogram = Histogram(LATENCY)
    histogram.observe_traced([v for v, _ in answers], [t for _, t in answers], range(len(answers)))
    assert sum(histogram.counts) == len(answers)
    newest: dict[int, tuple[float, bytes, float]] = {}
    for at, (value, trace) in enumerate(answers):
        if trace:
            one = Histogram(LATENCY)
            one.observe(value)
            newest[one.counts.index(1)] = (value, trace, at)
    assert {i: kept for i, kept in enumerate(histogram.exemplars) if kept} == newest

"""What holds for all counts."""

from __future__ import annotations

import itertools
import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coalmine_operator.analysis import Looked, bank, freeze_bins, judge, merge
from coalmine_operator.analysis.evalue import KEPT, log_e_different, log_e_worse
from coalmine_operator.api.spec import Analysis, Baseline, Metric
from coalmine_operator.api.status import Banked
from coalmine_sidecar.contract import EpochCounts, OutputCounts

MODEST = settings(max_examples=60, deadline=None)
EDGES = (0.25, 0.75)
ANALYSIS = Analysis(
    metrics=(
        Metric(name="errors", preset="errorRate"),
        Metric(name="slow", preset="latency", threshold="250ms"),
        Metric(name="scores", preset="outputDrift"),
        Metric(
            name="frozen",
            preset="outputDrift",
            against="baseline",
            baseline=(Baseline(output="score", edges=EDGES, counts=(300, 300, 300)),),
        ),
        Metric(name="query"),
        Metric(name="shadow", preset="shadowDisagreement"),
    )
)

count = st.integers(0, 10**9)
share = st.floats(0.01, 0.99)
classes = st.dictionaries(st.sampled_from(["a", "b", "c", "_other"]), st.integers(0, 1000))


@st.composite
def epochs(draw: st.DrawFn, most: int = 10**6) -> EpochCounts:
    number = st.integers(0, most)
    answered = draw(number)
    outputs = draw(
        st.dictionaries(
            st.sampled_from(["score", "label"]),
            st.builds(
                OutputCounts,
                edges=st.just(EDGES),
                bins=st.lists(number, min_size=3, max_size=3),
                classes=classes,
                missing=number,
            ),
        )
    )
    return EpochCounts(
        requests=answered + draw(number),
        errors=draw(number),
        client_errors=draw(number),
        answered=answered,
        thresholds=(0.1, 0.25),
        over=sorted(draw(st.lists(st.integers(0, answered), min_size=2, max_size=2)), reverse=True),
        outputs=outputs,
        compared=draw(number),
        disagreed=draw(number),
    )


@MODEST
@given(st.lists(epochs(), max_size=5))
def test_merge_needs_no_order_and_no_grouping(parts: list[EpochCounts]) -> None:
    whole = merge(parts)
    assert merge(parts[::-1]) == whole
    for at in range(len(parts) + 1):
        assert merge([merge(parts[:at]), merge(parts[at:])]) == whole


@MODEST
@given(st.lists(st.tuples(count, count), min_size=1, max_size=8), share)
def test_order_of_bins_does_not_matter(pairs: list[tuple[int, int]], w: float) -> None:
    values = [
        float(log_e_different([k for k, _ in order], [m for _, m in order], w)) for order in (pairs, sorted(pairs))
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-6, abs=1e-3)


@MODEST
@given(count, count, count, count, share)
def test_evidence_is_finite_bounded_below_and_never_for_the_better_one(
    kb: int, kg: int, mb: int, mg: int, w: float
) -> None:
    value = float(log_e_worse(kb, kg, mb, mg, w))
    assert math.log(KEPT) - 1e-3 <= value < math.inf
    if kb * mg <= kg * mb:
        assert value <= 1e-3
    different = float(log_e_different([kb, kg], [mb, mg], w))
    assert math.log(KEPT) - 1e-3 <= different < math.inf


@MODEST
@given(st.integers(0, 300), st.integers(0, 300), share, st.integers(1, 300))
def test_an_empty_bin_changes_nothing(k: int, m: int, w: float, size: int) -> None:
    with_empty = float(log_e_different([k, size, 0], [m, size, 0], w))
    assert with_empty == pytest.approx(float(log_e_different([k, size], [m, size], w)), abs=1e-9)


@MODEST
@given(epochs(), epochs(), st.integers(0, 100), st.floats(-10, 1000))
def test_banked_evidence_judges_like_the_epoch_itself(
    canary: EpochCounts, stable: EpochCounts, weight: int, age: float
) -> None:
    looked = Looked(canary=canary, stable=stable, weight=weight, age=age)
    stored = msgspec.json.encode(bank(ANALYSIS, looked, ()))
    assert len(stored) < 5000
    banked = msgspec.json.decode(stored, type=tuple[Banked, ...])
    now, after = judge(ANALYSIS, looked, ()), judge(ANALYSIS, None, banked)
    assert [(v.verdict, v.statistic, v.evidence) for v in after] == [(v.verdict, v.statistic, v.evidence) for v in now]
    msgspec.json.encode(now)  # plain numbers only


@MODEST
@given(epochs(1000), epochs(1000), st.integers(1, 99), st.integers(1, 5))
def test_the_same_epoch_again_adds_the_same_evidence(
    canary: EpochCounts, stable: EpochCounts, weight: int, times: int
) -> None:
    looked = Looked(canary=canary, stable=stable, weight=weight, age=500.0)
    banked: tuple[Banked, ...] = ()
    for _ in range(times):
        banked = bank(ANALYSIS, looked, banked)
    once, often = bank(ANALYSIS, looked, ()), judge(ANALYSIS, None, banked)
    for metric in (0, 1):
        assert often[metric].statistic == pytest.approx(times * once[metric].log_e)
        assert often[metric].evidence.get("canaryRate") == judge(ANALYSIS, None, once)[metric].evidence["canaryRate"]


@MODEST
@given(epochs(1000), epochs(1000), st.integers(1, 99))
def test_swapping_which_version_is_worse_never_fails_both(a: EpochCounts, b: EpochCounts, weight: int) -> None:
    for metric in (0, 1):
        verdicts = [
            judge(ANALYSIS, Looked(canary=x, stable=y, weight=weight, age=500.0), ())[metric].verdict
            for x, y in ((a, b), (b, a))
        ]
        assert verdicts != ["Fail", "Fail"]


@MODEST
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=300), st.integers(2, 63))
def test_bins_are_edges_that_a_routing_file_takes(values: list[float], most: int) -> None:
    edges = freeze_bins({"x": values}, most=most, least=1).get("x", ())
    assert all(map(math.isfinite, edges))
    assert all(a < b for a, b in itertools.pairwise(edges))
    assert bool(edges) == any(map(math.isfinite, values))
    assert len(edges) <= most + 1

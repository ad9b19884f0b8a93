"""Preset `shadowDisagreement`: a verdict on pairs of answers, valid however often one looks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coalmine_operator.analysis import Looked, bank, by_shadow, judge
from coalmine_operator.analysis.shadow import log_e_more_often
from coalmine_operator.api.spec import Analysis, Metric
from coalmine_sidecar.contract import EpochCounts

ALPHA = 0.05
RUNS, PAIRS = 1000, 2000
LOOKS = [*range(10, 200, 5), *range(200, PAIRS, 50)]
METRIC = Metric(name="shadow", preset="shadowDisagreement")
ANALYSIS = Analysis(metrics=(METRIC,), min_requests=100)

UNHURRIED = settings(deadline=None)

shares = st.floats(0.001, 0.999)


def looked(compared: int, disagreed: int, weight: int = 0) -> Looked:
    canary = EpochCounts(compared=compared, disagreed=disagreed)
    return Looked(canary=canary, stable=EpochCounts(requests=1000), weight=weight, age=0.0)


def found_after(disagrees: np.ndarray, share: float) -> np.ndarray:
    """Pairs until E first reached 1/alpha in each run; infinite where it never did."""
    sums = disagrees.cumsum(axis=1)
    reached = [[log_e_more_often(int(row[n - 1]), n, share) >= math.log(1 / ALPHA) for n in LOOKS] for row in sums]
    return np.array([LOOKS[hits.index(True)] if any(hits) else math.inf for hits in reached])


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3])
def test_a_canary_at_the_threshold_is_rarely_found_over_it(share: float) -> None:
    draws = np.random.default_rng(31).random((RUNS, PAIRS)) < share
    assert np.isfinite(found_after(draws, share)).mean() <= ALPHA


def test_nor_one_whose_rate_moves_below_it() -> None:
    rates = 0.05 * np.abs(np.sin(np.arange(PAIRS) / 300))
    draws = np.random.default_rng(32).random((RUNS, PAIRS)) < rates
    assert np.isfinite(found_after(draws, 0.05)).mean() <= ALPHA


@pytest.mark.parametrize(("rate", "most"), [(0.1, 300), (0.2, 60), (0.5, 15), (1.0, 10)])
def test_how_many_pairs_it_takes(rate: float, most: int) -> None:
    draws = np.random.default_rng(33).random((200, PAIRS)) < rate
    assert np.median(found_after(draws, 0.05)) <= most


@UNHURRIED
@given(st.integers(0, 10**9), st.integers(0, 10**9), shares)
def test_evidence_is_finite_and_never_for_one_below_the_threshold(k: int, more: int, share: float) -> None:
    value = log_e_more_often(k, k + more, share)
    assert math.isfinite(value)
    if k <= share * (k + more):
        assert value <= 1e-6


@UNHURRIED
@given(st.integers(1, 60), shares)
def test_expected_to_gain_nothing_at_the_threshold(n: int, share: float) -> None:
    """The mean of E over all outcomes of n pairs at the threshold itself: 1, since it is a likelihood ratio."""
    logs = [
        math.lgamma(n + 1)
        - math.lgamma(k + 1)
        - math.lgamma(n - k + 1)
        + k * math.log(share)
        + (n - k) * math.log(1 - share)
        + log_e_more_often(k, n, share)
        for k in range(n + 1)
    ]
    assert math.fsum(map(math.exp, logs)) == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize(
    ("compared", "disagreed", "verdict", "reason"),
    [
        (0, 0, "Unknown", "NothingCompared"),
        (9, 9, "Unknown", "TooFewRequests"),
        (10, 10, "Fail", "Disagrees"),
        (60, 2, "Unknown", "TooFewRequests"),
        (100, 0, "Pass", "NoRegression"),
        (1000, 50, "Pass", "NoRegression"),
        (1000, 120, "Fail", "Disagrees"),
    ],
)
def test_verdicts(compared: int, disagreed: int, verdict: str, reason: str) -> None:
    (found,) = judge(ANALYSIS, looked(compared, disagreed), ())
    assert (found.verdict, found.reason) == (verdict, reason)
    assert found.evidence["compared"] == compared
    assert by_shadow(ANALYSIS, (found,)) == (found,)


def test_the_threshold_is_the_users() -> None:
    lax = Analysis(metrics=(Metric(name="shadow", preset="shadowDisagreement", threshold=0.5),))
    assert judge(lax, looked(1000, 120), ())[0].verdict == "Pass"
    assert judge(lax, looked(1000, 700), ())[0].verdict == "Fail"


@UNHURRIED
@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=5))
def test_epochs_add_up(parts: list[tuple[int, int]]) -> None:
    pairs = [(compared, min(compared, disagreed)) for compared, disagreed in parts]
    banked = ()
    for pair in pairs:
        banked = bank(ANALYSIS, looked(*pair), banked)
    (apart,) = judge(ANALYSIS, None, banked)
    (whole,) = judge(ANALYSIS, looked(*map(sum, zip(*pairs, strict=True))), ())
    assert apart.verdict == whole.verdict
    assert apart.statistic == pytest.approx(whole.statistic)


def test_evidence_of_the_mirror_stays_while_the_canary_has_weight() -> None:
    banked = bank(ANALYSIS, looked(200, 3), ())
    (found,) = judge(ANALYSIS, looked(0, 0, weight=5), banked)
    assert (found.verdict, found.evidence["compared"]) == ("Pass", 200)


def test_another_tolerance_is_another_question() -> None:
    banked = bank(ANALYSIS, looked(200, 3), ())
    other = Analysis(metrics=(Metric(name="shadow", preset="shadowDisagreement", tolerance=0.2),))
    assert judge(other, None, banked)[0].reason == "NoTraffic"

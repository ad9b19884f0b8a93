"""Drift against a baseline that is a sample itself: false alarms as promised, and how soon a drift is found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import gammaln
from tests.unit.simulated import Array, shifted, true_psi

from coalmine_operator.analysis.baseline import log_e_drift
from coalmine_operator.analysis.monitored import FEWEST, WINDOW, RunLength, advance, alarm_threshold, log_mean_exp

EVEN = (0.1,) * 10
#: Rows of the smallest baseline that drift is judged by.
LEAST = 5000
MONTH = 30 * 86400.0


def chances(shift: float = 0.0) -> Array:
    """Ten bins after a shift by so many standard deviations, then 1 % of the rows without a value, none unseen."""
    return np.array([*(0.99 * p for p in shifted(EVEN, shift)), 0.01, 0.0])


def dirichlet(prior: Array, live: Array) -> Array:
    total: Array = gammaln(prior.sum(-1)) - gammaln(prior.sum(-1) + live.sum(-1))
    return total + (gammaln(prior + live) - gammaln(prior)).sum(-1)


def log_e(live: Array, baseline: Array) -> Array:
    posterior = baseline + 0.5
    return dirichlet(50 * posterior / posterior.sum(-1, keepdims=True), live) - dirichlet(posterior, live)


def since_start(shift: float, *, runs: int, looks: int, rows: int, seed: int) -> Array:
    """Log e at each look, [runs, looks], each stream with a baseline of its own."""
    rng = np.random.default_rng(seed)
    baseline = rng.multinomial(LEAST, chances(), size=runs)[:, None, :]
    live = np.cumsum(rng.multinomial(rows, chances(shift), size=(runs, looks)), axis=1)
    return log_e(live, baseline)


def run_lengths(shifts: list[float], *, runs: int, rows: int, seed: int) -> Array:
    """Log R after each window, [runs, windows]; a shift for each window."""
    rng = np.random.default_rng(seed)
    baseline = rng.multinomial(LEAST, chances(), size=runs)
    log_r, path = np.full(runs, -np.inf), []
    for shift in shifts:
        log_r = np.logaddexp(log_r, 0) + log_e(rng.multinomial(rows, chances(shift), size=runs), baseline)
        path.append(log_r)
    return np.stack(path, axis=1)


def first(statistic: Array, threshold: float) -> Array:
    """The first look at or over the threshold, counted from 1; infinite where there is none."""
    hit = statistic >= threshold
    return np.where(hit.any(axis=1), hit.argmax(axis=1) + 1.0, np.inf)


def test_without_drift_a_hundred_looks_alarm_in_at_most_the_promised_share_of_streams() -> None:
    """0.8 % of 500 streams at alpha 0.05, none at 0.001; the mean of four features' e-values likewise."""
    seen = since_start(0.0, runs=500, looks=100, rows=100, seed=51)
    assert float((seen >= math.log(20)).any(axis=1).mean()) <= 0.05
    assert float((seen >= math.log(1000)).any(axis=1).mean()) <= 0.01
    means = np.array([[log_mean_exp(list(look)) for look in four.T] for four in seen.reshape(125, 4, 100)])
    assert float((means >= math.log(20)).any(axis=1).mean()) <= 0.05


@pytest.mark.parametrize(("shift", "psi", "most"), [(0.35, 0.117, 160), (0.24, 0.055, 360)])
def test_a_drift_is_found_within_the_promised_number_of_predictions(shift: float, psi: float, most: int) -> None:
    """Median over 500 streams: 130 and 340 predictions at alpha 0.05."""
    assert true_psi(shifted(EVEN, shift), EVEN) == pytest.approx(psi, abs=0.001)
    found = 10 * first(since_start(shift, runs=500, looks=120, rows=10, seed=52), math.log(20))
    assert float(np.median(found)) <= most
    assert float(np.quantile(found, 0.9)) <= 2.5 * most


def test_without_drift_few_months_end_with_an_alarm_of_the_run_length() -> None:
    """Windows of 100 rows, where it is worst: 16 % of the streams alarm in the first 30 days, and 63 % might."""
    threshold = alarm_threshold(MONTH)
    assert threshold == pytest.approx(math.log(2880))
    seen = run_lengths([0.0] * 2880, runs=250, rows=FEWEST, seed=53)
    assert float((seen >= threshold).any(axis=1).mean()) <= 0.25


def test_the_average_run_length_is_at_least_what_was_asked_for() -> None:
    """A day: 96 windows. Of one feature, and of the mean of four; streams that are cut off only make it smaller."""
    single = run_lengths([0.0] * 960, runs=500, rows=FEWEST, seed=54)
    mean = np.logaddexp.reduce(single.reshape(125, 4, 960), axis=1) - math.log(4)
    for log_r in (single, mean):
        found = first(log_r, alarm_threshold(86400.0))
        assert float(np.minimum(found, 960).mean()) >= 96


@pytest.mark.parametrize(("rows", "most"), [(100, 5), (1000, 1)])
def test_a_drift_after_a_long_quiet_time_is_found_within_few_windows(rows: int, most: int) -> None:
    """PSI 0.12 after five days of nothing: 4 windows of 100 rows, one of 1,000; the e-process would need thousands."""
    quiet = 480
    seen = run_lengths([0.0] * quiet + [0.35] * 20, runs=300, rows=rows, seed=55)
    still = ~(seen[:, :quiet] >= alarm_threshold(MONTH)).any(axis=1)
    found = first(seen[still, quiet:], alarm_threshold(MONTH))
    assert float(np.median(found)) <= most


def test_what_is_simulated_is_what_the_operator_computes() -> None:
    rng = np.random.default_rng(56)
    baseline = rng.multinomial(LEAST, chances())
    reference = tuple(int(n) for n in baseline)
    windows = rng.multinomial(400, chances(0.1), size=30)
    expected, state, counts = -math.inf, RunLength(since=0.0, start=(0,) * 12), np.zeros(12, dtype=np.int64)
    for number, window in enumerate(windows, 1):
        expected = float(np.logaddexp(expected, 0) + log_e(window, baseline))
        half = counts + window // 2
        counts = counts + window
        for sums, now in ((half, number * WINDOW - 1), (counts, number * WINDOW)):  # a look on the way decides nothing
            state = advance(state, tuple(int(n) for n in sums), reference, now)
        assert state.windows == number
        assert state.log_r == pytest.approx(expected, abs=1e-6)
    live = tuple(int(n) for n in counts)
    assert log_e_drift(live, reference) == pytest.approx(float(log_e(counts, baseline)), abs=1e-6)

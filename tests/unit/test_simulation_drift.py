"""Output drift: what is found, what is left alone, and what a sampled baseline does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import gammaln
from tests.unit.simulated import Array, Stretch, shifted, traffic, true_psi

from coalmine_operator.analysis import Looked, judge
from coalmine_operator.analysis.baseline import log_e_drift
from coalmine_operator.api.spec import Analysis, Metric
from coalmine_sidecar.contract import EpochCounts, OutputCounts

ANALYSIS = Analysis(metrics=(Metric(name="scores", preset="outputDrift"),))
EVEN = (0.1,) * 10
EDGES = tuple(i / 10 for i in range(1, 10))


def counts(bins: Array) -> EpochCounts:
    whole = [int(n) for n in bins]
    return EpochCounts(requests=sum(whole), outputs={"score": OutputCounts(edges=EDGES, bins=whole)})


def failed_at(shift: float, *, share: float, looks: int, runs: int, seed: int) -> list[float]:
    """Canary requests at the first look that failed, by run; infinite where none did."""
    seen = traffic([Stretch(share, looks, EVEN, canary=shifted(EVEN, shift))], runs=runs, seed=seed, decks=True)
    found = []
    for canary, stable in zip(seen.canary, seen.stable, strict=True):
        at = math.inf
        for k, m in zip(canary, stable, strict=True):
            looked = Looked(canary=counts(k), stable=counts(m), weight=round(100 * share), age=0.0)
            if judge(ANALYSIS, looked, ())[0].verdict == "Fail":
                at = float(k.sum())
                break
        found.append(at)
    return found


@pytest.mark.parametrize(("share", "most"), [(0.05, 60), (0.5, 150)])
def test_forgotten_feature_scaling_is_found_within_a_hundred_requests(share: float, most: int) -> None:
    """Scores that move by one and a half standard deviations: PSI 2."""
    found = failed_at(1.5, share=share, looks=20, runs=20, seed=31)
    assert max(found) <= most


def test_a_clear_drift_is_found_within_a_few_hundred_requests() -> None:
    assert true_psi(shifted(EVEN, 0.8), EVEN) == pytest.approx(0.6, abs=0.02)
    assert float(np.median(failed_at(0.8, share=0.25, looks=30, runs=15, seed=32))) <= 300


@pytest.mark.parametrize("shift", [0.2, 0.3, 0.35])
def test_a_drift_below_the_threshold_never_fails(shift: float) -> None:
    """PSI 0.04 to 0.12: E is far over its threshold at the end, and still no look fails."""
    assert true_psi(shifted(EVEN, shift), EVEN) < 0.12
    seen = traffic([Stretch(0.5, 40, EVEN, canary=shifted(EVEN, shift))], runs=10, seed=33, decks=True)
    assert float(np.median(seen.log_e("different")[:, -1])) > math.log(20)
    assert failed_at(shift, share=0.5, looks=40, runs=10, seed=33) == [math.inf] * 10


def dirichlet(prior: Array, live: Array) -> Array:
    total: Array = gammaln(prior.sum(-1)) - gammaln(prior.sum(-1) + live.sum(-1))
    return total + (gammaln(prior + live) - gammaln(prior)).sum(-1)


@pytest.mark.parametrize("size", [500, 5000])
def test_a_sampled_baseline_gives_no_false_alarms_and_a_frozen_one_would(size: int) -> None:
    rng = np.random.default_rng(34)
    runs = 1000
    baseline = rng.multinomial(size, EVEN, size=runs)[:, None, :] + 0.5
    steps = np.r_[np.full(100, 100), np.full(50, 1000)]
    live = np.cumsum(rng.multinomial(np.broadcast_to(steps, (runs, 150)), EVEN), axis=1)
    p = baseline / baseline.sum(axis=-1, keepdims=True)
    bet = dirichlet(50 * p, live)
    ours, frozen = bet - dirichlet(baseline, live), bet - (live * np.log(p)).sum(axis=-1)
    first = [[int(n) for n in a] for a in (live[0, -1], baseline[0, 0])]
    assert ours[0, -1] == pytest.approx(log_e_drift(first[0], first[1]), abs=1e-6)
    assert float((ours >= math.log(20)).any(axis=1).mean()) <= 0.05
    assert float((frozen >= math.log(20)).any(axis=1).mean()) > 0.5

"""How many canary requests it takes to find what has to be found."""

from __future__ import annotations

import numpy as np
import pytest
from tests.unit.simulated import Array, Stretch, Traffic, median_to_find, traffic

from coalmine_operator.analysis import Looked, judge
from coalmine_operator.api.spec import Analysis, Metric
from coalmine_sidecar.contract import EpochCounts

ALPHA = 0.05


def msprt(seen: Traffic, tau: float = 0.02) -> Array:
    """Log of the mixture SPRT for a difference of rates, normal approximation: valid only asymptotically."""
    (k, n), (j, m) = ((c[..., 0], c.sum(axis=-1)) for c in (seen.canary, seen.stable))
    rate = (k + j) / (n + m)
    variance = np.maximum(rate * (1 - rate) * (1 / n + 1 / m), 1e-9)
    both = variance + tau**2
    found: Array = 0.5 * np.log(variance / both) + (k / n - j / m) ** 2 * tau**2 / (2 * variance * both)
    return found


@pytest.mark.parametrize(("share", "looks", "most"), [(0.05, 200, 300), (0.25, 60, 400), (0.5, 40, 650)])
def test_five_per_cent_errors_against_two(
    share: float, looks: int, most: int, record_property: pytest.RecordProperty, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = traffic([Stretch(share, looks, (0.02, 0.98), canary=(0.05, 0.95))], runs=1000, seed=21, decks=True)
    needed = median_to_find(seen.log_e("worse"), seen.canary, ALPHA)
    asymptotic = median_to_find(msprt(seen), seen.canary, ALPHA)
    with capsys.disabled():
        print(
            f"\n5 % against 2 % at a share of {share:.0%}: median {needed:.0f} canary requests (mSPRT {asymptotic:.0f})"
        )
    record_property("median", needed)
    assert needed <= most
    assert needed <= 1.4 * asymptotic


def test_a_nominal_share_that_is_not_the_true_one_costs_power_only() -> None:
    seen = traffic([Stretch(0.25, 60, (0.02, 0.98), canary=(0.05, 0.95))], runs=300, seed=22, decks=True)
    believed = Traffic(seen.canary, seen.stable, seen.share * 1.2, seen.epoch)
    assert median_to_find(believed.log_e("worse"), seen.canary, ALPHA) <= 800


def test_a_canary_that_always_fails_is_out_within_a_handful_of_requests() -> None:
    analysis = Analysis(metrics=tuple(Metric(name=f"m{i}", preset="errorRate") for i in range(20)))
    canary, stable = EpochCounts(requests=10, errors=10), EpochCounts(requests=190, errors=2)
    verdicts = judge(analysis, Looked(canary=canary, stable=stable, weight=5, age=0.0), ())
    assert {v.verdict for v in verdicts} == {"Fail"}


def test_evidence_of_steps_adds_up_to_a_verdict_none_gives_alone() -> None:
    steps = [Stretch(w, 12, (0.02, 0.98), canary=(0.05, 0.95), epoch=i) for i, w in enumerate((0.1, 0.25, 0.5))]
    seen = traffic(steps, runs=500, seed=23, decks=True)
    total = seen.log_e("worse")
    alone = [total[:, 11], total[:, 23] - total[:, 11], total[:, 35] - total[:, 23]]
    reached = np.log(1 / ALPHA)
    assert float((total[:, 35] >= reached).mean()) > 0.8
    assert max(float((e >= reached).mean()) for e in alone) < float((total[:, 35] >= reached).mean())

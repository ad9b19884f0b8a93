"""No difference between the versions, 100 looks, 1,000 runs: how often does E reach 1/alpha at any look?

Fail needs more than that (an effect in the bad direction), so these shares bound those of false rollbacks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from tests.unit.simulated import DECK, Stretch, Traffic, ever, traffic

from coalmine_operator.analysis import Looked, bank, judge
from coalmine_operator.analysis.evalue import log_e_worse
from coalmine_operator.api.spec import Analysis, Metric
from coalmine_operator.api.status import Banked
from coalmine_sidecar.contract import EpochCounts, OutputCounts

ALPHA = 0.05
RUNS = 1000

FEW = (0.02, 0.98)  # errors
MANY = (0.3, 0.7)  # slow answers
EVEN = (0.1,) * 10  # outputs in their deciles
SKEWED = (0.5, 0.2, 0.1, 0.08, 0.05, 0.03, 0.02, 0.01, 0.005, 0.005)


def run(stretches: Sequence[Stretch], decks: bool, seed: int) -> Traffic:
    return traffic(stretches, runs=RUNS, seed=seed, decks=decks)


@pytest.mark.parametrize("decks", [False, True], ids=["tossed", "decks"])
@pytest.mark.parametrize(("usual", "share"), [(FEW, 0.05), (FEW, 0.25), (FEW, 0.5), (MANY, 0.25)])
def test_rates_without_difference(usual: Sequence[float], share: float, decks: bool) -> None:
    seen = run([Stretch(share, 100, usual)], decks, seed=11)
    assert ever(seen.log_e("worse"), ALPHA) <= ALPHA


@pytest.mark.parametrize(("share", "usual", "decks"), [(0.05, SKEWED, False), (0.5, EVEN, True)])
def test_outputs_without_difference(share: float, usual: Sequence[float], decks: bool) -> None:
    seen = run([Stretch(share, 100, usual)], decks, seed=12)
    assert ever(seen.log_e("different"), ALPHA) <= ALPHA


@pytest.mark.parametrize("decks", [False, True], ids=["tossed", "decks"])
def test_shares_and_error_rates_that_rise_together(decks: bool) -> None:
    steps = [Stretch(w, n, (p, 1 - p), epoch=i) for i, (w, n, p) in enumerate(STEPS)]
    seen = run(steps, decks, seed=13)
    assert ever(seen.log_e("worse"), ALPHA) <= ALPHA
    # The same counts pooled over the steps are Simpson's trap: nearly every run would have been rolled back.
    canary, stable = seen.total()
    share = float(np.mean(seen.share))
    pooled = log_e_worse(canary[..., 0], canary[..., 1], stable[..., 0], stable[..., 1], share)
    assert ever(pooled, ALPHA) > 0.9


#: Share of the canary, looks, error rate.
STEPS = ((0.05, 33, 0.01), (0.25, 33, 0.04), (0.5, 34, 0.1))


def test_shares_and_outputs_that_drift_together() -> None:
    steps = [Stretch(w, 33, p, epoch=i) for i, (w, p) in enumerate(((0.05, EVEN), (0.25, SKEWED), (0.5, EVEN[::-1])))]
    seen = run(steps, True, seed=14)
    assert ever(seen.log_e("different"), ALPHA) <= ALPHA


@pytest.mark.parametrize("decks", [False, True], ids=["tossed", "decks"])
def test_an_outage_of_both_in_the_middle(decks: bool) -> None:
    share = 0.25
    outage = [Stretch(share, 40, FEW), Stretch(share, 20, (0.7, 0.3)), Stretch(share, 40, FEW)]
    seen = run(outage, decks, seed=15)
    assert ever(seen.log_e("worse"), ALPHA) <= ALPHA


def test_a_better_canary_fails_less_often_still() -> None:
    seen = run([Stretch(0.25, 100, (0.03, 0.97), canary=(0.02, 0.98))], True, seed=16)
    assert ever(seen.log_e("worse"), ALPHA) <= 0.005


ANALYSIS = Analysis(
    alpha=ALPHA,
    metrics=(
        Metric(name="errors", preset="errorRate"),
        Metric(name="slow", preset="latency", threshold="100ms"),
        Metric(name="scores", preset="outputDrift"),
    ),
)


def test_the_whole_analysis_on_a_rollout_without_difference() -> None:
    """`judge` and `bank` themselves at every look: three metrics, three steps, an outage; and no look ever fails."""
    rng = np.random.default_rng(17)
    failed = 0
    for _ in range(15):
        banked: tuple[Banked, ...] = ()
        for weight, looks, error in ((5, 15, 0.01), (25, 15, 0.2), (50, 15, 0.05)):
            counts = [np.zeros(9, dtype=np.int64), np.zeros(9, dtype=np.int64)]
            for _ in range(looks):
                for side, n in zip(counts, (weight, DECK - weight), strict=True):
                    side[:2] += rng.multinomial(n, (error, 1 - error))
                    side[2:4] += rng.multinomial(n, MANY)
                    side[4:] += rng.multinomial(n, (0.2,) * 5)
                looked = Looked(canary=_counts(counts[0]), stable=_counts(counts[1]), weight=weight, age=500.0)
                verdicts = judge(ANALYSIS, looked, banked)
                failed += any(v.verdict == "Fail" for v in verdicts)
            banked = bank(ANALYSIS, looked, banked)
        assert [v.verdict for v in verdicts] == ["Pass"] * 3
    assert failed == 0


def _counts(side: np.ndarray) -> EpochCounts:
    bad, good, over, within, *bins = (int(n) for n in side)
    return EpochCounts(
        requests=bad + good,
        errors=bad,
        answered=over + within,
        thresholds=(0.1,),
        over=[over],
        outputs={"score": OutputCounts(edges=(0.2, 0.4, 0.6, 0.8), bins=bins)},
    )

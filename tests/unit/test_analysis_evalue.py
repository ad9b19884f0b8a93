"""The e-value is one: proved by counting everything out at small sizes."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom

from coalmine_operator.analysis.evalue import KEPT, log_e_different, log_e_worse

SHARES = (0.02, 0.05, 0.1, 0.25, 0.4, 0.5, 0.75, 0.97)
BINARY = "worse"


def e(statistic: str, canary: tuple[int, ...], stable: tuple[int, ...], share: float) -> float:
    if statistic == BINARY:
        return math.exp(log_e_worse(canary[0], canary[1], stable[0], stable[1], share))
    return math.exp(log_e_different(canary, stable, share))


@pytest.mark.parametrize("nominal", [0.05, 0.25, 0.5])
@pytest.mark.parametrize("totals", [(1, 3), (3, 9), (6, 6), (10, 2), (40, 160)])
def test_expectation_is_at_most_one_for_every_true_share_and_every_better_canary(
    nominal: float, totals: tuple[int, int]
) -> None:
    bad, good = (np.arange(n + 1) for n in totals)
    kb, kg = np.meshgrid(bad, good, indexing="ij")
    values = np.exp(log_e_worse(kb, kg, totals[0] - kb, totals[1] - kg, nominal))
    for of_bad, of_good in itertools.combinations_with_replacement(SHARES, 2):
        chances = binom.pmf(kb, totals[0], of_bad) * binom.pmf(kg, totals[1], of_good)
        assert float((values * chances).sum()) <= 1 + 1e-9


@pytest.mark.parametrize("nominal", [0.05, 0.5])
@pytest.mark.parametrize("totals", [(1, 1, 1), (2, 5, 3), (12, 4, 1), (6, 6, 6)])
def test_expectation_over_bins_is_at_most_one_for_every_true_share(nominal: float, totals: tuple[int, ...]) -> None:
    canary = np.stack(np.meshgrid(*(np.arange(n + 1) for n in totals), indexing="ij"), axis=-1)
    values = np.exp(log_e_different(canary, np.array(totals) - canary, nominal))
    for share in SHARES:
        chances = np.prod([binom.pmf(canary[..., b], n, share) for b, n in enumerate(totals)], axis=0)
        assert float((values * chances).sum()) <= 1 + 1e-9


def test_every_sequence_of_labels_counted_one_by_one() -> None:
    outcomes = (0, 1, 1, 0, 1, 1, 1, 0)
    for share in (0.05, 0.25, 0.6):
        total = 0.0
        for labels in itertools.product((True, False), repeat=len(outcomes)):
            counts = [
                sum(o == b and label == who for o, label in zip(outcomes, labels, strict=True))
                for who in (True, False)
                for b in (0, 1)
            ]
            chance = math.prod(share if label else 1 - share for label in labels)
            total += chance * e(BINARY, (counts[0], counts[1]), (counts[2], counts[3]), 0.25)
        assert total <= 1 + 1e-9


SAME = [((w,) * 3, nominal) for w, nominal in ((0.25, 0.25), (0.5, 0.5), (0.1, 0.25), (0.6, 0.25), (0.05, 0.05))]
BETTER = [((0.2, 0.3), 0.25), ((0.5, 0.9), 0.25), ((0.01, 0.02), 0.5)]


@pytest.mark.parametrize(
    ("statistic", "bins", "horizon", "shares", "nominal"),
    [(BINARY, 2, 9, *true) for true in SAME + BETTER] + [("different", 3, 6, *true) for true in SAME],
)
def test_no_way_of_stopping_and_of_choosing_requests_wins(
    statistic: str, bins: int, horizon: int, shares: tuple[float, ...], nominal: float
) -> None:
    """Snell's envelope: the best anyone can do who sees all labels, stops at will and picks the next outcome."""

    @functools.cache
    def value(canary: tuple[int, ...], stable: tuple[int, ...]) -> float:
        now = e(statistic, canary, stable, nominal)
        if sum(canary) + sum(stable) == horizon:
            return now
        best = max(
            w * value(_plus(canary, b), stable) + (1 - w) * value(canary, _plus(stable, b))
            for b, w in enumerate(shares[:bins])
        )
        return max(now, best)

    assert value((0,) * bins, (0,) * bins) <= 1 + 1e-9


def _plus(counts: tuple[int, ...], at: int) -> tuple[int, ...]:
    return (*counts[:at], counts[at] + 1, *counts[at + 1 :])


@pytest.mark.parametrize(("share", "nominal"), [(0.5, 0.5), (0.25, 0.25), (0.1, 0.05)])
@pytest.mark.parametrize("every", [2, 5])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_chance_of_ever_crossing_is_at_most_alpha_looking_after_each_request(
    share: float, nominal: float, every: int, alpha: float
) -> None:
    """Exactly, by carrying along the distribution of the counts of paths that have not crossed."""
    horizon = 80
    bad, good = horizon // every, horizon - horizon // every
    kb, kg = np.meshgrid(np.arange(bad + 1), np.arange(good + 1), indexing="ij")
    alive = np.zeros((bad + 1, good + 1))
    alive[0, 0] = 1.0
    crossed, nb, ng = 0.0, 0, 0
    for i in range(1, horizon + 1):
        is_bad = i % every == 0
        nb, ng = nb + is_bad, ng + (not is_bad)
        alive = (1 - share) * alive + share * np.roll(alive, 1, axis=0 if is_bad else 1)
        possible = (kb[: nb + 1, : ng + 1], kg[: nb + 1, : ng + 1])
        over = log_e_worse(*possible, nb - possible[0], ng - possible[1], nominal) >= math.log(1 / alpha)
        here = alive[: nb + 1, : ng + 1]
        crossed += float(here[over].sum())
        here[over] = 0.0
    assert crossed + float(alive.sum()) == pytest.approx(1.0)
    assert 0 < crossed <= alpha


def test_nothing_seen_is_no_evidence() -> None:
    assert float(log_e_worse(0, 0, 0, 0, 0.5)) == pytest.approx(0.0, abs=1e-9)
    assert float(log_e_different([0, 0, 0], [0, 0, 0], 0.5)) == pytest.approx(0.0, abs=1e-9)


def test_direction_counts() -> None:
    assert float(log_e_worse(0, 5000, 500, 4500, 0.5)) <= 0.0
    assert float(log_e_worse(500, 4500, 0, 5000, 0.5)) > 100


def test_an_epoch_costs_at_most_what_is_not_kept_back() -> None:
    worst = [log_e_worse(0, 10**6, 10**5, 10**6, 0.5), log_e_worse(0, 0, 10, 10**7, 0.5)]
    assert min(float(x) for x in worst) >= math.log(KEPT) - 1e-9


def test_finite_and_right_at_a_billion_requests() -> None:
    huge = 10**9
    with np.errstate(all="raise", under="ignore"):
        same = float(log_e_worse(huge // 50, huge, huge // 50, huge, 0.5))
        different = float(log_e_worse(huge // 20, huge, huge // 50, huge, 0.5))
        bins = float(log_e_different([huge] * 80, [huge] * 80, 0.5))
        lost = float(log_e_different([0] * 80, [huge] * 80, 0.05))
    assert same <= 0
    assert 1e6 < different < math.inf
    assert bins <= 0
    assert lost <= 0


def test_small_differences_are_found_with_enough_requests() -> None:
    """2.0 % against 2.1 %: no shift of the log-odds is far from one that is bet on."""
    n = 2_000_000
    assert float(log_e_worse(round(0.021 * n), round(0.979 * n), round(0.020 * n), round(0.980 * n), 0.5)) > 10

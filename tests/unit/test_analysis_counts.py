"""Sums over pods, bins, effect sizes."""

from __future__ import annotations

import bisect
import math
import random

import pytest
from scipy.special import gammaln

from coalmine_operator.analysis import freeze_bins, merge
from coalmine_operator.analysis.baseline import log_e_drift
from coalmine_operator.analysis.effect import psi
from coalmine_sidecar.contract import EpochCounts, OutputCounts


def test_merge_adds() -> None:
    part = EpochCounts(
        requests=10,
        errors=1,
        client_errors=2,
        answered=7,
        thresholds=(0.1, 0.2),
        over=[4, 3],
        outputs={"score": OutputCounts(edges=(0.5,), bins=[3, 2], missing=2)},
    )
    both = merge([part, part])
    assert (both.requests, both.errors, both.client_errors, both.answered, both.over) == (20, 2, 4, 14, [8, 6])
    assert both.outputs["score"].bins == [6, 4]
    assert both.outputs["score"].missing == 4


def test_merge_of_nothing_is_empty() -> None:
    assert merge([]) == EpochCounts()


def test_other_thresholds_and_edges_are_left_out_not_misadded() -> None:
    new = EpochCounts(
        requests=10, answered=10, thresholds=(0.2,), over=[3], outputs={"s": OutputCounts(edges=(0.5,), bins=[4, 6])}
    )
    old = EpochCounts(
        requests=5, answered=5, thresholds=(0.9,), over=[1], outputs={"s": OutputCounts(edges=(0.7,), bins=[5, 0])}
    )
    for order in ([new, old], [old, new]):
        both = merge(order)
        assert both.requests == 15
        assert (both.answered, both.thresholds, both.over) == (10, (0.2,), [3])
        assert (both.outputs["s"].edges, both.outputs["s"].bins) == ((0.5,), [4, 6])


def test_a_class_that_may_hide_in_other_is_counted_as_other() -> None:
    whole = EpochCounts(outputs={"label": OutputCounts(classes={"a": 5, "b": 2})})
    full = EpochCounts(outputs={"label": OutputCounts(classes={"a": 1, "_other": 3})})
    assert merge([whole, full]).outputs["label"].classes == {"_other": 5, "a": 6}


def test_deciles_of_a_smooth_output() -> None:
    rng = random.Random(3)
    values = [rng.random() for _ in range(1000)]
    edges = freeze_bins({"score": values})["score"]
    assert len(edges) == 11
    counts = [0] * 12
    for v in values:
        counts[bisect.bisect_right(edges, v)] += 1
    assert counts.pop(0) == counts.pop() == 0
    assert min(counts) > 50
    assert max(counts) < 160


@pytest.mark.parametrize(
    ("values", "edges"),
    [
        ([0.0] * 95 + [1.0] * 5, (-1, 0.5, 2)),
        ([0.0] * 50 + [1.0] * 50, (-1, 0.5, 2)),
        ([7.0] * 200, (7 - 7e-6, 7 + 7e-6)),
        ([0.0] * 200, (-1e-6, 1e-6)),
        ([1e-9 * i for i in range(100)] + [1 - 1e-9 * i for i in range(100)], (-1, 0.5, 2)),  # sure of everything
    ],
)
def test_bins_of_outputs_with_few_values(values: list[float], edges: tuple[float, ...]) -> None:
    assert freeze_bins({"x": values})["x"] == pytest.approx(edges)


def test_outputs_with_too_few_or_no_finite_values_get_no_bins() -> None:
    assert freeze_bins({"few": [0.1] * 99, "nan": [math.nan] * 500, "inf": [math.inf] * 500, "none": []}) == {}


def test_bins_of_extreme_values_are_finite_and_ascend() -> None:
    for values in ([1e308 * (-1) ** i for i in range(200)], [1 + 1e-16 * i for i in range(200)], [5e-324, 0.0] * 100):
        edges = freeze_bins({"x": values})["x"]
        assert all(map(math.isfinite, edges))
        assert list(edges) == sorted(set(edges))


def test_bins_at_most_must_make_sense() -> None:
    with pytest.raises(ValueError, match="most: 1 is not between 2 and 63"):
        freeze_bins({}, most=1)


def test_psi_by_hand() -> None:
    n, m = 100, 200
    q, p = [(60 + 0.5) / 101, (40 + 0.5) / 101], [(80 + 0.5) / 201, (120 + 0.5) / 201]
    raw = sum((a - b) * math.log(a / b) for a, b in zip(q, p, strict=True))
    value, variance = psi([60, 0, 40], [80, 0, 120])
    assert value == pytest.approx(raw - (1 / n + 1 / m))
    assert 0 < variance < 1


def test_psi_of_chance_alone_is_nothing_on_average_and_its_error_is_told() -> None:
    rng = random.Random(5)
    shift = (0.25, 0.25, 0.2, 0.2, 0.1)
    values, variances = [], []
    for _ in range(400):
        live = [0] * 5
        reference = [0] * 5
        for b in rng.choices(range(5), shift, k=300):
            live[b] += 1
        for b in rng.choices(range(5), shift[::-1], k=900):
            reference[b] += 1
        value, variance = psi(live, reference)
        values.append(value)
        variances.append(variance)
    truth = sum((a - b) * math.log(a / b) for a, b in zip(shift, shift[::-1], strict=True))
    mean = sum(values) / len(values)
    spread = sum((v - mean) ** 2 for v in values) / len(values)
    assert mean == pytest.approx(truth, abs=0.02)
    assert spread == pytest.approx(sum(variances) / len(variances), rel=0.3)
    same = [psi([30, 30, 40], [300, 300, 400])[0], psi([33, 30, 37], [300, 300, 400])[0]]
    assert max(same) < 0.02


def test_psi_without_one_side_is_nothing() -> None:
    assert psi([0, 0], [5, 5]) == (0.0, 0.0)
    assert psi([], []) == (0.0, 0.0)


def test_baseline_e_value_against_scipy() -> None:
    def dirichlet(prior: list[float], counts: list[int]) -> float:
        terms = sum(float(gammaln(a + c) - gammaln(a)) for a, c in zip(prior, counts, strict=True))
        return float(gammaln(sum(prior)) - gammaln(sum(prior) + sum(counts))) + terms

    baseline, live = [500, 300, 0, 200], [20, 50, 3, 27]
    posterior = [b + 0.5 for b in baseline]
    bet = [50 * a / sum(posterior) for a in posterior]
    assert log_e_drift(live, baseline) == pytest.approx(dirichlet(bet, live) - dirichlet(posterior, live))
    assert log_e_drift([0] * 4, baseline) == 0
    assert math.isfinite(log_e_drift([10**9] * 4, [10**9] * 4))

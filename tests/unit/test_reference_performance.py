"""Performance from bins against scikit-learn on the rows themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    f1_score,
    log_loss,
    mean_absolute_error,
    mean_squared_error,
    precision_score,
    r2_score,
    recall_score,
    roc_auc_score,
)

from coalmine_operator.analysis import performance as formulas
from coalmine_operator.analysis.performance_tally import BinaryTally, ClassTally, ErrorTally
from coalmine_operator.analysis.reference import score_edges

Array = NDArray[np.float64]
EXACT = pytest.approx


def drawn(rows: int, share: float, apart: float, seed: int) -> tuple[Array, Array]:
    """Calibrated scores of two normal classes `apart` from each other, `share` of them positive; and labels."""
    random = np.random.default_rng(seed)
    truth = (random.random(rows) < share).astype(float)
    x = random.normal(size=rows) + apart * truth
    odds = math.log(share / (1 - share)) + apart * x - apart**2 / 2
    return 1 / (1 + np.exp(-odds)), truth


CASES = [(0.5, 1.5), (0.05, 2.0), (0.01, 2.0), (0.01, 3.5), (0.9, 1.0)]


def tally(edges: tuple[float, ...], scores: Array, truth: Array) -> BinaryTally:
    found = BinaryTally(edges)
    found.add(scores, scores >= 0.5, truth > 0)
    return found


@pytest.mark.parametrize(("share", "apart"), CASES)
def test_figures_are_those_of_the_rows(share: float, apart: float) -> None:
    """Those that need no order of the scores are exact; the others within what 100 bins cost."""
    scores, truth = drawn(60_000, share, apart, 1)
    edges = score_edges(scores, truth > 0, 100, 0.5)
    later, labels = drawn(60_000, share, apart, 2)
    found = tally(edges, later, labels).figures()
    predicted = later >= 0.5
    assert found["auc"] == pytest.approx(roc_auc_score(labels, later), abs=0.0005)
    assert found["pr_auc"] == pytest.approx(average_precision_score(labels, later), abs=0.012)
    assert found["accuracy"] == EXACT(accuracy_score(labels, predicted))
    assert found["precision"] == EXACT(precision_score(labels, predicted))
    assert found["recall"] == EXACT(recall_score(labels, predicted))
    assert found["f1"] == EXACT(f1_score(labels, predicted))
    assert found["log_loss"] == EXACT(log_loss(labels, later))
    assert found["brier"] == EXACT(brier_score_loss(labels, later))


@pytest.mark.parametrize(("share", "apart"), CASES)
def test_areas_are_those_of_scores_that_are_equal_within_a_bin(share: float, apart: float) -> None:
    scores, truth = drawn(5000, share, apart, 3)
    edges = (0.01, 0.1, 0.3, 0.5, 0.9)
    bins = np.searchsorted(edges, scores, side="right")
    found = tally(edges, scores, truth).figures()
    assert found["auc"] == EXACT(roc_auc_score(truth, bins))
    assert found["pr_auc"] == EXACT(average_precision_score(truth, bins))


@pytest.mark.parametrize(("share", "apart"), CASES)
def test_what_is_expected_without_labels_is_what_comes(share: float, apart: float) -> None:
    """Nothing drifted, so the estimate is of the same figures: within four standard errors of so few positives."""
    scores, truth = drawn(100_000, share, apart, 4)
    edges = score_edges(scores, truth > 0, 100, 0.5)
    reference = tally(edges, scores, truth)
    calibration = formulas.calibrate(reference.positives, reference.counts)
    later, labels = drawn(100_000, share, apart, 5)
    live = tally(edges, later, labels)
    estimated, realised = live.estimated(calibration), live.figures()
    for name in ("auc", "accuracy", "recall", "f1"):
        assert estimated[f"{name}_estimated"] == pytest.approx(realised[name], abs=0.04 if share == 0.01 else 0.015)
    # And not because it looks at the labels: with all of them turned over it stays.
    turned = tally(edges, later, 1 - labels)
    assert turned.estimated(calibration) == pytest.approx(estimated)
    assert turned.figures()["auc"] == pytest.approx(1 - realised["auc"])


@pytest.mark.parametrize("seed", range(5))
def test_isotonic_regression_is_scikit_learns(seed: int) -> None:
    random = np.random.default_rng(seed)
    values, weights = random.normal(size=300).cumsum(), random.integers(1, 50, 300).astype(float)
    wanted = IsotonicRegression().fit(np.arange(300), values, sample_weight=weights).predict(np.arange(300))
    assert formulas.isotonic(values, weights) == pytest.approx(wanted)


def test_calibration_never_falls_and_fills_empty_bins_from_their_neighbours() -> None:
    found = formulas.calibrate([0, 0, 8, 3, 0, 0], [0, 10, 10, 10, 0, 0])
    assert found.tolist() == pytest.approx([0.0, 0.0, 0.55, 0.55, 0.55, 0.55])
    assert formulas.calibrate([0, 0, 5], [10, 0, 10]).tolist() == pytest.approx([0, 0.25, 0.5])
    with pytest.raises(ValueError, match="no row has a score and a label"):
        formulas.calibrate([0, 0], [0, 0])


def test_calibration_error_of_deciles() -> None:
    """Scores of 0.8 that come true half of the time are off by 0.3, those of 0.2 not at all."""
    scores = np.array([0.8] * 10 + [0.2] * 10)
    truth = np.array([1.0] * 5 + [0.0] * 5 + [1.0] * 2 + [0.0] * 8)
    assert tally((0.5,), scores, truth).figures()["ece"] == pytest.approx(0.15)
    assert formulas.deciles(np.array([0.0, 0.0999, 0.1, 0.95, 1.0])).tolist() == [0, 0, 1, 9, 9]


def test_certain_scores_that_are_wrong_cost_a_finite_loss() -> None:
    scores, truth = np.array([0.0, 1.0]), np.array([1.0, 0.0])
    assert tally((0.5,), scores, truth).figures()["log_loss"] == pytest.approx(-math.log(1e-15), rel=1e-3)


def test_figures_that_nothing_says_anything_about_are_nan() -> None:
    only_negative = tally((0.5,), np.array([0.1, 0.2]), np.array([0.0, 0.0])).figures()
    assert math.isnan(only_negative["auc"])
    assert math.isnan(only_negative["recall"])
    assert math.isnan(only_negative["precision"])
    assert only_negative["accuracy"] == 1
    assert all(math.isnan(value) for value in BinaryTally((0.5,)).figures().values())


def test_tallies_add_up() -> None:
    scores, truth = drawn(3000, 0.3, 1.0, 6)
    whole = tally((0.2, 0.5, 0.8), scores, truth)
    parts = BinaryTally((0.2, 0.5, 0.8))
    for part in np.array_split(np.arange(3000), 7):
        parts += tally((0.2, 0.5, 0.8), scores[part], truth[part])
    assert parts.rows == 3000
    assert parts.figures() == pytest.approx(whole.figures())


def test_many_classes() -> None:
    random = np.random.default_rng(7)
    names = np.array(["ant", "bee", "cat", "dog"])
    truth = names[random.choice(4, 2000, p=[0.5, 0.3, 0.15, 0.05])]
    predicted = np.where(random.random(2000) < 0.7, truth, names[random.integers(0, 4, 2000)])
    found = ClassTally(["ant", "bee", "cat", "dog"])
    found.add(predicted.tolist(), truth.tolist())
    wanted = {"accuracy": accuracy_score(truth, predicted)}
    for name, score in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        wanted[name] = score(truth, predicted, average="macro")
        wanted[f"{name}_weighted"] = score(truth, predicted, average="weighted")
    assert found.figures() == pytest.approx(wanted)


def test_classes_without_a_place_share_one() -> None:
    found = ClassTally(["a"])
    found.add(["a", "x", "y"], ["a", "y", "y"])
    assert found.matrix.tolist() == [[1, 0], [0, 2]]


@pytest.mark.parametrize("center", [0.0, 1e6])
def test_regression(center: float) -> None:
    random = np.random.default_rng(8)
    truth = random.normal(size=4000) * 3 + center
    predicted = truth + random.normal(size=4000)
    found = ErrorTally(center)
    for part in np.array_split(np.arange(4000), 3):
        found.add(predicted[part], truth[part])
    assert found.figures() == pytest.approx(
        {
            "mae": mean_absolute_error(truth, predicted),
            "rmse": math.sqrt(mean_squared_error(truth, predicted)),
            "r2": r2_score(truth, predicted),
        }
    )

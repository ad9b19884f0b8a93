"""Figures from the counters, as Prometheus gets them, against scikit-learn on the rows themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from math import sqrt

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.isotonic import IsotonicRegression

from coalmine_sidecar.feedback.predicted import Predicted
from coalmine_sidecar.monitoring import MAX_GROUPS, Feedback, Monitoring, Prediction, ScoreBins, Slice, Task
from coalmine_sidecar.telemetry.performance import MAX_NAMES, PerformanceCounters
from coalmine_sidecar.telemetry.performancemetrics import performance_metrics
from coalmine_sidecar.telemetry.slices import slice_metrics

Samples = dict[tuple[str, ...], float]
Array = np.ndarray


def counters(
    task: Task = "binary", bins: ScoreBins | None = None, center: float = 0.0, **more: object
) -> PerformanceCounters:
    monitoring = Monitoring(task=task, feedback=Feedback(), **more)  # type: ignore[arg-type]
    return PerformanceCounters(monitoring, bins or ScoreBins(), center)


def rows(scores: Iterable[float | None], labels: Sequence[str | None] = ()) -> Predicted:
    columns: list[float | None] = [None if score is None else float(score) for score in scores]
    return Predicted("p", "a", 0.0, columns, list(labels) or [None] * len(columns))


def exposed(*counted: PerformanceCounters) -> dict[str, Samples]:
    """Sums over pods, by name and labels (in the order of their names)."""
    found: dict[str, Samples] = {}
    for pod in counted:
        for family in performance_metrics(("version",), [(("v1",), pod)]):
            for sample in family.samples:
                if sample.name.endswith("_created"):
                    continue
                by = found.setdefault(sample.name.removesuffix("_total"), {})
                labels = {name: text for name, text in sample.labels.items() if name != "version"}
                key = tuple(labels[name] for name in sorted(labels))
                by[key] = by.get(key, 0.0) + sample.value
    return found


def auc(got: Mapping[str, Samples], truth: str) -> float:
    """sum_b P_b (N - Nfrom_b + N_b/2) / (P N), as the recording rule has it. Keys: bin, class, truth."""
    score, beyond = got["coalmine_score"], got["coalmine_score_from"]
    bins = sorted({key[0] for key in score})
    positives = sum(score[b, "1", truth] for b in bins)
    negatives = sum(score[b, "0", truth] for b in bins)
    assert beyond[bins[0], "0", truth] == pytest.approx(negatives)
    area = sum(score[b, "1", truth] * (negatives - beyond[b, "0", truth] + score[b, "0", truth] / 2) for b in bins)
    return area / (positives * negatives)


@pytest.fixture(scope="module")
def census() -> tuple[Array, Array]:
    """Scores and truths of 20,000 rows, calibrated nowhere in particular."""
    draw = np.random.default_rng(7)
    score = draw.beta(0.7, 1.1, 20_000)
    return score, (draw.random(20_000) < 0.1 + 0.75 * score**1.3).astype(int)


@pytest.fixture(scope="module")
def two_pods(census: tuple[Array, Array]) -> tuple[PerformanceCounters, PerformanceCounters]:
    score, truth = census
    pods = (counters(), counters())
    for at in range(0, len(score), 50):
        part = rows(score[at : at + 50])
        pod = pods[at // 50 % 2]
        pod.predicted(part)
        pod.labelled(part, [str(one) for one in truth[at : at + 50]], 5.0)
    return pods


def test_auc_from_bins(census: tuple[Array, Array], two_pods: tuple[PerformanceCounters, ...]) -> None:
    score, truth = census
    assert auc(exposed(*two_pods), "label") == pytest.approx(sk.roc_auc_score(truth, score), abs=3e-4)


def test_auc_is_exact_where_scores_lie_on_edges(census: tuple[Array, Array]) -> None:
    # The last bin has all from 0.99 on.
    score, truth = np.minimum(np.round(census[0], 2), 0.99), census[1]
    pod = counters()
    pod.labelled(rows(score), [str(one) for one in truth], 0.0)
    assert auc(exposed(pod), "label") == pytest.approx(sk.roc_auc_score(truth, score), abs=1e-12)


def test_losses_and_confusion(census: tuple[Array, Array], two_pods: tuple[PerformanceCounters, ...]) -> None:
    score, truth = census
    got = exposed(*two_pods)
    n = got["coalmine_labels_scored"][()]
    assert n == got["coalmine_labels"][()] == len(score)
    assert got["coalmine_label_log_loss"][()] / n == pytest.approx(sk.log_loss(truth, score), rel=1e-12)
    assert got["coalmine_label_squared_error"][()] / n == pytest.approx(sk.brier_score_loss(truth, score), rel=1e-12)
    assert got["coalmine_label_absolute_error"][()] / n == pytest.approx(
        sk.mean_absolute_error(truth, score), rel=1e-12
    )
    wanted = sk.confusion_matrix(truth, score >= 0.5)
    assert [[got["coalmine_confusion"][a, p] for p in "01"] for a in "01"] == wanted.tolist()


def test_expected_calibration_error(census: tuple[Array, Array], two_pods: tuple[PerformanceCounters, ...]) -> None:
    score, truth = census
    sums = exposed(*two_pods)["coalmine_calibration"]
    got = sum(abs(sums[str(d), "score"] - sums[str(d), "positive"]) for d in range(10)) / sum(
        sums[str(d), "count"] for d in range(10)
    )
    cut = np.minimum((score * 10).astype(int), 9)
    wanted = sum(abs(score[cut == d].sum() - truth[cut == d].sum()) for d in range(10)) / len(score)
    assert got == pytest.approx(wanted, rel=1e-12)


def test_estimates_without_labels(census: tuple[Array, Array]) -> None:
    """CBPE row by row, by scikit-learn's weights, where each row weighs what its bin's calibration says."""
    score, truth = census
    edges = np.arange(1, 100) / 100
    bins = np.searchsorted(edges, score, side="right")
    isotonic = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(score, truth)
    centers = np.array([0.005, *(sum(pair) / 2 for pair in pairwise(edges)), 0.995])
    calibration = isotonic.predict(centers)
    pods = [counters(bins=ScoreBins(tuple(edges.tolist()), tuple(calibration.tolist()))) for _ in range(2)]
    for at, pod in enumerate(pods):
        pod.predicted(rows(score[at::2]))
    got = exposed(*pods)
    weight = calibration[bins]
    both = np.concatenate([np.ones_like(score), np.zeros_like(score)])
    weights = np.concatenate([weight, 1 - weight])
    wanted = sk.roc_auc_score(both, np.concatenate([bins, bins]), sample_weight=weights)
    assert auc(got, "estimate") == pytest.approx(wanted, abs=1e-9)
    chosen = np.concatenate([score, score]) >= 0.5
    table = sk.confusion_matrix(both, chosen, sample_weight=weights)
    estimated = got["coalmine_confusion_estimated"]
    assert [[estimated[a, p] for p in "01"] for a in "01"] == [pytest.approx(line) for line in table.tolist()]
    assert auc(got, "estimate") == pytest.approx(sk.roc_auc_score(truth, score), abs=0.01), "well calibrated: near"


def test_nothing_is_estimated_without_calibration(two_pods: tuple[PerformanceCounters, ...]) -> None:
    got = exposed(*two_pods)
    assert "coalmine_confusion_estimated" not in got
    assert {key[2] for key in got["coalmine_score"]} == {"label"}


def test_nothing_about_labels_without_feedback() -> None:
    calibrated = ScoreBins((0.5,), (0.2, 0.7))
    pod = PerformanceCounters(Monitoring(), calibrated, 0.0)
    pod.predicted(rows([0.3, 0.9]))
    got = exposed(pod)
    assert set(got) == {"coalmine_score", "coalmine_score_from", "coalmine_confusion_estimated"}
    assert got["coalmine_score"] == {
        ("000", "0", "estimate"): pytest.approx(0.8),
        ("001", "0", "estimate"): pytest.approx(0.3),
        ("000", "1", "estimate"): pytest.approx(0.2),
        ("001", "1", "estimate"): pytest.approx(0.7),
    }


def test_all_bins_are_there_from_the_start() -> None:
    """A first increment has to show in a rate."""
    got = exposed(counters(bins=ScoreBins((0.5,), (0.2, 0.7))))
    assert len(got["coalmine_score"]) == 8
    assert len(got["coalmine_confusion"]) == len(got["coalmine_confusion_estimated"]) == 4
    assert set(got["coalmine_score"].values()) == {0.0}
    assert len(got["coalmine_calibration"]) == 30


@pytest.mark.parametrize("score", [0.0, 1.0, 1e-300, 1.7, -3.0])
def test_sure_mistakes_lose_a_finite_amount(score: float) -> None:
    pod = counters()
    pod.labelled(rows([score]), ["0" if score > 0.5 else "1"], 0.0)
    assert pod.log_loss == pytest.approx(-np.log(1e-15), rel=1e-2)
    assert pod.squared_error == pytest.approx(1.0)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), None])
def test_rows_without_a_score_have_a_class_at_most(score: float | None) -> None:
    pod = counters(bins=ScoreBins((0.5,), (0.2, 0.7)))
    part = rows([score, score], ["1", None])
    pod.predicted(part)
    pod.labelled(part, ["1", "1"], 0.0)
    assert (pod.labels, pod.scored, sum(map(sum, pod.seen)), sum(map(sum, pod.truths))) == (2, 0, 0, 0)
    assert sum(pod.confusion.values()) == 1
    assert pod.log_loss == 0


@pytest.mark.parametrize(
    ("positive", "label", "expected"),
    [
        ("1", "true", 1),
        ("1", "1.0", 1),
        ("true", "1", 1),
        ("1", "1", 1),
        ("1", "0", 0),
        ("fraud", "fraud", 1),
        ("fraud", "1", 0),
        ("true", "true", 1),
    ],
)
def test_what_a_positive_label_is(positive: str, label: str, expected: int) -> None:
    pod = counters(prediction=Prediction(positive=positive))
    pod.labelled(rows([0.9]), [label], 0.0)
    assert pod.confusion[str(expected), "1"] == 1


def test_the_models_own_class_wins_over_the_threshold() -> None:
    pod = counters(prediction=Prediction(threshold=0.3))
    pod.labelled(rows([0.4, 0.4, 0.2], [None, "0", "1"]), ["1", "1", "1"], 0.0)
    assert (pod.confusion["1", "1"], pod.confusion["1", "0"]) == (2, 1)


def regression(truth: Array, score: Array, center: float) -> dict[str, float]:
    """R2, RMSE, MAE, mean and deviation of the truth, from two pods' sums."""
    pods = [counters("regression", center=center) for _ in range(2)]
    for at, pod in enumerate(pods):
        pod.labelled(rows(score[at::2]), [repr(float(one)) for one in truth[at::2]], 0.0)
    got = exposed(*pods)
    n, squares = got["coalmine_labels_scored"][()], got["coalmine_label_squared_deviation"][()]
    away = got["coalmine_label_deviation"]["above",] - got["coalmine_label_deviation"]["below",]
    spread = squares - away**2 / n
    error = got["coalmine_label_squared_error"][()]
    return {
        "r2": 1 - error / spread,
        "rmse": sqrt(error / n),
        "mae": got["coalmine_label_absolute_error"][()] / n,
        "mean": center + away / n,
        "stddev": sqrt(spread / (n - 1)),
    }


def test_regression() -> None:
    draw = np.random.default_rng(3)
    truth = draw.normal(1e6, 30.0, 10_000)
    score = truth + draw.normal(2.0, 10.0, 10_000)
    got = regression(truth, score, center=1e6 + 12)
    assert got["r2"] == pytest.approx(sk.r2_score(truth, score), rel=1e-10)
    assert got["rmse"] == pytest.approx(sk.root_mean_squared_error(truth, score), rel=1e-12)
    assert got["mae"] == pytest.approx(sk.mean_absolute_error(truth, score), rel=1e-12)


def test_deviations_on_each_side_are_sums_of_their_own() -> None:
    """A counter must not fall."""
    pod = counters("regression", center=10.0)
    pod.labelled(rows([0.0] * 3), ["12", "7", "9.5"], 0.0)
    assert exposed(pod)["coalmine_label_deviation"] == {("above",): 2.0, ("below",): 3.5}


def numacc(count: int, first: float, low: float, high: float) -> Callable[[], Array]:
    """NIST's NumAcc2 to 4 (Statistical Reference Datasets): one value, then two in turns."""
    return lambda: np.array([first, *[low, high] * (count // 2)])


@pytest.mark.parametrize(
    ("values", "mean", "stddev", "digits"),
    [
        (lambda: np.array([10000001.0, 10000003.0, 10000002.0]), 10000002.0, 1.0, 1e-13),
        (numacc(1000, 1.2, 1.1, 1.3), 1.2, 0.1, 1e-13),
        (numacc(1000, 1000000.2, 1000000.1, 1000000.3), 1000000.2, 0.1, 1e-8),
        (numacc(1000, 10000000.2, 10000000.1, 10000000.3), 10000000.2, 0.1, 1e-7),
    ],
    ids=["NumAcc1", "NumAcc2", "NumAcc3", "NumAcc4"],
)
def test_deviations_keep_their_digits(values: Callable[[], Array], mean: float, stddev: float, digits: float) -> None:
    """Certified values; the digits that are lost in 3 and 4 are lost when the data become floats."""
    truth = values()
    got = regression(truth, truth + 1, center=mean)
    assert got["mean"] == pytest.approx(mean, rel=1e-14)
    assert got["stddev"] == pytest.approx(stddev, rel=digits)


def test_numbers_too_large_for_sums_are_left_out() -> None:
    pod = counters("regression")
    pod.labelled(rows([1e300, 1.0, float("inf")]), ["1", "2", "3"], 0.0)
    assert (pod.labels, pod.scored, pod.squared_error) == (3, 1, 1.0)


def test_multiclass() -> None:
    draw = np.random.default_rng(5)
    names = np.array(["cat", "dog", "eel"])
    truth = draw.integers(0, 3, 3000)
    chosen = np.where(draw.random(3000) < 0.7, truth, draw.integers(0, 3, 3000))
    pod = counters("multiclass")
    pod.labelled(rows([None] * 3000, names[chosen].tolist()), names[truth].tolist(), 0.0)
    got = exposed(pod)["coalmine_confusion"]
    table = [[got.get((a, p), 0) for p in names] for a in names]
    assert table == sk.confusion_matrix(names[truth], names[chosen]).tolist()


def test_a_billion_classes_are_bounded() -> None:
    pod = counters("multiclass")
    for i in range(500):
        pod.labelled(rows([None], [f"class {i}"]), [f"class {i // 2}"], 0.0)
    assert sum(pod.confusion.values()) == 500
    assert len({name for pair in pod.confusion for name in pair}) == MAX_NAMES + 1
    assert pod.confusion["_other", "_other"] > 400


def test_ranking_has_bins_and_nothing_of_probabilities() -> None:
    draw = np.random.default_rng(11)
    truth = draw.integers(0, 2, 5000)
    score = np.round(draw.normal(truth * 1.5, 2.0), 1)
    edges = np.unique(score)[1:200]
    assert len(edges) < 200
    pod = counters("ranking", ScoreBins(tuple(edges.tolist())))
    pod.labelled(rows(score), [str(one) for one in truth], 0.0)
    got = exposed(pod)
    assert auc(got, "label") == pytest.approx(sk.roc_auc_score(truth, score), abs=1e-12)
    assert not {"coalmine_label_log_loss", "coalmine_calibration", "coalmine_confusion"} & set(got)


def test_text_has_labels_and_outcomes_alone() -> None:
    pod = counters("text")
    part = rows([None], [None])
    pod.predicted(part)
    pod.labelled(part, ["good"], 3.0)
    pod.outcome("thumb", 1.0)
    got = exposed(pod)
    assert got["coalmine_labels"] == {(): 1.0}
    assert got["coalmine_outcome_count"] == {("thumb",): 1.0}
    assert not {"coalmine_score", "coalmine_confusion", "coalmine_labels_scored"} & set(got)


def test_delays() -> None:
    pod = counters()
    for delay in (-3.0, 0.5, 3600.0, 1e9):
        pod.labelled(rows([0.5, 0.5]), ["1", None], delay)
    got = exposed(pod)
    assert got["coalmine_label_delay_seconds_bucket"]["1.0",] == 2
    assert got["coalmine_label_delay_seconds_bucket"]["3600.0",] == 3
    assert got["coalmine_label_delay_seconds_count"][()] == 4
    assert got["coalmine_label_delay_seconds_sum"][()] == pytest.approx(1e9 + 3600.5)


def test_outcomes_are_bounded_and_counters_never_fall() -> None:
    pod = counters()
    for i in range(100):
        pod.outcome(f"sale {i}", 2.0)
        pod.outcome("refund", -1.5)
    got = exposed(pod)
    assert len(got["coalmine_outcome_count"]) == MAX_NAMES + 1
    assert sum(got["coalmine_outcome_count"].values()) == 200
    assert got["coalmine_outcome_sum"]["refund",] == 0
    assert got["coalmine_outcome_negative_sum"]["refund",] == 150


def test_columns_that_do_not_belong_together_are_no_labels() -> None:
    with pytest.raises(ValueError, match="zip"):
        counters().labelled(rows([0.1, 0.2]), ["1"], 0.0)


def test_slices() -> None:
    pod = counters(slices=(Slice(attribute="sex", path="$.sex"), Slice(attribute="region", header="x-region")))
    part = Predicted("p", "a", 0.0, [0.9, 0.2, 0.7, None], [None] * 4, [["f", "m", "", "f"], ["north"]])
    pod.predicted(part)
    pod.labelled(part, ["1", "1", None, "0"], 0.0)
    sex, region = pod.slices.groups
    assert {name: counts.predictions for name, counts in sex.items()} == {"f": [0, 1], "m": [1, 0], "_missing": [0, 1]}
    assert {name: counts.labels for name, counts in sex.items()} == {
        "f": [0, 0, 0, 1],
        "m": [0, 0, 1, 0],
        "_missing": [0, 0, 0, 0],
    }
    assert {name: counts.predictions for name, counts in region.items()} == {"north": [1, 2]}


def test_groups_are_bounded_whatever_clients_send() -> None:
    pod = counters(slices=(Slice(attribute="s", header="x-s"),))
    for i in range(500):
        part = Predicted("p", "a", 0.0, [0.9], [None], [[f"group {i}" if i % 5 else ""]])
        pod.predicted(part)
        pod.labelled(part, ["1"], 0.0)
    (groups,) = pod.slices.groups
    assert len(groups) == MAX_GROUPS + 2
    assert sum(counts.predictions[1] for counts in groups.values()) == 500
    assert (groups["_missing"].labels[3], groups["_other"].labels[3]) == (100, 400 - MAX_GROUPS)


def test_the_privileged_group_has_its_place_whoever_comes_first() -> None:
    pod = counters(slices=(Slice(attribute="s", header="x-s", privileged="M"),))
    for name in [*(f"junk {i}" for i in range(50)), "M"]:
        pod.predicted(Predicted("p", "a", 0.0, [0.9], [None], [[name]]))
    (groups,) = pod.slices.groups
    assert groups["M"].predictions == [0, 1]
    assert len(groups) == MAX_GROUPS + 1


def test_slices_of_several_classes_are_about_the_positive_one() -> None:
    pod = counters("multiclass", slices=(Slice(attribute="s", header="x-s"),), prediction=Prediction(positive="hire"))
    part = Predicted("p", "a", 0.0, [None] * 3, ["hire", "wait", None], [["g"]])
    pod.predicted(part)
    pod.labelled(part, ["wait", "hire", "hire"], 0.0)
    samples = {
        tuple(sample.labels.values())[1:]: sample.value
        for family in slice_metrics(("version",), [(("v1",), pod.slices)])
        for sample in family.samples
    }
    assert {key: value for key, value in samples.items() if value} == {
        ("s", "g", "0"): 1,
        ("s", "g", "1"): 1,
        ("s", "g", "0", "1"): 1,
        ("s", "g", "1", "0"): 1,
    }

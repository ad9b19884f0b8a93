"""Records about performance, from counters of two pods, against scikit-learn and scipy on the rows themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from scipy import stats
from sklearn import metrics
from tests.chart.promtool import needs_promtool
from tests.unit.rulebook import EVERYTHING, RECORDED, Samples, Series, differences, pods, records

BINS = 20
Array = np.ndarray


class Scored:
    """Rows of a binary model: scores, which are bins' centres so that ties are what they are to the bins, and truths.

    Of two pods, in halves that are not alike. `calibrated`: what each bin's share of positives was in the reference.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        self.bins = rng.integers(0, BINS, 1600)
        self.scores = (self.bins + 0.5) / BINS
        self.truth = (rng.random(1600) < self.scores**1.5).astype(int)
        self.chosen = (self.scores >= 0.5).astype(int)
        self.pod = (rng.random(1600) < 0.3).astype(int)
        self.calibrated = np.linspace(0.02, 0.93, BINS)
        self.weight = self.calibrated[self.bins]

    def each_pod(self, values: Array) -> list[float]:
        return [float(values[self.pod == i].sum()) for i in (0, 1)]

    def series(self) -> Iterator[Series]:
        for actual in (0, 1):
            for predicted in (0, 1):
                cell = {"actual": str(actual), "predicted": str(predicted)}
                here = (self.truth == actual) & (self.chosen == predicted)
                yield from pods("coalmine_confusion", self.each_pod(here), cell)
                share = (self.weight if actual else 1 - self.weight) * (self.chosen == predicted)
                yield from pods("coalmine_confusion_estimated", self.each_pod(share), cell)
        for number in range(BINS):
            for c in (0, 1):
                for truth, rows in (("label", self.truth == c), ("estimate", self.weight if c else 1 - self.weight)):
                    where = {"truth": truth, "class": str(c), "bin": f"{number:03}"}
                    yield from pods("coalmine_score", self.each_pod(rows * (self.bins == number)), where)
                    if truth == "label" or c == 0:
                        yield from pods("coalmine_score_from", self.each_pod(rows * (self.bins >= number)), where)
        deciles = np.minimum((self.scores * 10).astype(int), 9)
        for decile in range(10):
            here = deciles == decile
            for of, values in (("score", self.scores), ("positive", self.truth), ("count", np.ones(1600))):
                where = {"decile": str(decile), "of": of}
                yield from pods("coalmine_calibration", self.each_pod(values * here), where)
        loss = -np.where(self.truth == 1, np.log(self.scores), np.log(1 - self.scores))
        yield from pods("coalmine_label_log_loss", self.each_pod(loss))
        yield from pods("coalmine_label_squared_error", self.each_pod((self.truth - self.scores) ** 2))
        yield from labels((1500, 500), (1120, 480))


def labels(counts: tuple[int, int], scored: tuple[int, int] | None = None) -> Iterator[Series]:
    """Of 2000 predictions; of each pod's labels a half came within a minute and the others within five."""
    yield from pods("coalmine_labels", counts)
    yield from pods("coalmine_labels_scored", [0.8 * count for count in counts] if scored is None else scored)
    yield from pods("coalmine_predictions", (1500, 500))
    for bound, share in (("60.0", 0.25), ("300.0", 0.75), ("900.0", 1.0), ("+Inf", 1.0)):
        for one in pods("coalmine_label_delay_seconds_bucket", [share * count for count in counts], {"le": bound}):
            yield {**one, "series": one["series"].replace("_bucket_total", "_bucket")}
    yield from pods("coalmine_outcome_sum", (90.5, 30.0), {"outcome": "clicked"})
    yield from pods("coalmine_outcome_negative_sum", (10.25, 0), {"outcome": "clicked"})
    yield from pods("coalmine_outcome_count", (500, 300), {"outcome": "clicked"})


ROWS = Scored()


def of(**more: str) -> dict[str, str]:
    return {**RECORDED, **more}


def confusion(truth: Array, chosen: Array, weight: Array | None, word: str, classes: list[str]) -> dict[str, Samples]:
    """By scikit-learn; `weight` as `sample_weight`."""
    each = metrics.precision_recall_fscore_support(truth, chosen, labels=classes, sample_weight=weight, zero_division=0)
    found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for metric, figures in zip(("precision", "recall", "f1"), each[:3], strict=True):
        found[f"coalmine:{metric}:class"] = [
            (of(truth=word, **{"class": name}), float(figure)) for name, figure in zip(classes, figures, strict=True)
        ]
        for average in ("macro", "weighted"):
            figure = metrics.precision_recall_fscore_support(
                truth, chosen, labels=classes, average=average, sample_weight=weight, zero_division=0
            )[("precision", "recall", "f1").index(metric)]
            found[f"coalmine:{metric}:{average}"] = [(of(truth=word), float(figure))]
    accuracy = metrics.accuracy_score(truth, chosen, sample_weight=weight)
    found["coalmine:accuracy:ratio"] = [(of(truth=word), float(accuracy))]
    matrix = metrics.confusion_matrix(truth, chosen, labels=classes, sample_weight=weight)
    found["coalmine:confusion:increase"] = [
        (of(truth=word, actual=a, predicted=p), float(matrix[i, j]))
        for i, a in enumerate(classes) for j, p in enumerate(classes)
    ]  # fmt: skip
    for part, counts in (("actual", matrix.sum(1)), ("predicted", matrix.sum(0)), ("correct", np.diag(matrix))):
        found[f"coalmine:class_{part}:increase"] = [
            (of(truth=word, **{"class": name}), float(n)) for name, n in zip(classes, counts, strict=True)
        ]
    return found  # type: ignore[return-value] - lists are sequences


def merged(*parts: Mapping[str, Samples]) -> dict[str, Samples]:
    found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for part in parts:
        for name, samples in part.items():
            found.setdefault(name, []).extend(samples)
    return found  # type: ignore[return-value] - lists are sequences


def wilson(metric: str, hits: int, trials: int) -> dict[str, Samples]:
    low, high = stats.binomtest(hits, trials).proportion_ci(0.95, method="wilson")
    return {f"coalmine:{metric}:{b}": [(of(truth="label"), x)] for b, x in (("lower", low), ("upper", high))}


def delong(truth: Array, scores: Array) -> float:
    """The standard error of an AUC, from the placements of every single row."""
    positives, negatives = scores[truth == 1], scores[truth == 0]
    wins = (positives[:, None] > negatives) + 0.5 * (positives[:, None] == negatives)
    parts = (wins.mean(1).var(ddof=1) / len(positives), wins.mean(0).var(ddof=1) / len(negatives))
    return math.sqrt(sum(parts))


def doubled(rows: Scored) -> tuple[Array, Array, Array, Array]:
    """Each row once as a positive and once as a negative, by the weights of either."""
    truth = np.repeat([1, 0], len(rows.scores))
    return truth, np.tile(rows.chosen, 2), np.tile(rows.scores, 2), np.concatenate([rows.weight, 1 - rows.weight])


def binary() -> dict[str, Samples]:
    rows = ROWS
    text = np.array(["0", "1"])
    truth, chosen, scores, weight = doubled(rows)
    found = merged(
        confusion(text[rows.truth], text[rows.chosen], None, "label", ["0", "1"]),
        confusion(text[truth], text[chosen], weight, "estimate", ["0", "1"]),
    )
    for metric in ("precision", "recall", "f1"):
        positive = [(of(truth=one["truth"]), v) for one, v in found[f"coalmine:{metric}:class"] if one["class"] == "1"]
        found[f"coalmine:{metric}:ratio"] = positive
    hits = int((rows.truth & rows.chosen).sum())
    found |= wilson("accuracy", int((rows.truth == rows.chosen).sum()), 1600)
    found |= wilson("precision", hits, int(rows.chosen.sum())) | wilson("recall", hits, int(rows.truth.sum()))
    auc = {
        "label": metrics.roc_auc_score(rows.truth, rows.scores),
        "estimate": metrics.roc_auc_score(truth, scores, sample_weight=weight),
    }
    found["coalmine:auc:ratio"] = [(of(truth=word), value) for word, value in auc.items()]
    found["coalmine:average_precision:ratio"] = [
        (of(truth="label"), metrics.average_precision_score(rows.truth, rows.scores))
    ]
    stderr = delong(rows.truth, rows.scores)
    z = stats.norm.ppf(0.975)
    for name, value in (("stderr", stderr), ("lower", auc["label"] - z * stderr), ("upper", auc["label"] + z * stderr)):
        found[f"coalmine:auc:{name}"] = [(of(truth="label"), value)]
    found |= counts(rows)
    found["coalmine:log_loss:mean"] = [(RECORDED, metrics.log_loss(rows.truth, rows.scores))]
    found["coalmine:brier:mean"] = [(RECORDED, metrics.brier_score_loss(rows.truth, rows.scores))]
    deciles = np.minimum((rows.scores * 10).astype(int), 9)
    ece = sum(abs((rows.scores - rows.truth)[deciles == d].sum()) for d in range(10)) / 1600
    found["coalmine:calibration_error:ratio"] = [(RECORDED, ece)]
    drift = []
    for metric in ("auc", "accuracy", "precision", "recall", "f1"):
        by_truth = {one["truth"]: value for one, value in found[f"coalmine:{metric}:ratio"]}
        drift.append((of(metric=metric), by_truth["estimate"] - by_truth["label"]))
    found["coalmine:concept_drift:difference"] = drift
    return found | label_figures(2000)


def counts(rows: Scored) -> dict[str, Samples]:
    found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for truth, positive in (("label", rows.truth.astype(float)), ("estimate", rows.weight)):
        for c, share in (("0", 1 - positive), ("1", positive)):
            name = "coalmine:score_positives:increase" if c == "1" else "coalmine:score_negatives:increase"
            found.setdefault(name, []).append((of(truth=truth), float(share.sum())))
            for number in range(BINS):
                where = of(truth=truth, bin=f"{number:03}", **{"class": c})
                here, above = share[rows.bins == number].sum(), share[rows.bins >= number].sum()
                found.setdefault("coalmine:score:increase", []).append((where, float(here)))
                if truth == "label" or c == "0":
                    found.setdefault("coalmine:score_from:increase", []).append((where, float(above)))
    return found  # type: ignore[return-value] - lists are sequences


def label_figures(rows: int) -> dict[str, Samples]:
    return {
        "coalmine:labels:increase": [(RECORDED, rows)],
        "coalmine:labels:coverage": [(RECORDED, rows / 2000)],
        # A quarter up to 60 s, three quarters up to 300 s: half in the middle between.
        "coalmine:label_delay_seconds:median": [(RECORDED, 180.0)],
        "coalmine:outcome:increase": [(of(outcome="clicked"), 800)],
        "coalmine:outcome:mean": [(of(outcome="clicked"), 110.25 / 800)],
    }


@needs_promtool
def test_binary_against_scikit_learn(tmp_path: Path) -> None:
    assert differences(tmp_path, EVERYTHING, "quality", ROWS.series(), binary()) == ""


#: Rows by actual and predicted class, of two pods. No row is predicted `bird`, none is a `fish`.
MATRIX = {
    ("cat", "cat"): (50, 40), ("cat", "dog"): (5, 6), ("dog", "dog"): (30, 22), ("dog", "cat"): (8, 1),
    ("bird", "cat"): (4, 3), ("dog", "fish"): (2, 0), ("bird", "dog"): (0, 2),
}  # fmt: skip


def test_classes_of_the_scenario_are_incomplete() -> None:
    assert {a for a, _ in MATRIX} ^ {p for _, p in MATRIX} == {"bird", "fish"}


@needs_promtool
def test_multiclass_against_scikit_learn(tmp_path: Path) -> None:
    parameters = replace(EVERYTHING, task="multiclass")
    series = [
        one for (a, p), n in MATRIX.items() for one in pods("coalmine_confusion", n, {"actual": a, "predicted": p})
    ]
    rows = [(a, p) for (a, p), n in MATRIX.items() for _ in range(sum(n))]
    truth, chosen = np.array([a for a, _ in rows]), np.array([p for _, p in rows])
    found = confusion(truth, chosen, None, "label", ["bird", "cat", "dog", "fish"])
    found["coalmine:confusion:increase"] = [
        (one, value)
        for one, value in found["coalmine:confusion:increase"]
        if (one["actual"], one["predicted"]) in MATRIX
    ]
    undefined = {"coalmine:precision:class": "bird", "coalmine:recall:class": "fish"}
    for name, missing in undefined.items():
        found[name] = [(one, value) for one, value in found[name] if one["class"] != missing]
    for metric in ("precision", "recall", "f1"):
        found[f"coalmine:{metric}:ratio"] = found[f"coalmine:{metric}:macro"]
    found |= wilson("accuracy", int((truth == chosen).sum()), len(rows)) | label_figures(len(rows))
    assert set(found) == records(parameters, "quality")
    assert differences(tmp_path, parameters, "quality", [*series, *labels((99, 74))], found) == ""


@needs_promtool
def test_regression_against_scikit_learn(tmp_path: Path) -> None:
    parameters = replace(EVERYTHING, task="regression", slices=())
    rng = np.random.default_rng(7)
    truth = [rng.normal(250_000, 90_000, n) for n in (300, 200)]
    guess = [y + rng.normal(3_000, 40_000, len(y)) for y in truth]
    center = 247_000.0
    series = [
        *pods("coalmine_label_absolute_error", [float(abs(y - g).sum()) for y, g in zip(truth, guess, strict=True)]),
        *pods("coalmine_label_squared_error", [float(((y - g) ** 2).sum()) for y, g in zip(truth, guess, strict=True)]),
        *pods("coalmine_label_squared_deviation", [float(((y - center) ** 2).sum()) for y in truth]),
        *pods("coalmine_label_deviation", [float((y - center)[y >= center].sum()) for y in truth], {"sign": "above"}),
        *pods("coalmine_label_deviation", [float((center - y)[y < center].sum()) for y in truth], {"sign": "below"}),
        *labels((400, 300), (300, 200)),
    ]
    y, g = np.concatenate(truth), np.concatenate(guess)
    found = {
        "coalmine:mae:mean": [(RECORDED, float(metrics.mean_absolute_error(y, g)))],
        "coalmine:rmse:mean": [(RECORDED, float(metrics.root_mean_squared_error(y, g)))],
        "coalmine:r2:ratio": [(RECORDED, float(metrics.r2_score(y, g)))],
    } | label_figures(700)
    assert set(found) == records(parameters, "quality")
    assert differences(tmp_path, parameters, "quality", series, found) == ""


def test_every_record_is_held_against_an_oracle() -> None:
    assert set(binary()) == records(EVERYTHING, "quality")


def test_without_labels_only_estimates_are_recorded() -> None:
    without = records(replace(EVERYTHING, feedback=False), "quality")
    assert without < records(EVERYTHING, "quality")
    assert {"coalmine:auc:ratio", "coalmine:recall:ratio"} <= without
    assert not {name for name in without if "label" in name or "concept" in name or "outcome" in name}
    for task in ("multiclass", "regression", "ranking", "text"):
        assert records(replace(EVERYTHING, feedback=False, task=task), "quality") == set()

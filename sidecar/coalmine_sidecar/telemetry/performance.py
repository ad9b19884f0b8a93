"""How good a revision's predictions were, by labels that came later, and how good they probably are, without labels.

Plain counters: those of all pods add up, and every figure is a function of the sums. A binary model's ROC-AUC is
sum_b P_b (N - Nfrom_b + N_b/2) / (P N) over its score's bins. Without labels a prediction in bin b counts as
`calibration[b]` of a positive and the rest of a negative (CBPE, confidence-based performance estimation, as NannyML).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from math import fsum, isfinite, log
from typing import Final

from ..feedback.labels import plain_class
from ..feedback.predicted import Predicted
from ..monitoring import Monitoring, ScoreBins
from .counters import Histogram
from .outputs import MAX_CLASS_LENGTH, OTHER, printable
from .slices import SliceCounters

#: From a prediction to its label, upper bounds (`le`) in seconds: 1 s to 30 days.
DELAYS: Final[tuple[float, ...]] = (
    1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0, 259200.0, 604800.0, 1209600.0, 2592000.0,
)  # fmt: skip
#: Scores of a calibration curve are put together by tenths.
DECILES: Final = 10
#: Classes of a confusion matrix, and outcomes, that are counted by name.
MAX_NAMES: Final = 20
#: A probability nearer to 0 or 1 counts as this near, as scikit-learn had it: one sure mistake is no infinite loss.
_CLIP: Final = 1e-15
#: A larger number's square would be the only one in a sum.
_LARGEST: Final = 1e100


class OutcomeCounts:
    """Of one business outcome: how often it came, and the sums of its values above and below zero."""

    __slots__ = ("count", "gained", "lost")

    def __init__(self) -> None:
        self.count = 0
        self.gained = 0.0
        self.lost = 0.0


class PerformanceCounters:
    """Of one revision, in the bins of one baseline. `center`: of a regression's truth, see `monitoring.Bins`.

    Everything is per row. `labels`: labelled rows; `scored`: those of them whose score is known, too, which losses,
    errors and calibration are about. `seen[c][b]`: predictions of class c in bin b, `truths[c][b]`: labelled ones.
    """

    __slots__ = (
        "_names", "_positive", "_threshold", "absolute_error", "calibration", "center", "confusion", "deciles", "delay",
        "deviation", "edges", "has_feedback", "labels", "log_loss", "outcomes", "scored", "seen", "slices",
        "squared_deviation", "squared_error", "task", "truths",
    )  # fmt: skip

    def __init__(self, monitoring: Monitoring, score_bins: ScoreBins, center: float) -> None:
        self.task = monitoring.task
        self.has_feedback = monitoring.feedback is not None
        self._positive = plain_class(monitoring.prediction.positive)
        self._threshold = monitoring.prediction.threshold
        self.edges: tuple[float, ...] = score_bins.edges
        calibration = score_bins.calibration if self.task == "binary" else ()
        self.calibration: tuple[float, ...] = calibration
        bins = len(self.edges) + 1
        self.seen = [[0] * bins, [0] * bins] if calibration else []
        self.truths = [[0] * bins, [0] * bins] if self.task in ("binary", "ranking") else []
        #: Of each tenth of the scores: sum of the scores, positives, rows.
        self.deciles = [[0.0, 0.0, 0.0] for _ in range(DECILES)]
        #: (actual, predicted): rows.
        self.confusion: dict[tuple[str, str], int] = {}
        if self.task == "binary":
            self.confusion = {(actual, predicted): 0 for actual in ("0", "1") for predicted in ("0", "1")}
        self._names: set[str] = set()
        self.labels = 0
        self.scored = 0
        self.log_loss = 0.0
        self.squared_error = 0.0
        self.absolute_error = 0.0
        self.center = center
        #: Sums of truth - center where that is above zero, and of its amount where it is below.
        self.deviation = [0.0, 0.0]
        self.squared_deviation = 0.0
        self.delay = Histogram(DELAYS)
        self.outcomes: dict[str, OutcomeCounts] = {}
        self.slices = SliceCounters([(one.attribute, one.privileged) for one in monitoring.slices])

    def predicted(self, rows: Predicted) -> None:
        """Count predictions when they are made."""
        if self.seen:
            for score, label in zip(rows.scores, rows.labels, strict=True):
                if score is not None and isfinite(score):
                    self.seen[self._chosen(score, label)][bisect_right(self.edges, score)] += 1
        if rows.groups and self.task in ("binary", "multiclass"):
            self.slices.predicted(rows.groups, self._all_chosen(rows))

    def labelled(self, rows: Predicted, labels: Sequence[str | None], delay: float) -> None:
        """Count labels, `delay` seconds after their predictions.

        `labels`: for each row as `labels.Truths` writes it, None where none came (or not now).
        """
        came = 0
        for score, label, truth in zip(rows.scores, rows.labels, labels, strict=True):
            if truth is not None:
                came += 1
                self._judge(score if score is not None and isfinite(score) else None, label, truth)
        self.labels += came
        delay = max(delay, 0.0)
        self.delay.counts[bisect_left(DELAYS, delay)] += came
        self.delay.total += delay * came
        if rows.groups and self.task in ("binary", "multiclass"):
            actual = [-1 if truth is None else int(self._is_positive(truth)) for truth in labels]
            self.slices.labelled(rows.groups, self._all_chosen(rows), actual)

    def estimated(self) -> tuple[list[float], list[float]]:
        """Of each bin: expected negatives and positives among the predictions. Only where a calibration is known."""
        rows = [negative + positive for negative, positive in zip(self.seen[0], self.seen[1], strict=True)]
        shares = list(zip(self.calibration, rows, strict=True))
        return [(1.0 - share) * count for share, count in shares], [share * count for share, count in shares]

    def estimated_confusion(self) -> dict[tuple[str, str], float]:
        """Expected rows by (actual, predicted). Only where a calibration is known."""
        expected: dict[tuple[str, str], float] = {}
        for predicted, bins in (("0", self.seen[0]), ("1", self.seen[1])):
            shares = list(zip(self.calibration, bins, strict=True))
            expected["1", predicted] = fsum([share * count for share, count in shares])
            expected["0", predicted] = fsum([(1.0 - share) * count for share, count in shares])
        return expected

    def outcome(self, name: str, value: float) -> None:
        """Count a business outcome of a prediction; beyond MAX_NAMES names they share `_other`."""
        counts = self.outcomes.get(name)
        if counts is None:
            name = printable(name, MAX_CLASS_LENGTH)
            if name not in self.outcomes and len(self.outcomes) - (OTHER in self.outcomes) >= MAX_NAMES:
                name = OTHER
            counts = self.outcomes.setdefault(name, OutcomeCounts())
        counts.count += 1
        if value >= 0:
            counts.gained += value
        else:
            counts.lost -= value

    def _judge(self, score: float | None, label: str | None, truth: str) -> None:
        task = self.task
        if task == "regression":
            self._judge_number(score, float(truth))
        elif task == "multiclass":
            if label is not None:
                self._confuse(self._name(truth), self._name(label))
        elif task != "text":
            positive = self._is_positive(truth)
            if score is not None:
                self.scored += 1
                self.truths[1 if positive else 0][bisect_right(self.edges, score)] += 1
                if task == "binary":
                    self._judge_probability(score, positive)
            if task == "binary" and (chosen := self._chosen(score, label)) >= 0:
                self._confuse("1" if positive else "0", "1" if chosen else "0")

    def _judge_probability(self, score: float, positive: bool) -> None:
        # A score that is no probability is one that is sure.
        score = min(max(score, 0.0), 1.0)
        clipped = min(max(score, _CLIP), 1.0 - _CLIP)
        self.log_loss -= log(clipped) if positive else log(1.0 - clipped)
        error = 1.0 - score if positive else score
        self.squared_error += error * error
        self.absolute_error += error
        decile = self.deciles[min(int(score * DECILES), DECILES - 1)]
        decile[0] += score
        decile[1] += 1.0 if positive else 0.0
        decile[2] += 1.0

    def _judge_number(self, score: float | None, truth: float) -> None:
        if score is None or abs(score) > _LARGEST or abs(truth) > _LARGEST:
            return
        self.scored += 1
        error = truth - score
        self.squared_error += error * error
        self.absolute_error += abs(error)
        away = truth - self.center
        if away >= 0:
            self.deviation[0] += away
        else:
            self.deviation[1] -= away
        self.squared_deviation += away * away

    def _confuse(self, actual: str, predicted: str) -> None:
        key = (actual, predicted)
        self.confusion[key] = self.confusion.get(key, 0) + 1

    def _name(self, text: str) -> str:
        """A class by its name while there is room: actual and predicted ones share it."""
        text = printable(text, MAX_CLASS_LENGTH)
        if text not in self._names:
            if len(self._names) >= MAX_NAMES:
                return OTHER
            self._names.add(text)
        return text

    def _is_positive(self, text: str) -> bool:
        return text == self._positive or plain_class(text) == self._positive

    def _chosen(self, score: float | None, label: str | None) -> int:
        """1 for the positive class, 0 for another one, -1 where nothing says."""
        if label is not None:
            return 1 if self._is_positive(label) else 0
        if score is None:
            return -1
        return 1 if score >= self._threshold else 0

    def _all_chosen(self, rows: Predicted) -> list[int]:
        return [self._chosen(score, label) for score, label in zip(rows.scores, rows.labels, strict=True)]

"""Sums over labelled rows that a performance is computed from: chunk by chunk, and all chunks added up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from . import performance as formulas
from .performance import Array


class BinaryTally:
    """Rows by truth, by what was predicted, and by bin of the score: `table[truth, predicted, bin]`.

    `ranked`: scores have an order; `probable`: they are probabilities, so that log loss, Brier score and calibration
    error mean something; `decided`: a class was predicted, so that there is a confusion matrix.
    """

    def __init__(
        self, edges: Sequence[float], *, ranked: bool = True, probable: bool = True, decided: bool = True
    ) -> None:
        self.rows = 0
        self.table: Array = np.zeros((2, 2, len(edges) + 1))
        self._edges = np.asarray(edges, dtype=np.float64)
        self._ranked = ranked
        self._probable = probable
        self._decided = decided
        self._log_loss = 0.0
        self._squared = 0.0
        self._scores = np.zeros(formulas.DECILES)
        self._positives = np.zeros(formulas.DECILES)

    def add(self, scores: Array, predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
        """Finite scores, one a row."""
        self.rows += len(scores)
        size = len(self._edges) + 1
        bins = np.searchsorted(self._edges, scores, side="right")
        place = (truth.astype(np.intp) * 2 + predicted) * size + bins
        self.table += np.bincount(place, minlength=4 * size).reshape(2, 2, size)
        if self._probable:
            y = truth.astype(np.float64)
            decile = formulas.deciles(scores)
            self._log_loss += float(formulas.log_losses(scores, y).sum())
            self._squared += float(((scores - y) ** 2).sum())
            self._scores += np.bincount(decile, weights=scores, minlength=formulas.DECILES)
            self._positives += np.bincount(decile, weights=y, minlength=formulas.DECILES)

    def __iadd__(self, other: Self) -> Self:
        self.rows += other.rows
        self.table += other.table
        self._log_loss += other._log_loss
        self._squared += other._squared
        self._scores += other._scores
        self._positives += other._positives
        return self

    @property
    def counts(self) -> Array:
        return np.asarray(self.table.sum(axis=(0, 1)))

    @property
    def positives(self) -> Array:
        return np.asarray(self.table[1].sum(axis=0))

    def figures(self) -> dict[str, float]:
        negatives, positives = self.table.sum(axis=1)
        found = self._areas(positives, negatives)
        if self._decided:
            (tn, fp), (fn, tp) = self.table.sum(axis=2).tolist()
            found |= formulas.Confusion(tp=tp, fp=fp, fn=fn, tn=tn).figures()
        if self._probable and self.rows:
            found["log_loss"] = self._log_loss / self.rows
            found["brier"] = self._squared / self.rows
            found["ece"] = formulas.calibration_error(self._scores, self._positives) / self.rows
        return found

    def estimated(self, calibration: Array) -> dict[str, float]:
        """The same without a look at the labels: names end in `_estimated`."""
        by_prediction = self.table.sum(axis=0)
        positives, negatives = formulas.expected(by_prediction.sum(axis=0), calibration)
        found = self._areas(positives, negatives)
        if self._decided:
            found |= formulas.expected_confusion(by_prediction[0], by_prediction[1], calibration).figures()
        return {f"{name}_estimated": value for name, value in found.items()}

    def _areas(self, positives: Array, negatives: Array) -> dict[str, float]:
        if not self._ranked:
            return {}
        return {
            "auc": formulas.roc_auc(positives, negatives),
            "pr_auc": formulas.average_precision(positives, negatives),
        }


class ClassTally:
    """A confusion matrix over at most `most` classes; those that come later are one class more."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.rows = 0
        self._places = {name: place for place, name in enumerate(classes)}
        self.matrix: Array = np.zeros((len(classes) + 1, len(classes) + 1))

    def add(self, predicted: Iterable[str], truth: Iterable[str]) -> None:
        other = len(self._places)
        for one, true in zip(predicted, truth, strict=True):
            self.matrix[self._places.get(true, other), self._places.get(one, other)] += 1
            self.rows += 1

    def __iadd__(self, other: Self) -> Self:
        self.rows += other.rows
        self.matrix += other.matrix
        return self

    def figures(self) -> dict[str, float]:
        return formulas.class_figures(self.matrix)


class ErrorTally:
    """Sums of a regression's errors; the truth's squares are about `center`, so that they keep their digits."""

    def __init__(self, center: float) -> None:
        self.rows = 0
        self._center = center
        self._absolute = 0.0
        self._squared = 0.0
        self._truth = 0.0
        self._truth_squared = 0.0

    def add(self, predicted: Array, truth: Array) -> None:
        """Finite numbers, one a row."""
        error, off = predicted - truth, truth - self._center
        self.rows += len(truth)
        self._absolute += float(np.abs(error).sum())
        self._squared += float((error**2).sum())
        self._truth += float(off.sum())
        self._truth_squared += float((off**2).sum())

    def __iadd__(self, other: Self) -> Self:
        self.rows += other.rows
        self._absolute += other._absolute
        self._squared += other._squared
        self._truth += other._truth
        self._truth_squared += other._truth_squared
        return self

    def figures(self) -> dict[str, float]:
        if not self.rows:
            return {}
        spread = self._truth_squared - self._truth**2 / self.rows
        return {
            "mae": self._absolute / self.rows,
            "rmse": math.sqrt(self._squared / self.rows),
            "r2": 1 - self._squared / spread if spread > 0 else math.nan,
        }

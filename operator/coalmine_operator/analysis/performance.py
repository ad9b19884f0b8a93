"""How good a model is, from counts by score bins: formulas alone, on arrays with one entry a bin (the lowest first).

With bins frozen, every figure is a function of sums, so it is the same from a file of reference rows, from one pod's
counters, and from the counters of many pods added up in PromQL. Scores of one bin count as equal. Without a rate's
denominator a figure is NaN.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

#: The least probability in a logarithm; the sidecar has the same.
EPSILON: Final = 1e-15
#: Parts of [0, 1] of equal width that calibration is looked at in.
DECILES: Final = 10


class Confusion(Struct, frozen=True):
    """Rows by what they are and what was predicted; sums of probabilities where they are estimated."""

    tp: float = 0.0
    fp: float = 0.0
    fn: float = 0.0
    tn: float = 0.0

    def figures(self) -> dict[str, float]:
        """accuracy, precision, recall and f1."""
        return {
            "accuracy": _ratio(self.tp + self.tn, self.tp + self.fp + self.fn + self.tn),
            "precision": _ratio(self.tp, self.tp + self.fp),
            "recall": _ratio(self.tp, self.tp + self.fn),
            "f1": _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn),
        }


def roc_auc(positives: ArrayLike, negatives: ArrayLike) -> float:
    """Area under the ROC curve: the share of pairs whose positive has the higher score, ties counting half.

    Mann and Whitney 1947: sum over bins of P_b (N_below + N_b / 2) / (P N). Weights may stand for counts.
    """
    p, n = _array(positives), _array(negatives)
    below = np.cumsum(n) - n
    return _ratio(float((p * (below + n / 2)).sum()), float(p.sum() * n.sum()))


def average_precision(positives: ArrayLike, negatives: ArrayLike) -> float:
    """Area under the precision-recall curve, in steps: sum of (R_k - R_(k-1)) P_k, from the highest bin down.

    As scikit-learn's average_precision_score: no interpolation, which flatters (Davis and Goadrich 2006).
    """
    p, n = _array(positives)[::-1], _array(negatives)[::-1]
    tp, fp = np.cumsum(p), np.cumsum(n)
    precision = tp / np.maximum(tp + fp, np.finfo(np.float64).tiny)
    return _ratio(float((p * precision).sum()), float(p.sum()))


def isotonic(values: ArrayLike, weights: ArrayLike) -> Array:
    """The never falling sequence next to `values` in weighted least squares: pool adjacent violators (Ayer 1955).

    Weights are positive. Linear in time: a block that is lower than the one before it joins it.
    """
    blocks: list[tuple[float, float, int]] = []  # mean, weight, entries
    for value, weight in zip(_array(values).tolist(), _array(weights).tolist(), strict=True):
        mean, total, size = value, weight, 1
        while blocks and blocks[-1][0] >= mean:
            low, w, k = blocks.pop()
            mean, total, size = (low * w + mean * total) / (w + total), w + total, size + k
        blocks.append((mean, total, size))
    return np.repeat([mean for mean, _, _ in blocks], [size for _, _, size in blocks]).astype(np.float64)


def calibrate(positives: ArrayLike, counts: ArrayLike) -> Array:
    """The probability of the positive class by bin: isotonic regression of the bins' shares, within [0, 1].

    A bin without rows lies between its neighbours. Zadrozny and Elkan 2002. Raises ValueError without any row.
    """
    p, n = _array(positives), _array(counts)
    (filled,) = np.nonzero(n)
    if not len(filled):
        raise ValueError("no row has a score and a label")
    found = isotonic(p[filled] / n[filled], n[filled])
    return np.clip(np.interp(np.arange(len(n)), filled, found), 0.0, 1.0)


def expected(counts: ArrayLike, calibration: ArrayLike) -> tuple[Array, Array]:
    """Positives and negatives to be expected by bin, without labels, as long as the calibration holds.

    The estimate of NannyML's CBPE (confidence-based performance estimation), with its calibrator by bins: it sees
    that a model is asked harder questions, and is blind to answers that became wrong (concept drift).
    """
    n, c = _array(counts), _array(calibration)
    return n * c, n * (1 - c)


def expected_confusion(negative: ArrayLike, positive: ArrayLike, calibration: ArrayLike) -> Confusion:
    """Of rows by bin that were predicted negative and positive, without labels; see `expected`."""
    fn, tn = expected(negative, calibration)
    tp, fp = expected(positive, calibration)
    return Confusion(tp=float(tp.sum()), fp=float(fp.sum()), fn=float(fn.sum()), tn=float(tn.sum()))


def calibration_error(scores: ArrayLike, positives: ArrayLike) -> float:
    """Expected calibration error without its division by rows: sum over deciles of |sum of scores - positives|.

    Naeini, Cooper and Hauskrecht 2015, over bins of equal width, which need not be known beforehand.
    """
    return float(np.abs(_array(scores) - _array(positives)).sum())


def deciles(scores: Array) -> NDArray[np.intp]:
    """Of scores in [0, 1]: 0 to 9, 1.0 in the last."""
    return np.clip((scores * DECILES).astype(np.intp), 0, DECILES - 1)


def log_losses(scores: Array, truth: Array) -> Array:
    """Of each row: minus the logarithm of the probability that was given to what is true."""
    p = np.clip(np.where(truth > 0, scores, 1 - scores), EPSILON, 1 - EPSILON)
    return np.asarray(-np.log(p), dtype=np.float64)


def class_figures(matrix: ArrayLike) -> dict[str, float]:
    """Of a confusion matrix (rows: what is true, columns: what was predicted, the same classes).

    `precision`, `recall` and `f1` are means over the classes that occur (macro), `_weighted` by their rows. A class
    that is never predicted has precision 0, as scikit-learn has it by default.
    """
    m = _array(matrix)
    hit, actual, predicted = np.diag(m), m.sum(axis=1), m.sum(axis=0)
    there = (actual + predicted) > 0
    if not m.sum():
        return dict.fromkeys(("accuracy", "precision", "recall", "f1"), math.nan)
    rates = {
        "precision": hit / np.maximum(predicted, 1),
        "recall": hit / np.maximum(actual, 1),
        "f1": 2 * hit / np.maximum(actual + predicted, 1),
    }
    figures = {"accuracy": float(hit.sum() / m.sum())}
    figures |= {name: float(rate[there].mean()) for name, rate in rates.items()}
    return figures | {f"{name}_weighted": float((rate * actual).sum() / m.sum()) for name, rate in rates.items()}


def _array(values: ArrayLike) -> Array:
    return np.asarray(values, dtype=np.float64)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan

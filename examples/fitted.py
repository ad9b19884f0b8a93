"""What scikit-learn has fitted, as plain arrays: a model server needs numpy alone.

One row through a pipeline costs a millisecond, nearly all of it checks, and importing scikit-learn seconds of a core at
every start. The formulas are scikit-learn's, the answers the same (tests hold them to that).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Fitted:
    """A scaler, and a model behind it, that read the first `columns` features of a row.

    `arrays`: those of `logistic` or `boosted`, and of `scaled`.
    """

    arrays: dict[str, np.ndarray]

    def probability(self, rows: np.ndarray, *, forget_scaling: bool = False) -> np.ndarray:
        """Chance of the positive class, [n], of `rows`, [n, features]. `forget_scaling` is the mistake of v3."""
        mean, scale = self.arrays["mean"], self.arrays["scale"]
        columns = rows[:, : len(mean)]
        if not forget_scaling:
            columns = (columns - mean) / scale
        score = self._boosted(columns) if "left" in self.arrays else self._logistic(columns)
        # Beyond it the chance is 0 to every digit, and exp would overflow.
        probability: np.ndarray = 1 / (1 + np.exp(np.minimum(-score, 700)))
        return probability

    def save(self, path: Path) -> None:
        np.savez(path, allow_pickle=False, **self.arrays)

    @classmethod
    def load(cls, path: Path) -> Fitted:
        with np.load(path) as file:
            return cls({name: file[name] for name in file.files})

    def _logistic(self, rows: np.ndarray) -> np.ndarray:
        score: np.ndarray = rows @ self.arrays["weights"] + self.arrays["intercept"]
        return score

    def _boosted(self, rows: np.ndarray) -> np.ndarray:
        """All trees at once, a level at a time."""
        arrays = self.arrays
        feature, threshold, left, right = (arrays[name] for name in ("feature", "threshold", "left", "right"))
        # Trees are grown on, and asked with, single precision.
        rows = rows.astype(np.float32)
        trees = np.arange(len(left))
        nodes = np.zeros((len(rows), len(trees)), dtype=np.intp)
        for _ in range(int(arrays["depth"])):
            asked = np.take_along_axis(rows, feature[trees, nodes], axis=1)
            nodes = np.where(asked <= threshold[trees, nodes], left[trees, nodes], right[trees, nodes])
        score: np.ndarray = arrays["start"] + arrays["rate"] * arrays["value"][trees, nodes].sum(axis=1)
        return score


def scaled(scaler: Any) -> dict[str, np.ndarray]:
    """Of a `StandardScaler`: [columns] each."""
    return {"mean": scaler.mean_, "scale": scaler.scale_}


def logistic(model: Any) -> dict[str, np.ndarray]:
    """Of a `LogisticRegression` of two classes: weights, [columns]."""
    return {"weights": model.coef_[0], "intercept": model.intercept_[0]}


def boosted(model: Any) -> dict[str, np.ndarray]:
    """Of a `GradientBoostingClassifier` of two classes: [trees, nodes] each. A leaf leads to itself."""
    trees = [one.tree_ for one in model.estimators_[:, 0]]
    shape = len(trees), max(tree.node_count for tree in trees)
    feature, left, right = (np.zeros(shape, dtype=np.intp) for _ in range(3))
    threshold, value = np.zeros(shape), np.zeros(shape)
    for number, tree in enumerate(trees):
        nodes = np.arange(tree.node_count)
        leaf = tree.children_left == -1
        part = number, slice(tree.node_count)
        feature[part] = np.where(leaf, 0, tree.feature)
        threshold[part] = tree.threshold
        left[part] = np.where(leaf, nodes, tree.children_left)
        right[part] = np.where(leaf, nodes, tree.children_right)
        value[part] = tree.value[:, 0, 0]
    prior = model.init_.class_prior_[1]
    return {
        "feature": feature,
        "threshold": threshold,
        "left": left,
        "right": right,
        "value": value,
        "depth": np.array(max(tree.max_depth for tree in trees)),
        "rate": np.array(model.learning_rate),
        "start": np.log(prior / (1 - prior)),
    }

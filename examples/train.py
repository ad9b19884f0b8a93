"""Train the demo's models on breast-cancer data that ships inside scikit-learn; keep them in a folder.

569 tumours, 30 measurements each: mean, standard error and worst of ten properties. Half of the rows are held out, to
be sent as requests later. The positive class is "malignant".

- v1, an early model: logistic regression on the ten means.
- v2, its successor: gradient boosting on all thirty, behind a scaler. Better on held-out rows (tests hold it to that).

v3 and v4 are mistakes made when serving v2, so nothing is trained for them: see `model_server.py`.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from examples.fitted import Fitted, boosted, logistic, scaled

MEANS = 10
SEED = 1
#: Part of the folder's name: another recipe never meets old files.
RECIPE = 2

_ROOT = Path(__file__).resolve().parent.parent


def folder() -> Path:
    """Where models are kept: below `MODEL_CACHE`, or below `build` in the project."""
    return Path(os.environ.get("MODEL_CACHE", _ROOT / "build" / "models")) / f"breast-cancer-{RECIPE}"


def split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows and labels (1: malignant) to train on, rows and labels held out; the same ones each time."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import train_test_split

    rows, benign = load_breast_cancer(return_X_y=True)
    train, held, train_labels, held_labels = train_test_split(
        rows, 1 - benign, test_size=0.5, random_state=SEED, stratify=benign
    )
    return train, train_labels, held, held_labels


def fit(rows: np.ndarray, labels: np.ndarray) -> tuple[Any, Any]:
    """v1's and v2's pipelines, scaler first; v1's knows the first MEANS columns only."""
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    early = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    trees = make_pipeline(
        StandardScaler(),
        GradientBoostingClassifier(
            n_estimators=100, learning_rate=0.1, max_depth=2, subsample=0.5, max_features="sqrt", random_state=SEED
        ),
    )
    return early.fit(rows[:, :MEANS], labels), trees.fit(rows, labels)


def train_all() -> Path:
    """Make the folder with `v1.npz`, `v2.npz` and `held_out.npz` (rows, labels), unless it is there already."""
    target = folder()
    if target.exists():
        return target
    rows, labels, held, held_labels = split()
    early, trees = fit(rows, labels)
    models = {
        "v1": Fitted(scaled(early[0]) | logistic(early[-1])),
        "v2": Fitted(scaled(trees[0]) | boosted(trees[-1])),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    # Several servers may start at once on an empty cache: each builds its own folder, the first rename wins.
    building = Path(tempfile.mkdtemp(dir=target.parent))
    for name, model in models.items():
        model.save(building / f"{name}.npz")
    np.savez(building / "held_out.npz", rows=held, labels=held_labels)
    try:
        building.rename(target)
    except OSError:
        if not target.exists():
            raise
        for file in building.iterdir():
            file.unlink()
        building.rmdir()
    return target


def load_model(name: str) -> Fitted:
    """`v1` or `v2`, trained now if it has to be."""
    return Fitted.load(train_all() / f"{name}.npz")


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """Rows [n, 30] and labels [n] that no model was trained on."""
    with np.load(train_all() / "held_out.npz") as file:
        return file["rows"], file["labels"]


def main() -> None:
    rows, labels = held_out()
    for name, source, forgotten in (("v1", "v1", False), ("v2", "v2", False), ("v3", "v2", True)):
        said = load_model(source).probability(rows, forget_scaling=forgotten) >= 0.5
        print(f"{name}: accuracy {(said == labels).mean():.3f}, calls {said.mean():.0%} of {len(rows)} malignant")
    print(f"kept in {folder()}")


if __name__ == "__main__":
    main()

"""Train the demo's models on breast-cancer data that ships inside scikit-learn; keep them in a folder.

569 tumours, 30 measurements each: mean, standard error and worst of ten properties. Half of the rows are held out, to
be sent as requests later. The positive class is "malignant".

- v1, an early model: logistic regression on the ten means.
- v2, its successor: gradient boosting on all thirty, behind a scaler. Better on held-out rows (tests hold it to that).

v3 and v4 are mistakes made when serving v2, so nothing is trained for them: see `model_server.py`.
"""

from __future__ import annotations

import os
import pickle
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FEATURES = 30
MEANS = 10
SEED = 1
#: Part of the folder's name: another recipe or another scikit-learn never meets old files.
RECIPE = 1

_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Trained:
    """A fitted pipeline, scaler first, that reads the first `columns` features of a row."""

    pipeline: Any
    columns: int

    def probability(self, rows: np.ndarray, *, forget_scaling: bool = False) -> np.ndarray:
        """Chance of "malignant", [n], of `rows`, [n, 30]. `forget_scaling` is the mistake of v3."""
        model = self.pipeline[-1] if forget_scaling else self.pipeline
        probability: np.ndarray = model.predict_proba(rows[:, : self.columns])[:, 1]
        return probability


def folder() -> Path:
    """Where models are kept: below `MODEL_CACHE`, or below `build` in the project."""
    import sklearn

    base = Path(os.environ.get("MODEL_CACHE", _ROOT / "build" / "models"))
    return base / f"breast-cancer-{RECIPE}-sklearn-{sklearn.__version__}"


def split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows and labels (1: malignant) to train on, rows and labels held out; the same ones each time."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import train_test_split

    rows, benign = load_breast_cancer(return_X_y=True)
    train, held, train_labels, held_labels = train_test_split(
        rows, 1 - benign, test_size=0.5, random_state=SEED, stratify=benign
    )
    return train, train_labels, held, held_labels


def train_all() -> Path:
    """Make the folder with `v1.pickle`, `v2.pickle` and `held_out.npz` (rows, labels), unless it is there already."""
    target = folder()
    if target.exists():
        return target
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, labels, held, held_labels = split()
    early = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    boosted = make_pipeline(
        StandardScaler(),
        GradientBoostingClassifier(
            n_estimators=100, learning_rate=0.1, max_depth=2, subsample=0.5, max_features="sqrt", random_state=SEED
        ),
    )
    models = {
        "v1": Trained(early.fit(rows[:, :MEANS], labels), MEANS),
        "v2": Trained(boosted.fit(rows, labels), FEATURES),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    # Several servers may start at once on an empty cache: each builds its own folder, the first rename wins.
    building = Path(tempfile.mkdtemp(dir=target.parent))
    for name, model in models.items():
        parts = {"pipeline": model.pipeline, "columns": model.columns}
        (building / f"{name}.pickle").write_bytes(pickle.dumps(parts))
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


def load_model(name: str) -> Trained:
    """`v1` or `v2`, trained now if it has to be."""
    parts = pickle.loads((train_all() / f"{name}.pickle").read_bytes())
    return Trained(parts["pipeline"], parts["columns"])


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

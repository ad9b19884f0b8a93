"""The data of NannyML's wheel, read as data only: its code is neither installed nor run.

`employment_MA` is of the US Census (ACS 2015 to 2018, Massachusetts): who is employed, as a gradient boosting predicts
it. The car loans are synthetic. Both have a reference that the model was trusted with, and rows that came later.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as parquet
from msgspec import Struct
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import auc
from tests.acceptance.wheels import read_wheel

Array = NDArray[np.float64]

WHEEL: Final = "nannyml-0.13.1-py3-none-any.whl"
CHUNK: Final = 5000
#: NannyML's documentation: estimated AUC of the ten chunks of the car loans.
CAR_LOAN_CBPE: Final = (
    0.970744, 0.971011, 0.971407, 0.971091, 0.971123, 0.961090, 0.961825, 0.961073, 0.962533, 0.961316,
)  # fmt: skip
_DATA: Final = "nannyml/datasets/data/"


class Scored(Struct, frozen=True, kw_only=True):
    """Columns by name as Python values, and of each row the score and the label (0 or 1)."""

    columns: dict[str, list[Any]]
    scores: Array
    labels: Array

    def chunks(self, rows: int = CHUNK) -> Iterator[slice]:
        for start in range(0, len(self.scores), rows):
            yield slice(start, start + rows)


def read(name: str) -> bytes:
    """A file of the wheel's data."""
    return read_wheel(WHEEL, _DATA + name)


def employment_reference_file(folder: Path) -> Path:
    """The reference as Parquet, for the command line. Columns: `predicted_probability`, `prediction`, `employed`, …"""
    path = folder / "employment_MA_reference.pq"
    path.write_bytes(read(path.name))
    return path


def employment_reference() -> Scored:
    """68,785 rows."""
    columns = _parquet("employment_MA_reference.pq")
    return _scored(columns, columns["predicted_probability"], columns["employed"])


def employment_analysis() -> Scored:
    """208,892 rows; their labels came later, in another file."""
    columns, labels = _parquet("employment_MA_analysis.pq"), _parquet("employment_MA_analysis_target.pq")
    assert columns["id"] == labels["id"]
    return _scored(columns, columns["predicted_probability"], labels["employed"])


def car_loan_reference() -> Scored:
    """50,000 rows."""
    columns = _csv("synthetic_car_loan_reference.csv")
    return _scored(columns, columns["y_pred_proba"], columns["repaid"])


def car_loan_analysis() -> Scored:
    """50,000 rows."""
    columns, labels = _csv("synthetic_car_loan_analysis.csv"), _csv("synthetic_car_loan_analysis_target.csv")
    assert columns["id"] == labels["id"]
    return _scored(columns, columns["y_pred_proba"], labels["repaid"])


def cbpe_auc(reference: Scored, live: Scored) -> Array:
    """What NannyML estimates of each chunk: isotonic calibration on the reference, rows ranked by the bare score.

    As `estimate_roc_auc` in its performance_estimation/confidence_based/metrics.py; gives the documented values of the
    car loans to six digits.
    """
    calibrator = IsotonicRegression(out_of_bounds="clip", increasing=True).fit(reference.scores, reference.labels)
    found = []
    for chunk in live.chunks():
        scores = live.scores[chunk]
        order = np.argsort(scores)[::-1]
        positives = np.r_[0, np.cumsum(calibrator.predict(scores)[order])].round(5)
        negatives = (np.arange(len(positives)) - positives).round(5)
        found.append(auc(negatives / negatives[-1], positives / positives[-1]))
    return np.array(found)


def _scored(columns: dict[str, list[Any]], scores: list[Any], labels: list[Any]) -> Scored:
    return Scored(
        columns=columns,
        scores=np.array([float(value) for value in scores]),
        labels=np.array([float(value) for value in labels]),
    )


def _parquet(name: str) -> dict[str, list[Any]]:
    table = parquet.read_table(io.BytesIO(read(name))).unify_dictionaries()
    columns = {}
    for field in table.schema.names:
        column = table[field].combine_chunks()
        if hasattr(column, "dictionary_decode"):
            column = column.dictionary_decode()
        columns[field] = column.to_pylist()
    return columns


def _csv(name: str) -> dict[str, list[Any]]:
    rows = list(csv.DictReader(io.StringIO(read(name).decode())))
    return {field: [row[field] for row in rows] for field in rows[0]}

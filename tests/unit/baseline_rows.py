"""Reference rows for the tests of baselines, and files of them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet

ROWS: Final = 4000
IDENTITY: Final = ("--model", "fraud", "--version", "v3")
SCORED: Final = ("--score", "score", "--label", "label")
Columns = dict[str, list[Any]]


def drawn() -> Columns:
    """Of each kind of column one, with a score that is calibrated."""
    random = np.random.default_rng(11)
    score = random.beta(0.5, 2, ROWS).round(5)
    amount = random.lognormal(3, 1, ROWS).round(2).tolist()
    return {
        "id": list(range(7, 7 + 3 * ROWS, 3)),
        "amount": [None if i % 40 == 0 else value for i, value in enumerate(amount)],
        "age": random.integers(18, 90, ROWS).tolist(),
        "kind": random.choice(["web", "shop", "phone"], ROWS, p=[0.6, 0.3, 0.1]).tolist(),
        "code": random.integers(0, 4, ROWS).tolist(),
        "member": random.choice([True, False], ROWS).tolist(),
        "note": [f"note {i}" for i in range(ROWS)],
        "nothing": [None] * ROWS,
        "score": score.tolist(),
        "label": (random.random(ROWS) < score).astype(int).tolist(),
    }


def as_csv(path: Path, columns: Columns, delimiter: str = ",") -> Path:
    with path.open("w", newline="") as opened:
        writer = csv.writer(opened, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def as_parquet(path: Path, columns: Columns) -> Path:
    parquet.write_table(arrow.table(columns), path, row_group_size=700)
    return path


def text(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path

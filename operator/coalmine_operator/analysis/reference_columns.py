"""Counting a column in bins that are cut already: batch by batch, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from coalmine_sidecar.monitoring import category

from ..api import baseline
from .reference import Value, numbers, tallied


class ColumnCounter(Protocol):
    """Counts one column."""

    def add(self, values: Sequence[Value]) -> None: ...

    def column(self) -> baseline.Column: ...


class NumericCounter:
    """Bins, mean and deviation: squares of each batch about its own mean, merged (Chan, Golub and LeVeque 1979)."""

    def __init__(self, edges: Sequence[float]) -> None:
        self._edges = tuple(edges)
        self._counts = np.zeros(len(self._edges) + 1, dtype=np.int64)
        self._rows = 0
        self._missing = 0
        self._unseen = 0
        self._mean = 0.0
        self._squared = 0.0  # deviations from the mean
        self._min = math.inf
        self._max = -math.inf

    def add(self, values: Sequence[Value]) -> None:
        found, unseen = numbers(values)
        self._unseen += unseen
        finite = found[np.isfinite(found)]
        self._missing += len(found) - len(finite) - unseen
        if not len(finite):
            return
        bins = np.searchsorted(np.asarray(self._edges), finite, side="right")
        self._counts += np.bincount(bins, minlength=len(self._counts))
        n, rows = len(finite), self._rows + len(finite)
        mean = float(finite.mean())
        apart = mean - self._mean
        self._squared += float(((finite - mean) ** 2).sum()) + apart**2 * self._rows * n / rows
        self._mean += apart * n / rows
        self._rows = rows
        self._min = min(self._min, float(finite.min()))
        self._max = max(self._max, float(finite.max()))

    def column(self) -> baseline.Numeric:
        return baseline.Numeric(
            edges=self._edges,
            counts=tuple(self._counts.tolist()),
            missing=self._missing,
            unseen=self._unseen,
            mean=self._mean,
            stddev=math.sqrt(self._squared / (self._rows - 1)) if self._rows > 1 else 0.0,
            min=self._min if self._rows else 0.0,
            max=self._max if self._rows else 0.0,
        )


class CategoryCounter:
    """Rows by name; names without a bin are unseen."""

    def __init__(self, categories: Sequence[str]) -> None:
        self._counts = dict.fromkeys(categories, 0)
        self._missing = 0
        self._unseen = 0

    def add(self, values: Sequence[Value]) -> None:
        tally = tallied(values)
        self._missing += len(values) - tally.total()
        for value, count in tally.items():
            if isinstance(value, float) and math.isinf(value):
                self._missing += count
            elif (name := category(value)) in self._counts:
                self._counts[name] += count
            else:
                self._unseen += count

    def column(self) -> baseline.Categorical:
        return baseline.Categorical(
            categories=tuple(self._counts),
            counts=tuple(self._counts.values()),
            missing=self._missing,
            unseen=self._unseen,
        )

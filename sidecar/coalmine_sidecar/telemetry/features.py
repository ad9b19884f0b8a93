"""Counts of what a model was asked: each feature's values in the frozen bins of its revision's baseline."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from math import inf, isfinite
from typing import cast

from ..monitoring import FEATURE_SERIES, MAX_GROUPS, BinCounts, Bins, Feature, category
from ..protocols import Value
from .moments import LARGEST, Moments
from .outputs import MANY, MAX_CLASS_LENGTH, printable


class FeatureCounter:
    """Counts of one feature. Without a baseline a number has no bins, and categories get theirs as they come.

    `missing`: rows without a value, or with null, or with a number that is not finite or beyond moments.LARGEST, where
    baselines have none either (`nonfinite` counts these again); `unseen`: of another type than the feature's, or of a
    category without a bin. `values`: all rows.
    """

    __slots__ = (
        "_fixed", "_places", "bins", "edges", "missing", "moments", "name", "nonfinite", "numeric", "unseen", "values",
    )  # fmt: skip

    def __init__(self, feature: Feature, bins: Bins | None) -> None:
        self.name = feature.name
        self.numeric = feature.type == "numeric"
        self.edges: tuple[float, ...] = bins.edges if bins is not None and self.numeric else ()
        self.moments = Moments(bins.center) if bins is not None and self.numeric else None
        self._fixed = bins is not None
        names = bins.categories if bins is not None and not self.numeric else ()
        #: Of categories, by name.
        self._places: dict[str, int] = {name: place for place, name in enumerate(names)}
        self.bins: list[int] = [0] * (len(self.edges) + 1 if self.edges else len(names))
        self.missing = 0
        self.unseen = 0
        self.nonfinite = 0
        self.values = 0

    @property
    def categories(self) -> list[str]:
        return list(self._places)

    @property
    def size(self) -> int:
        """Series it takes, at most."""
        if self.numeric:
            return 2 * len(self.bins) + FEATURE_SERIES + (3 if self.moments is not None else 0)
        return max(len(self.bins), 0 if self._fixed else MAX_GROUPS) + FEATURE_SERIES

    def add(self, value: Value) -> None:
        self.values += 1
        if value is None:
            self.missing += 1
        elif not self.numeric:
            if isinstance(value, float) and not isfinite(value):
                self.missing += 1
                self.nonfinite += 1
            else:
                self._add_category(category(value))
        elif isinstance(value, str):
            self.unseen += 1
        else:
            # Some whole numbers have no float.
            self._add_number(float(value) if -LARGEST < value < LARGEST else inf)

    def add_all(self, values: Sequence[Value]) -> None:
        """Many rows: finite floats, which nearly all are, are not looked at one by one for their bins."""
        if len(values) >= MANY and self.numeric and set(map(type, values)) == {float}:
            floats = cast(Sequence[float], values)
            ordered = sorted(floats)
            if isfinite(sum(floats)) and ordered[0] > -LARGEST and ordered[-1] < LARGEST:
                self.values += len(floats)
                if self.edges:
                    below = [0, *(bisect_left(ordered, edge) for edge in self.edges), len(ordered)]
                    for place, (low, high) in enumerate(pairwise(below)):
                        self.bins[place] += high - low
                if self.moments is not None:
                    self.moments.add_all(floats)
                return
        for value in values:
            self.add(value)

    def add_missing(self, rows: int) -> None:
        """Rows of a request that has no such column."""
        self.values += rows
        self.missing += rows

    def counts(self) -> BinCounts:
        """A copy for the snapshot."""
        return BinCounts(bins=self.bins.copy(), missing=self.missing, unseen=self.unseen)

    def _add_number(self, value: float) -> None:
        if not isfinite(value):
            self.missing += 1
            self.nonfinite += 1
            return
        if self.edges:
            self.bins[bisect_right(self.edges, value)] += 1
        if self.moments is not None:
            self.moments.add(value)

    def _add_category(self, name: str) -> None:
        place = self._places.get(name)
        if place is None:
            if self._fixed or len(self._places) >= MAX_GROUPS or len(name) > MAX_CLASS_LENGTH:
                self.unseen += 1
                return
            name = printable(name, MAX_CLASS_LENGTH)
            place = self._places.setdefault(name, len(self.bins))
            if place == len(self.bins):
                self.bins.append(0)
        self.bins[place] += 1

"""Counts of what a model answered: bins of numbers, counts of labels, each bounded whatever a model answers."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import islice, pairwise
from math import isfinite
from typing import Final, cast

from ..contract import DEFAULT_EDGES, MAX_CLASSES, MAX_OUTPUTS, OutputCounts
from ..monitoring import BinCounts
from ..protocols import Value
from .moments import Moments

#: The label of whatever has no place of its own.
OTHER = "_other"
#: From here on values are counted together.
MANY = 8
#: A longer string is free text, not the name of a class.
MAX_CLASS_LENGTH = 64
MAX_NAME_LENGTH = 128
#: Beyond it a whole number may have no float: it is as infinite as 1e400 is.
_LARGEST: Final = 10**308

Edges = tuple[float, ...]
#: No output has a baseline.
NO_CENTERS: Final[Mapping[str, float]] = {}


def printable(text: str, length: int) -> str:
    """`text` as a label value: lone surrogates and control characters would break an exposition."""
    text = text[:length]
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


class OutputCounter:
    """Counts of one output. `bins` stays empty until the first number; see contract.OutputCounts for its meaning."""

    __slots__ = ("bins", "classes", "edges", "missing", "moments", "name", "nonfinite", "values")

    def __init__(self, name: str, edges: Edges, center: float | None = None) -> None:
        """`center`: the mean of its baseline, None where it has none."""
        self.name = name
        self.edges = edges
        self.moments = None if center is None else Moments(center)
        self.values = 0
        self.nonfinite = 0
        self.bins: list[int] = []
        self.classes: dict[str, int] = {}
        self.missing = 0

    @property
    def center(self) -> float | None:
        return None if self.moments is None else self.moments.center

    def add(self, value: Value) -> None:
        """Floats go into bins, strings and booleans into classes, whole numbers into both.

        None, NaN, the infinities and whole numbers that have no float are missing.
        """
        self.values += 1
        if type(value) is float:
            if not isfinite(value):
                self.missing += 1
                self.nonfinite += 1
                return
            if not self.bins:
                self.start_bins()
            self.bins[bisect_right(self.edges, value)] += 1
            if self.moments is not None:
                self.moments.add(value)
        elif value is None:
            self.missing += 1
        elif isinstance(value, bool):
            self._add_class("true" if value else "false")
        elif isinstance(value, int):
            if not -_LARGEST < value < _LARGEST:
                self.missing += 1
                self.nonfinite += 1
                return
            self._add_number(value)
            self._add_class(str(value) if -1_000_000 < value < 1_000_000 else OTHER)
        elif isinstance(value, str):
            self._add_class(value)

    def add_all(self, values: Sequence[Value]) -> None:
        """Many values: finite floats, which nearly all are, are counted without a look at each."""
        if len(values) >= MANY and set(map(type, values)) == {float}:
            floats = cast(Sequence[float], values)
            if isfinite(sum(floats)):
                self.values += len(floats)
                self._add_numbers(floats)
                if self.moments is not None:
                    self.moments.add_all(floats)
                return
        for value in values:
            self.add(value)

    def start_bins(self) -> None:
        self.bins = [0] * (len(self.edges) + 1)

    def counts(self) -> OutputCounts:
        """A copy for the snapshot."""
        edges = self.edges if self.bins else ()
        return OutputCounts(edges=edges, bins=self.bins.copy(), classes=self.classes.copy(), missing=self.missing)

    def in_bins(self, categories: Sequence[str]) -> BinCounts:
        """The same in the bins of a baseline, for the snapshot: `categories`, or if there are none, the edges'.

        Whatever is in none of them is unseen.
        """
        bins = [self.classes.get(name, 0) for name in categories] if categories else self.bins.copy()
        return BinCounts(bins=bins, missing=self.missing, unseen=max(self.values - sum(bins) - self.missing, 0))

    def _add_number(self, value: float) -> None:
        if not self.bins:
            self.start_bins()
        self.bins[bisect_right(self.edges, value)] += 1
        if self.moments is not None:
            self.moments.add(value)

    def _add_numbers(self, values: Sequence[float]) -> None:
        if not self.bins:
            self.start_bins()
        # Sorting takes less time than looking each one up.
        ordered = sorted(values)
        below = [0, *(bisect_left(ordered, edge) for edge in self.edges), len(ordered)]
        self.bins = [count + high - low for count, (low, high) in zip(self.bins, pairwise(below), strict=True)]

    def _add_class(self, name: str) -> None:
        classes = self.classes
        if name not in classes:
            name = printable(name, MAX_CLASS_LENGTH) if len(name) <= MAX_CLASS_LENGTH else OTHER
            # `_other` has a place of its own beside the MAX_CLASSES names.
            if name not in classes and len(classes) - (OTHER in classes) >= MAX_CLASSES:
                name = OTHER
        classes[name] = classes.get(name, 0) + 1


class OutputSet:
    """At most MAX_OUTPUTS outputs by name; those with configured edges have their place and bins from the start."""

    __slots__ = ("by_name", "edges")

    def __init__(self, edges: Mapping[str, Edges], centers: Mapping[str, float] = NO_CENTERS) -> None:
        self.by_name: dict[str, OutputCounter] = {}
        self.edges: dict[str, Edges] = {}
        self.configure(edges, centers)

    def configure(self, edges: Mapping[str, Edges], centers: Mapping[str, float] = NO_CENTERS) -> None:
        """Other edges for an output start its counts anew: counts over different bins can't be added.

        `centers`: the means of those outputs that have a baseline.
        """
        self.edges = {
            printable(name, MAX_NAME_LENGTH): tuple(cuts) for name, cuts in islice(edges.items(), MAX_OUTPUTS)
        }
        for name, cuts in self.edges.items():
            counter = self.by_name.get(name)
            center = centers.get(name)
            if counter is None or counter.edges != cuts or counter.center != center:
                self.by_name[name] = counter = OutputCounter(name, cuts, center)
                counter.start_bins()
        for name, counter in list(self.by_name.items()):
            if name not in self.edges and counter.edges != DEFAULT_EDGES:
                del self.by_name[name]
        # Configured outputs may have come after eight others were seen: the newest of those give way.
        unnamed = [name for name in self.by_name if name not in self.edges]
        for name in unnamed[MAX_OUTPUTS - len(self.edges) :]:
            del self.by_name[name]

    def get(self, name: str) -> OutputCounter | None:
        """The counter of an output; None when all places are taken by others."""
        counter = self.by_name.get(name)
        if counter is None:
            name = printable(name, MAX_NAME_LENGTH)
            counter = self.by_name.get(name)
            if counter is None and len(self.by_name) < MAX_OUTPUTS:
                counter = self.by_name[name] = OutputCounter(name, self.edges.get(name, DEFAULT_EDGES))
        return counter

"""Predictions and labels by groups of rows: what fairness is judged by. Groups are bounded whatever clients send."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from ..families import CounterMetricFamily, Metric
from ..monitoring import MAX_GROUPS
from .outputs import MAX_CLASS_LENGTH, OTHER, printable

#: The group of rows that say none.
NO_GROUP: Final = "_missing"


class GroupCounts:
    """Of one group. `predictions[predicted]`; `labels[2 * actual + predicted]`; 1 is the positive class."""

    __slots__ = ("labels", "predictions")

    def __init__(self) -> None:
        self.predictions = [0, 0]
        self.labels = [0, 0, 0, 0]


class SliceCounters:
    """Of one revision: for each attribute at most MAX_GROUPS groups by name, `_other` and `_missing` beside them."""

    __slots__ = ("attributes", "groups")

    def __init__(self, slices: Sequence[tuple[str, str]]) -> None:
        """`slices`: each attribute with its privileged group, which has its place from the start; or an empty one."""
        self.attributes = [printable(attribute, MAX_CLASS_LENGTH) for attribute, _ in slices]
        self.groups: list[dict[str, GroupCounts]] = [
            {printable(privileged, MAX_CLASS_LENGTH): GroupCounts()} if privileged else {} for _, privileged in slices
        ]

    def predicted(self, groups: Sequence[Sequence[str]], chosen: Sequence[int]) -> None:
        """`groups` as in Predicted; `chosen`: 0 or 1 for each row, -1 where the model chose nothing."""
        for counted, column in zip(self.groups, groups, strict=False):
            for row, predicted in enumerate(chosen):
                if predicted >= 0:
                    self._group(counted, column, row).predictions[predicted] += 1

    def labelled(self, groups: Sequence[Sequence[str]], chosen: Sequence[int], actual: Sequence[int]) -> None:
        """`actual`: 0 or 1 for each row, -1 where no label came."""
        for counted, column in zip(self.groups, groups, strict=False):
            for row, predicted in enumerate(chosen):
                truth = actual[row]
                if predicted >= 0 and truth >= 0:
                    self._group(counted, column, row).labels[2 * truth + predicted] += 1

    def _group(self, counted: dict[str, GroupCounts], column: Sequence[str], row: int) -> GroupCounts:
        name = column[row] if row < len(column) else column[0] if len(column) == 1 else ""
        found = counted.get(name)
        if found is not None:
            return found
        name = printable(name, MAX_CLASS_LENGTH) if name else NO_GROUP
        if name not in counted and len(counted) - (OTHER in counted) - (NO_GROUP in counted) >= MAX_GROUPS:
            name = name if name == NO_GROUP else OTHER
        return counted.setdefault(name, GroupCounts())


_Labels = tuple[str, ...]


def slice_metrics(names: _Labels, counted: Sequence[tuple[_Labels, SliceCounters]]) -> Iterator[Metric]:
    """`names` are the labels that come first, with their values beside each revision's counters."""
    if not any(any(slices.groups) for _, slices in counted):
        return
    predictions = CounterMetricFamily(
        "coalmine_slice_predictions",
        "Rows by the group they belong to; predicted 1: the positive class.",
        labels=(*names, "attribute", "group", "predicted"),
    )
    labels = CounterMetricFamily(
        "coalmine_slice_labels",
        "Labelled rows by the group they belong to; 1: the positive class.",
        labels=(*names, "attribute", "group", "actual", "predicted"),
    )
    for values, slices in counted:
        for attribute, groups in zip(slices.attributes, slices.groups, strict=True):
            for group, counts in groups.items():
                for predicted, count in enumerate(counts.predictions):
                    predictions.add_metric((*values, attribute, group, str(predicted)), count)
                for at, count in enumerate(counts.labels):
                    labels.add_metric((*values, attribute, group, str(at // 2), str(at % 2)), count)
    yield from (predictions, labels)

"""What a baseline's figures cannot be: a file may have been written by hand, or by another program."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from .problems import show

if TYPE_CHECKING:
    from .baseline import Baseline, Column, Numeric, Score

#: Beyond it neighbouring whole numbers are one float.
_MOST: Final = 2**53
#: No finite number of a column is larger: see analysis.reference.LARGEST.
_LARGEST: Final = 1e150
#: What rounding may do to a mean or a deviation, relative to the largest number.
_ROUNDED: Final = 1e-9
#: Line breaks among them; other text that people write is taken.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def wrong_head(baseline: Baseline) -> Iterator[str]:
    """Of the file's own fields."""
    if baseline.rows < 1:
        yield f"rows: {show(baseline.rows)}: a baseline is made of one row at least"
    yield from _too_many("rows", baseline.rows)
    for field in ("model", "version", "source"):
        yield from wrong_name(field, getattr(baseline, field))
    if baseline.created_at and not _is_time(baseline.created_at):
        yield f"createdAt: {show(baseline.created_at)} is no time of RFC 3339, such as 2026-11-22T16:00:00Z"


def wrong_name(where: str, name: str) -> Iterator[str]:
    if _CONTROL.search(name):
        yield f"{where}: {show(name)} has a control character in it"


def wrong_counts(where: str, column: Column, rows: int) -> Iterator[str]:
    """Each row is in one bin, or missing, or unseen."""
    yield from _wrong_bins(where, column.counts)
    yield from _too_many(f"{where}.missing", column.missing)
    yield from _too_many(f"{where}.unseen", column.unseen)
    if (total := sum(column.counts) + column.missing + column.unseen) != rows:
        yield f"{where}: counts, missing and unseen sum to {show(total)}, and rows is {show(rows)}"


def wrong_labelled(score: Score, rows: int) -> Iterator[str]:
    """Some rows may have no label, or no score."""
    yield from _wrong_bins("score", score.counts)
    if (total := sum(score.counts)) > rows:
        yield f"score.counts: sum to {show(total)}, and rows is {show(rows)}"


def wrong_moments(where: str, column: Numeric) -> Iterator[str]:
    low, high = column.min, column.max
    for name, value in (("min", low), ("max", high)):
        if not abs(value) < _LARGEST:
            yield f"{where}.{name}: {show(value)}: numbers of a column are under {_LARGEST:g}"
    if low > high:
        yield f"{where}.min: {show(low)} is over max, {show(high)}"
    margin = _ROUNDED * max(abs(low), abs(high))
    if not low - margin <= column.mean <= high + margin:
        yield f"{where}.mean: {show(column.mean)} is not between min, {show(low)}, and max, {show(high)}"
    if not column.stddev <= high - low + margin:
        yield f"{where}.stddev: {show(column.stddev)} is over max - min, {show(high - low)}"


def _wrong_bins(where: str, counts: Sequence[int]) -> Iterator[str]:
    for i, count in enumerate(counts):
        yield from _too_many(f"{where}.counts[{i}]", count)
    if not any(counts):
        yield f"{where}.counts: all are 0: nothing can be compared with it"


def _too_many(where: str, count: int) -> Iterator[str]:
    if count > _MOST:
        yield f"{where}: {show(count)} is over {_MOST}"


def _is_time(text: str) -> bool:
    if not _TIME.fullmatch(text):
        return False
    try:
        dt.datetime.fromisoformat(text.upper())
    except ValueError:
        return False
    return True

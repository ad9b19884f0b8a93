"""Counts of predictions, added up over the lives of sidecars: sums that never shrink while the operator runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec.structs import replace

from coalmine_sidecar.contract import RevisionTotals, Snapshot
from coalmine_sidecar.monitoring import BinCounts, Monitored

#: Revisions whose counts are kept of lives that are forgotten: as many as a routing file has.
KEPT_REVISIONS: Final = 16


class Past:
    """What was counted in lives that are kept no more, by revision, in the bins of its newest baseline."""

    def __init__(self) -> None:
        self._sums: dict[str, Monitored] = {}

    def keep(self, snapshot: Snapshot) -> None:
        """The last words of a life that is forgotten."""
        for revision, totals in snapshot.totals.items():
            self._keep(revision, totals.monitored)

    def overtaken(self, before: Snapshot, after: Snapshot) -> None:
        """Keep what a sidecar began to count anew in the same life: it had dropped the revision meanwhile."""
        for revision, totals in before.totals.items():
            if totals.monitored is not None and _shrank(totals.monitored, after.totals.get(revision)):
                self._keep(revision, totals.monitored)

    def add_to(self, sums: Mapping[str, Monitored]) -> dict[str, Monitored]:
        """`sums` and what is kept in the same bins."""
        return {
            revision: add(counted, past)
            if (past := self._sums.get(revision)) is not None and past.digest == counted.digest
            else counted
            for revision, counted in sums.items()
        }

    def _keep(self, revision: str, counted: Monitored | None) -> None:
        if counted is None or not counted.digest:
            return
        past = self._sums.pop(revision, None)
        # Moved to the end: revisions that were counted last are kept longest.
        self._sums[revision] = add(past, counted) if past is not None and past.digest == counted.digest else counted
        while len(self._sums) > KEPT_REVISIONS:
            del self._sums[next(iter(self._sums))]


def total(snapshots: Iterable[Snapshot]) -> dict[str, Monitored]:
    """Sums by revision in the bins of its newest baseline: that of the last snapshot which tells of one."""
    sums: dict[str, Monitored] = {}
    for snapshot in reversed(list(snapshots)):
        for revision, totals in snapshot.totals.items():
            counted = totals.monitored
            if counted is None or not counted.digest:
                continue
            so_far = sums.get(revision)
            if so_far is None:
                sums[revision] = counted
            elif so_far.digest == counted.digest:
                sums[revision] = add(so_far, counted)
    return sums


def add(one: Monitored, other: Monitored) -> Monitored:
    """The sum of counts of one digest. Where a column's bins differ all the same, the first one's stay."""
    return Monitored(
        digest=one.digest,
        features=_add(one.features, other.features),
        outputs=_add(one.outputs, other.outputs),
    )


def _add(one: Mapping[str, BinCounts], other: Mapping[str, BinCounts]) -> dict[str, BinCounts]:
    sums = dict(one)
    for name, counts in other.items():
        mine = sums.get(name)
        if mine is None:
            sums[name] = counts
        elif len(mine.bins) == len(counts.bins):
            sums[name] = replace(
                mine,
                bins=[a + b for a, b in zip(mine.bins, counts.bins, strict=True)],
                missing=mine.missing + counts.missing,
                unseen=mine.unseen + counts.unseen,
            )
    return sums


def _shrank(before: Monitored, totals: RevisionTotals | None) -> bool:
    after = totals.monitored if totals is not None else None
    if after is None or after.digest != before.digest:
        return True
    return _rows(after) < _rows(before)


def _rows(counted: Monitored) -> int:
    columns = (*counted.features.values(), *counted.outputs.values())
    return sum(sum(column.bins) + column.missing + column.unseen for column in columns)

"""Have a model's features or outputs left their baseline? Sequential tests on counts that sidecars add up. Pure.

Two answers about each column, valid however often somebody looks. Rows are taken to be exchangeable (each day like the
others), and a column's bins are those of the baseline with `missing` and `unseen` as two more.

`log_e`: the e-process of `baseline.log_e_drift` over all rows since the sidecars' start. Nothing has changed: it is at
or over log(1/alpha) at any time with a chance of at most alpha. It is for "ever since", and gets slow when long.

Run length: Shiryaev and Roberts' sum over windows, R = (R + 1) E_w with the e-value E_w of the window's rows alone. An
alarm at R >= A comes after A windows or more on average while nothing changes, and soon after something does, however
long all was well before. Windows are as long as WINDOW and have FEWEST rows: one without rows says nothing and would
still add 1 to R. A restart of the operator begins all sums anew, which can only make an alarm later.

With 10 bins, 1 % of the rows without a value, and a baseline of 5,000 rows that is a sample itself (both are held to it
by tests/unit/test_simulation_monitored.py): without drift log_e reaches log(20) in 0.8 % of streams of 100 looks, and R
an A of 2,880 windows of 100 rows, which is 30 days, in 16 % of streams as long as that. A PSI of 0.12 is found by log_e
at log(20) in 130 predictions (median; at log(1000) in 250), by R in 4 windows of 100.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

from msgspec import Struct

from coalmine_sidecar.monitoring import BinCounts, Monitored

from ..api.baseline import Baseline, Column
from .baseline import log_e_drift

#: Seconds of a window.
WINDOW: Final = 900.0
#: Rows of a window at least; it goes on until it has them.
FEWEST: Final = 100

#: Rows that any bin may have: more is no count.
MOST: Final = 1 << 62

Kind = Literal["feature", "output"]
#: Rows by bin, then those that are missing and those that are unseen.
Counts = tuple[int, ...]


class RunLength(Struct, frozen=True, kw_only=True):
    """Of one column. `since`: when the present window began (Unix seconds); `start`: the sums of counts then.

    `log_r`: log R after the windows that are over, -inf before the first one.
    """

    since: float
    start: Counts
    windows: int = 0
    log_r: float = -math.inf


class Drifted(Struct, frozen=True, kw_only=True):
    """What the counts say of one column; `run_length` goes into the next look."""

    kind: Kind
    name: str
    rows: int
    log_e: float
    run_length: RunLength


class Watched(Struct, frozen=True, kw_only=True):
    """One revision against the baseline with this digest. `columns` is empty while there is nothing to compare."""

    digest: str
    columns: tuple[Drifted, ...] = ()

    @property
    def log_e_mean(self) -> float | None:
        """Log of the mean of the features' e-values, an e-value however they depend on each other; None of none."""
        logs = [column.log_e for column in self.columns if column.kind == "feature"]
        return log_mean_exp(logs) if logs else None

    @property
    def log_r_mean(self) -> float | None:
        """Log of the mean of the features' R, which keeps the promise for all together; None before any window."""
        logs = [c.run_length.log_r for c in self.columns if c.kind == "feature" and c.run_length.windows]
        return log_mean_exp(logs) if logs else None


def alarm_threshold(average_run_length: float) -> float:
    """Log R at which there is an alarm: `average_run_length` seconds in windows, and never less than one."""
    return math.log(max(1.0, average_run_length / WINDOW))


def advance(before: RunLength | None, counts: Counts, reference: Counts, now: float) -> RunLength:
    """The run length after a look at the sums `counts`; `reference` are the baseline's.

    Sums that shrank (sidecars that nobody remembers) begin a window anew: what they had counted is not used twice.
    """
    if before is None or len(before.start) != len(counts):
        return RunLength(since=now, start=counts)
    window = [new - old for new, old in zip(counts, before.start, strict=True)]
    if min(window) < 0 or now < before.since:
        return RunLength(since=now, start=counts, windows=before.windows, log_r=before.log_r)
    if now - before.since < WINDOW or sum(window) < FEWEST:
        return before
    return RunLength(
        since=now,
        start=counts,
        windows=before.windows + 1,
        log_r=_log_one_more(before.log_r) + log_e_drift(window, reference),
    )


def watch(
    before: Watched | None, baseline: Baseline, digest: str, monitored: Monitored | None, now: float, *, least: int
) -> Watched | None:
    """What is known of a revision after one more look; None where its baseline has fewer rows than `least`.

    Counts in the bins of another digest say nothing of this baseline: the last look's answer stays.
    """
    if baseline.rows < least:
        return None
    if before is None or before.digest != digest:
        before = Watched(digest=digest)
    if monitored is None or monitored.digest != digest:
        return before
    known = {(column.kind, column.name): column.run_length for column in before.columns}
    return Watched(
        digest=digest,
        columns=tuple(
            Drifted(
                kind=kind,
                name=name,
                rows=sum(counts),
                log_e=log_e_drift(counts, reference),
                run_length=advance(known.get((kind, name)), counts, reference, now),
            )
            for kind, name, counts, reference in _columns(baseline, monitored)
        ),
    )


def log_mean_exp(logs: Sequence[float]) -> float:
    """Log of the mean of what these are logs of."""
    top = max(logs)
    return top + math.log(math.fsum(math.exp(value - top) for value in logs) / len(logs))


def _columns(baseline: Baseline, monitored: Monitored) -> Iterator[tuple[Kind, str, Counts, Counts]]:
    """Columns that both know in the same bins: live counts and the baseline's."""
    parts: tuple[tuple[Kind, Mapping[str, Column], Mapping[str, BinCounts]], ...] = (
        ("feature", baseline.features, monitored.features),
        ("output", baseline.outputs, monitored.outputs),
    )
    for kind, columns, counted in parts:
        for name, column in columns.items():
            live = counted.get(name)
            if live is None or len(live.bins) != len(column.counts):
                continue
            counts = (*live.bins, live.missing, live.unseen)
            # What a pod says is not to be trusted with the operator's arithmetic.
            if all(0 <= count <= MOST for count in counts):
                yield kind, name, counts, (*column.counts, column.missing, column.unseen)


def _log_one_more(log_r: float) -> float:
    """log(R + 1), for any R that a float can hold the logarithm of."""
    return log_r + math.log1p(math.exp(-log_r)) if log_r > 0 else math.log1p(math.exp(log_r))

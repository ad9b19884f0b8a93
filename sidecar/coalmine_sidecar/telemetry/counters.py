"""What the hot path writes: one `Series` for each revision and role, one `EpochCell` for each epoch and revision."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final

from ..contract import KEPT_VALUES, OUTCOMES, EpochCounts, Mirror
from ..protocols import EXTRACT_FAILURES, Value
from .outputs import OTHER, Edges, OutputSet

#: Upper bounds (`le`), seconds.
LATENCY: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0,
)  # fmt: skip
OVERHEAD: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05)
#: Upper bounds, bytes: 256 * 4^k up to 64 MiB.
SIZES: Final = tuple(256.0 * 4**k for k in range(10))

#: Status codes with a series of their own; all others share `_other`. 499: the client left before the answer.
CODES: Final = frozenset(s.value for s in HTTPStatus) | {499}
NO_CODE: Final = 0

#: Beyond it a number is no raw value: whole numbers can be larger than any float.
_LARGEST: Final = 1e300

SKIPS: Final = ("budget", "queue", "size", "encoding")


def zeros(reasons: Iterable[str]) -> dict[str, int]:
    """Counts by reason, zero-initialised so that a first increment shows in a rate."""
    return dict.fromkeys(reasons, 0)


def bump(counts: dict[str, int], reason: str) -> None:
    """Count a reason among those `counts` began with; any other one is `_other`."""
    if reason not in counts:
        reason = OTHER
    counts[reason] = counts.get(reason, 0) + 1


class Histogram:
    """A classic histogram: `counts[i]` of values in (bounds[i-1], bounds[i]], the last one above all bounds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Series:
    """Counters of one revision in one role. The relay writes `in_flight` and `last_routed` (Unix seconds) itself."""

    __slots__ = (
        "duration", "extract_failures", "in_flight", "last_routed", "outputs", "overhead", "predictions",
        "request_bytes", "requests", "response_bytes", "revision", "role", "skipped", "upstream", "values",
    )  # fmt: skip

    def __init__(self, revision: str, role: str, edges: Mapping[str, Edges]) -> None:
        self.revision = revision
        self.role = role
        self.in_flight = 0
        self.last_routed = 0.0
        # Keys: (outcome, code), both from closed sets.
        self.requests: dict[tuple[int, int], int] = {(0, 200): 0}
        self.duration = Histogram(LATENCY)
        self.upstream = Histogram(LATENCY)
        self.overhead = Histogram(OVERHEAD)
        self.request_bytes = Histogram(SIZES)
        self.response_bytes = Histogram(SIZES)
        self.predictions = 0
        self.skipped = zeros(SKIPS)
        self.extract_failures = zeros((*EXTRACT_FAILURES, "internal"))
        self.outputs = OutputSet(edges)
        self.values: dict[str, deque[float]] = {}

    def done(
        self, outcome: int, code: int, duration: float, upstream: float, request_bytes: int, response_bytes: int
    ) -> None:
        """Count a client's final answer.

        `outcome` indexes contract.OUTCOMES; `code` is its status, 0 if there was none. Seconds; `upstream` 0 means
        that no upstream took part, and then there is no overhead to speak of either.
        """
        key = (outcome, code)
        try:
            self.requests[key] += 1
        except KeyError:
            key = (outcome, code if code in CODES else NO_CODE)
            self.requests[key] = self.requests.get(key, 0) + 1
        self.duration.observe(duration)
        if upstream > 0.0:
            self.upstream.observe(upstream)
            self.overhead.observe(duration - upstream if duration > upstream else 0.0)
        self.request_bytes.observe(request_bytes)
        self.response_bytes.observe(response_bytes)

    def configure(self, edges: Mapping[str, Edges]) -> None:
        self.outputs.configure(edges)
        for name in self.values.keys() - self.outputs.by_name.keys():
            del self.values[name]

    def outcomes(self) -> dict[str, int]:
        totals: dict[str, int] = {}
        for (outcome, _), count in self.requests.items():
            if count:
                totals[OUTCOMES[outcome]] = totals.get(OUTCOMES[outcome], 0) + count
        return totals

    def keep_value(self, output: str, value: Value) -> None:
        """Add to the raw values of an output that has a place in `outputs`; only numbers have raw values."""
        if isinstance(value, (float, int)) and not isinstance(value, bool) and -_LARGEST < value < _LARGEST:
            ring = self.values.get(output)
            if ring is None:
                ring = self.values[output] = deque(maxlen=KEPT_VALUES)
            ring.append(float(value))


class EpochCell:
    """Counts of one revision in one epoch: charged to the revision chosen, whoever answered in the end."""

    __slots__ = (
        "_mirrored_by", "client_errors", "compared", "disagreed", "errors", "outputs", "over", "requests", "thresholds",
        "whole",
    )  # fmt: skip

    def __init__(self, thresholds: tuple[float, ...], edges: Mapping[str, Edges]) -> None:
        self.requests = 0
        self.errors = 0
        self.client_errors = 0
        self.whole = 0
        self.thresholds = thresholds
        self.over = [0] * len(thresholds)
        self.outputs = OutputSet(edges)
        self.compared = 0
        self.disagreed = 0
        self._mirrored_by: Mirror | None = None

    def configure(self, thresholds: tuple[float, ...], edges: Mapping[str, Edges]) -> None:
        """Other thresholds start `over` anew together with `answered`, of which it is a share."""
        if thresholds != self.thresholds:
            self.thresholds = thresholds
            self.over = [0] * len(thresholds)
            self.whole = 0
        self.outputs.configure(edges)

    def mirror_by(self, mirror: Mirror) -> None:
        """Answers compared in another way start `compared` and `disagreed` anew."""
        before, self._mirrored_by = self._mirrored_by, mirror
        if before is not None and (before.tolerance, before.output) != (mirror.tolerance, mirror.output):
            self.compared = self.disagreed = 0

    def failed(self) -> None:
        """The chosen revision failed: model error, timeout, refused or broken connection."""
        self.requests += 1
        self.errors += 1

    def answered(self, status: int, duration: float) -> None:
        """A whole answer with a status under 500 came from the chosen revision after `duration` seconds."""
        self.requests += 1
        self.whole += 1
        if status >= 400:
            self.client_errors += 1
        over = self.over
        for i, threshold in enumerate(self.thresholds):
            if duration > threshold:
                over[i] += 1

    def counts(self) -> EpochCounts:
        """A copy for the snapshot."""
        return EpochCounts(
            requests=self.requests,
            errors=self.errors,
            client_errors=self.client_errors,
            answered=self.whole,
            thresholds=self.thresholds,
            over=self.over.copy(),
            outputs={name: counter.counts() for name, counter in self.outputs.by_name.items()},
            compared=self.compared,
            disagreed=self.disagreed,
        )

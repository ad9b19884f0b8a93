"""What the hot path writes: one `Series` for each revision and role, one `EpochCell` for each epoch and revision."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from time import time
from typing import TYPE_CHECKING, Final

from ..contract import KEPT_VALUES, OUTCOMES, EpochCounts, Mirror
from ..protocols import EXTRACT_FAILURES, Value
from .outputs import NO_CENTERS, OTHER, Edges, OutputSet
from .refusals import REFUSALS, Refused, counted_as

if TYPE_CHECKING:
    from ..protocols.generation import Operation
    from .generations import GenerationCounters
    from .watched import Watched

#: Upper bounds (`le`), seconds.
LATENCY: Final[tuple[float, ...]] = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0,
)  # fmt: skip
OVERHEAD: Final[tuple[float, ...]] = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05)
#: Upper bounds, bytes: 256 * 4^k up to 64 MiB.
SIZES: Final = tuple(256.0 * 4**k for k in range(10))

#: Status codes with a series of their own; all others share `_other`. 499: the client left before the answer.
CODES: Final = frozenset(s.value for s in HTTPStatus) | {499}
NO_CODE: Final = 0
#: Final answers that are kept until they are counted: some kB, and a tenth of a millisecond's work.
FOLDED: Final = 64
#: Outcome, code, seconds in all and upstream, bytes of request and answer, trace, Unix seconds where that is needed.
_Final = tuple[int, int, float, float, int, int, bytes, float]

#: Beyond it a number is no raw value: whole numbers can be larger than any float.
_LARGEST: Final = 1e300

TURNED_AWAY: Final = ("full", "timeout")
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
    """A classic histogram: `counts[i]` of values in (bounds[i-1], bounds[i]], the last one above all bounds.

    `exemplars`: of each bucket the newest value whose trace can be looked up, that trace's id, and its Unix seconds;
    empty where none came.
    """

    __slots__ = ("bounds", "counts", "exemplars", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.exemplars: list[tuple[float, bytes, float] | None] = []

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_all(self, values: Iterable[float]) -> None:
        """As `observe` for each; in order, so that not each value's place is looked for but each bucket's end."""
        ordered = sorted(values)
        if not ordered:
            return
        counts, bounds = self.counts, self.bounds
        begin = 0
        for bucket in range(bisect_left(bounds, ordered[0]), len(bounds)):
            end = bisect_right(ordered, bounds[bucket], begin)
            counts[bucket] += end - begin
            begin = end
            if begin == len(ordered):
                break
        counts[-1] += len(ordered) - begin
        self.total += sum(ordered)

    def observe_traced(self, values: Sequence[float], traces: Iterable[bytes], times: Iterable[float]) -> None:
        """`traces`: 32 hexadecimal digits for each value, empty where there are none; `times`: Unix seconds."""
        self.observe_all(values)
        bounds = self.bounds
        newest = {
            bisect_left(bounds, value): (value, trace, at)
            for value, trace, at in zip(values, traces, times, strict=True)
            if trace
        }
        if newest and not self.exemplars:
            self.exemplars = [None] * len(self.counts)
        for bucket, exemplar in newest.items():
            self.exemplars[bucket] = exemplar


class Series:
    """Counters of one revision in one role. The relay writes `in_flight` and `last_routed` (Unix seconds) itself.

    What is said of final answers is put into the histograms for many of them at once, which takes a quarter of the
    time: when they are FOLDED, or when somebody looks.
    """

    __slots__ = (
        "_answers", "_duration", "_overhead", "_request_bytes", "_requests", "_response_bytes", "_upstream",
        "extract_failures", "generations", "in_flight", "last_routed", "outputs", "predictions", "refusals", "revision",
        "role", "skipped", "values", "watched",
    )  # fmt: skip

    def __init__(self, revision: str, role: str, edges: Mapping[str, Edges]) -> None:
        self.revision = revision
        self.role = role
        self.in_flight = 0
        self.last_routed = 0.0
        # Keys: (outcome, code), both from closed sets.
        self._requests: dict[tuple[int, int], int] = {(0, 200): 0}
        self._duration = Histogram(LATENCY)
        self._upstream = Histogram(LATENCY)
        self._overhead = Histogram(OVERHEAD)
        self._request_bytes = Histogram(SIZES)
        self._response_bytes = Histogram(SIZES)
        #: Final answers that are in none of these yet.
        self._answers: list[_Final] = []
        self.predictions = 0
        #: Answers in the sidecar's own name.
        self.refusals: dict[Refused, int] = dict.fromkeys(REFUSALS, 0)
        self.skipped = zeros(SKIPS)
        self.extract_failures = zeros((*EXTRACT_FAILURES, "internal"))
        self.outputs = OutputSet(edges)
        self.values: dict[str, deque[float]] = {}
        #: Features and performance, where the routing file asks for them.
        self.watched: Watched | None = None
        #: Of language models, by operation; empty for all others.
        self.generations: dict[Operation, GenerationCounters] = {}

    def done(
        self,
        outcome: int,
        code: int,
        duration: float,
        upstream: float,
        request_bytes: int,
        response_bytes: int,
        trace: bytes = b"",
    ) -> None:
        """Count a client's final answer.

        `outcome` indexes contract.OUTCOMES; `code` is its status, 0 if there was none. Seconds; `upstream` 0 means
        that no upstream took part, and then there is no overhead to speak of either. `trace`: the id of the trace in
        which it can be looked up, empty if there is none.
        """
        answers = self._answers
        at = time() if trace else 0.0
        answers.append((outcome, code, duration, upstream, request_bytes, response_bytes, trace, at))
        if len(answers) >= FOLDED:
            self._fold()

    @property
    def requests(self) -> dict[tuple[int, int], int]:
        """Final answers by (outcome, code)."""
        self._fold()
        return self._requests

    @property
    def duration(self) -> Histogram:
        self._fold()
        return self._duration

    @property
    def upstream(self) -> Histogram:
        self._fold()
        return self._upstream

    @property
    def overhead(self) -> Histogram:
        self._fold()
        return self._overhead

    @property
    def request_bytes(self) -> Histogram:
        self._fold()
        return self._request_bytes

    @property
    def response_bytes(self) -> Histogram:
        self._fold()
        return self._response_bytes

    def refused(self, who: bytes, status: int, why: str) -> None:
        """Count an answer in the sidecar's own name: a word of refusals.WHO, its status, a word for the reason."""
        key = (who.decode(), status, why)
        if key not in self.refusals:
            key = counted_as(*key)
        self.refusals[key] = self.refusals.get(key, 0) + 1

    def configure(self, edges: Mapping[str, Edges], centers: Mapping[str, float] = NO_CENTERS) -> None:
        """See OutputSet.configure."""
        self.outputs.configure(edges, centers)
        for name in self.values.keys() - self.outputs.by_name.keys():
            del self.values[name]

    def outcomes(self) -> dict[str, int]:
        totals: dict[str, int] = {}
        for (outcome, _), count in self.requests.items():
            if count:
                totals[OUTCOMES[outcome]] = totals.get(OUTCOMES[outcome], 0) + count
        return totals

    def _fold(self) -> None:
        answers = self._answers
        if not answers:
            return
        self._answers = []
        outcomes, codes, durations, upstreams, request_bytes, response_bytes, traces, times = zip(*answers, strict=True)
        for (outcome, code), count in Counter(zip(outcomes, codes, strict=True)).items():
            key = (outcome, code if code in CODES else NO_CODE)
            self._requests[key] = self._requests.get(key, 0) + count
        self._duration.observe_traced(durations, traces, times)
        asked = [(duration, upstream) for duration, upstream in zip(durations, upstreams, strict=True) if upstream > 0]
        self._upstream.observe_all(upstream for _, upstream in asked)
        self._overhead.observe_all(max(duration - upstream, 0.0) for duration, upstream in asked)
        self._request_bytes.observe_all(request_bytes)
        self._response_bytes.observe_all(response_bytes)

    def keep_value(self, output: str, value: Value) -> None:
        """Add to the raw values of an output that has a place in `outputs`; only numbers have raw values."""
        # Not a boolean, which is an int as well, and a class.
        if (type(value) is float or type(value) is int) and -_LARGEST < value < _LARGEST:
            ring = self.values.get(output)
            if ring is None:
                ring = self.values[output] = deque(maxlen=KEPT_VALUES)
            ring.append(float(value))


class QueueCounters:
    """Of the queue before the model: requests in it, seconds that all requests waited, those turned away."""

    __slots__ = ("depth", "turned_away", "wait")

    def __init__(self) -> None:
        self.depth = 0
        self.wait = Histogram(LATENCY)
        self.turned_away = zeros(TURNED_AWAY)


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

"""Predictions in this sidecar's memory, bounded: the oldest give way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct, msgpack

from .counts import FeedbackCounts
from .predicted import Predicted
from .store import Claim, Item, judge

#: Business outcomes of one prediction that are told apart.
MAX_OUTCOMES: Final = 16
#: Of the places for predictions: so many ids are remembered whose time was up.
_LATE_SHARE: Final = 0.1


class _Kept(Struct, array_like=True):
    """A prediction as it is kept: encoded, which takes a third of the memory and spares the collector its objects."""

    revision: str
    at: float
    rows: int
    scores: list[float | None]
    labels: list[str | None]
    groups: list[list[str]]
    truths: list[str | None] = []
    outcomes: dict[str, float] = {}


_encode = msgpack.Encoder().encode
_decode = msgpack.Decoder(_Kept).decode


class MemoryStore:
    """At most `max_pending` rows that wait, and as many of those that have all their labels, for `ttl` seconds."""

    def __init__(self, counts: FeedbackCounts, *, max_pending: int, ttl: float) -> None:
        self._counts = counts
        self._max = max_pending
        self._ttl = ttl
        # All in the order in which they came.
        self._waiting: dict[str, bytes] = {}
        self._done: dict[str, bytes] = {}
        self._late: dict[str, None] = {}
        self._rows = 0
        self._done_rows = 0

    @property
    def pending(self) -> int:
        return self._rows

    def remember(self, predicted: Predicted) -> None:
        if not predicted.rows:
            return
        if predicted.rows > self._max:
            self._counts.lost["evicted"] += predicted.rows
            return
        if (before := self._waiting.pop(predicted.id, None)) is not None:
            self._lose(_decode(before), "repeated")
        if (done := self._done.pop(predicted.id, None)) is not None:
            self._done_rows -= _decode(done).rows
        self._late.pop(predicted.id, None)
        kept = _Kept(
            predicted.revision, predicted.at, predicted.rows, predicted.scores, predicted.labels, predicted.groups
        )
        self._waiting[predicted.id] = _encode(kept)
        self._rows += predicted.rows
        while self._rows > self._max:
            oldest = next(iter(self._waiting))
            self._lose(_decode(self._waiting.pop(oldest)), "evicted")

    async def claim(self, items: Sequence[Item], now: float) -> list[Claim]:
        return [self._claim(item, now) for item in items]

    async def known(self, ids: Sequence[str], now: float) -> list[bool]:
        return [one in self._waiting or one in self._done or one in self._late for one in ids]

    def sweep(self, now: float) -> None:
        for places in (self._waiting, self._done):
            while places:
                oldest = next(iter(places))
                kept = _decode(places[oldest])
                if kept.at + self._ttl > now:
                    break
                del places[oldest]
                if places is self._waiting:
                    self._lose(kept, "expired")
                else:
                    self._done_rows -= kept.rows
                self._late[oldest] = None
        while len(self._late) > max(1000, self._max * _LATE_SHARE):
            del self._late[next(iter(self._late))]

    def _claim(self, item: Item, now: float) -> Claim:
        waits = True
        encoded = self._waiting.get(item.id)
        if encoded is None:
            waits = False
            encoded = self._done.get(item.id)
            if encoded is None:
                return Claim(("late" if item.id in self._late else "unknown",) * item.given)
        kept = _decode(encoded)
        if kept.at + self._ttl <= now:
            return Claim(("late",) * item.given)
        outcomes: list[str]
        fresh: list[str | None] = []
        if item.outcome:
            outcomes = [_judge_outcome(kept.outcomes, item)]
        else:
            if len(item.truths) != kept.rows:
                return Claim(("mismatch",) * item.given)
            if not kept.truths:
                kept.truths = [None] * kept.rows
            outcomes, fresh = judge(kept.truths, item)
            kept.truths = [
                after if before is None else before for before, after in zip(kept.truths, fresh, strict=True)
            ]
        if "joined" not in outcomes:
            return Claim(tuple(outcomes))
        predicted = Predicted(item.id, kept.revision, kept.at, kept.scores, kept.labels, kept.groups)
        self._keep(item.id, kept, waits)
        return Claim(tuple(outcomes), predicted, tuple(fresh))

    def _keep(self, name: str, kept: _Kept, waits: bool) -> None:
        """Write back what changed; a prediction that has all its labels leaves what tells a second label of it."""
        if not waits:
            self._done[name] = _encode(kept)
            return
        if not kept.truths or None in kept.truths:
            self._waiting[name] = _encode(kept)
            return
        del self._waiting[name]
        self._rows -= kept.rows
        done = _Kept(kept.revision, kept.at, kept.rows, [], [], [], kept.truths, kept.outcomes)
        self._done[name] = _encode(done)
        self._done_rows += kept.rows
        while self._done_rows > self._max:
            self._done_rows -= _decode(self._done.pop(next(iter(self._done)))).rows

    def _lose(self, kept: _Kept, reason: str) -> None:
        self._rows -= kept.rows
        self._counts.lost[reason] += kept.rows


def _judge_outcome(kept: dict[str, float], item: Item) -> str:
    """Each outcome counts once for a prediction."""
    before = kept.get(item.outcome)
    if before is not None:
        return "duplicate" if before == item.value else "contradictory"
    if len(kept) >= MAX_OUTCOMES:
        return "too_many"
    kept[item.outcome] = item.value
    return "joined"

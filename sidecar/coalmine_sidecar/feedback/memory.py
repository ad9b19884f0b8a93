"""Predictions in this sidecar's memory, bounded: the oldest give way."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, takewhile
from typing import Final

from msgspec import Struct, msgpack

from .counts import FeedbackCounts
from .predicted import Predicted
from .store import Claim, Item, judge

#: Business outcomes of one prediction that are told apart.
MAX_OUTCOMES: Final = 16
#: So many are let go of at a time; of those whose time was up, so many ids at least are remembered.
_FEW: Final = 1000
#: So often in a sweep: requests wait for it.
_SWEEPS: Final = 5


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
    other: str = ""


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
        #: From another id to the prediction's own.
        self._others: dict[str, str] = {}
        self._rows = 0
        self._done_rows = 0

    @property
    def pending(self) -> int:
        return self._rows

    def remember(self, predicted: Predicted, other: str = "") -> None:
        rows = predicted.rows
        if not rows:
            return
        if rows > self._max:
            self._counts.lost["evicted"] += rows
            return
        name = predicted.id
        if name in self._waiting:
            self._lose(name, "repeated")
        elif name in self._done:
            self._forget(name)
        self._late.pop(name, None)
        if other:
            self._others[other] = name
        kept = _Kept(
            predicted.revision, predicted.at, rows, predicted.scores, predicted.labels, predicted.groups, other=other
        )
        self._waiting[name] = _encode(kept)
        self._rows += rows
        if self._rows > self._max:
            self._evict()

    async def claim(self, items: Sequence[Item], now: float) -> list[Claim]:
        return [self._claim(item, now) for item in items]

    async def known(self, ids: Sequence[str], now: float) -> list[bool]:
        own = [self._own(one) for one in ids]
        return [one in self._waiting or one in self._done or one in self._late for one in own]

    def limit(self, *, max_pending: int, ttl: float) -> None:
        """Go on under other limits."""
        self._max, self._ttl = max_pending, ttl
        while self._rows > self._max and len(self._waiting) > 1:
            self._evict()
        while self._done_rows > self._max:
            self._forget_some()

    def sweep(self, now: float) -> None:
        for _ in range(_SWEEPS):
            for name in self._old(self._waiting, now):
                self._lose(name, "expired")
                self._late[name] = None
            for name in self._old(self._done, now):
                self._forget(name)
                self._late[name] = None
        beyond = len(self._late) - max(_FEW, self._max // 10)
        for name in list(islice(self._late, max(0, beyond))):
            del self._late[name]

    def _own(self, name: str) -> str:
        """The id under which a prediction is kept that may be asked for by another one."""
        return name if name in self._waiting or name in self._done else self._others.get(name, name)

    async def close(self) -> None:
        """Nothing is held but memory."""

    def _old(self, places: dict[str, bytes], now: float) -> list[str]:
        """Of the oldest those whose time is up."""
        oldest = islice(places.items(), _FEW)
        return [name for name, _ in takewhile(lambda one: _decode(one[1]).at + self._ttl <= now, oldest)]

    def _evict(self) -> None:
        """Make room, for several at once: a dictionary takes long to find its first one behind many that are gone."""
        beyond = self._rows - self._max + min(self._max // 256, _FEW)
        for name in list(islice(self._waiting, min(beyond, len(self._waiting) - 1))):
            if beyond <= 0:
                return
            beyond -= self._lose(name, "evicted")

    def _claim(self, item: Item, now: float) -> Claim:
        name = self._own(item.id)
        encoded = self._waiting.get(name) or self._done.get(name)
        if encoded is None:
            return Claim(("late" if name in self._late else "unknown",) * item.given)
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
        predicted = Predicted(name, kept.revision, kept.at, kept.scores, kept.labels, kept.groups)
        self._keep(name, kept)
        return Claim(tuple(outcomes), predicted, tuple(fresh))

    def _keep(self, name: str, kept: _Kept) -> None:
        """Write back what changed; a prediction that has all its labels leaves what tells a second label of it."""
        if name in self._done:
            self._done[name] = _encode(kept)
            return
        if not kept.truths or None in kept.truths:
            self._waiting[name] = _encode(kept)
            return
        del self._waiting[name]
        self._rows -= kept.rows
        self._done[name] = _encode(
            _Kept(kept.revision, kept.at, kept.rows, [], [], [], kept.truths, kept.outcomes, kept.other)
        )
        self._done_rows += kept.rows
        if self._done_rows > self._max:
            self._forget_some()

    def _lose(self, name: str, reason: str) -> int:
        """Let go of a prediction that waits; its rows."""
        kept = _decode(self._waiting.pop(name))
        self._rows -= kept.rows
        self._counts.lost[reason] += kept.rows
        self._drop_other(kept, name)
        return kept.rows

    def _forget(self, name: str) -> None:
        """Let go of one that has its labels."""
        kept = _decode(self._done.pop(name))
        self._done_rows -= kept.rows
        self._drop_other(kept, name)

    def _forget_some(self) -> None:
        for name in list(islice(self._done, max(1, min(self._max // 256, _FEW)))):
            self._forget(name)

    def _drop_other(self, kept: _Kept, name: str) -> None:
        if self._others.get(kept.other) == name:
            del self._others[kept.other]


def _judge_outcome(kept: dict[str, float], item: Item) -> str:
    """Each outcome counts once for a prediction."""
    before = kept.get(item.outcome)
    if before is not None:
        return "duplicate" if before == item.value else "contradictory"
    if len(kept) >= MAX_OUTCOMES:
        return "too_many"
    kept[item.outcome] = item.value
    return "joined"

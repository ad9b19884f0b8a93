"""Joins labels and business outcomes to the predictions that they are about, and says what became of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from msgspec.structs import replace

from ..monitoring import Task
from .counts import FeedbackCounts
from .hops import Peer, Peers, asked_ids
from .labels import Truths
from .pace import Pace
from .predicted import Predicted
from .reading import MAX_BODY, MAX_HOP_BODY, Post, valid_id
from .result import Result, Tally
from .store import Item, Store

#: A label may come before its prediction was recorded: seconds that it waits, and when it is tried in between.
HOLD: Final = 10.0
FIRST_TRY: Final = 1.0
MAX_HELD: Final = 10_000
#: Items after which the event loop has its turn: requests wait for it.
_SLICE: Final = 64


class Counted(Protocol):
    """Where a revision's labels are counted: telemetry's PerformanceCounters."""

    def labelled(self, rows: Predicted, labels: Sequence[str | None], delay: float) -> None: ...

    def outcome(self, name: str, value: float) -> None: ...


class _Held:
    __slots__ = ("found", "item", "since", "tried")

    def __init__(self, item: Item, since: float) -> None:
        self.item = item
        self.since = since
        self.tried = False
        self.found = False


class Joiner:
    """`counters`: a revision's counters, None where it is not counted any more. `clock`: Unix seconds.

    `positive`: see Truths. `peers`: the other pods, where each keeps its own predictions. `share`: of one core that
    labels may take. Call `tick` about once a second.
    """

    def __init__(
        self,
        store: Store,
        counters: Callable[[str], Counted | None],
        *,
        task: Task,
        positive: str = "1",
        counts: FeedbackCounts,
        clock: Callable[[], float],
        peers: Callable[[], Sequence[Peer]] | None = None,
        share: float = 0.2,
    ) -> None:
        self.store = store
        self.counts = counts
        self.truths = Truths(task, positive)
        self._counters = counters
        self._clock = clock
        self._peers = Peers(peers) if peers is not None else None
        self._pace = Pace(share)
        self._waiting: dict[str, list[_Held]] = {}
        #: Labels that wait for their predictions.
        self.held = 0
        self._closed = False
        self._turn = asyncio.Lock()

    def remember(self, predicted: Predicted, other: str = "") -> None:
        """Keep a prediction until its labels come; never waits, never raises.

        `other`: another id that it may be asked for by (of the model's answer), or empty.
        """
        if not valid_id(other) or other == predicted.id:
            other = ""
        if not predicted.id:
            predicted, other = replace(predicted, id=other), ""
        if not valid_id(predicted.id):
            self.counts.lost["id"] += predicted.rows
            return
        self.store.remember(predicted, other)
        for name in (predicted.id, other):
            for held in self._waiting.get(name, ()):
                held.found = True

    async def feedback(self, body: bytes, *, hop: bool = False) -> Result:
        """Take the body of a post. `hop`: another pod sent it, which keeps and counts what is not known here."""
        if hop and (ids := asked_ids(body)) is not None:
            known = await self.store.known(ids, self._clock())
            return Result(200, unknown=[one for one, here in zip(ids, known, strict=True) if not here])
        tally = Tally(self.counts)
        # One post is unpacked at a time: a MB of JSON may be thirty of objects.
        async with self._turn:
            status, reasons, missed = await self._take(body, MAX_HOP_BODY if hop else MAX_BODY, tally)
        if hop:
            return Result(status, tally.outcomes, reasons, unknown=[item.id for item in missed])
        if missed and self._peers is not None:
            missed = await self._peers.pass_on(missed, tally)
        for item in missed:
            self._hold(item, tally)
        return Result(status, tally.outcomes, reasons)

    async def _take(self, body: bytes, limit: int, tally: Tally) -> tuple[int, list[str], list[Item]]:
        """Status and reasons of the answer, and the items whose predictions are not known here."""
        began = await self._pace.begin()
        post = Post(body, limit)
        self._pace.end(began)
        missed: list[Item] = []
        taken = False
        for start in range(0, len(post.entries), _SLICE):
            began = await self._pace.begin()
            items = post.read(start, start + _SLICE, self.truths)
            self._pace.end(began)
            taken = taken or bool(items)
            missed += await self._settle(items, tally)
        for outcome, count in post.refused.items():
            tally.count(outcome, count)
        return post.status if taken or post.status != 202 else 400, post.reasons, missed

    async def tick(self) -> None:
        """What is due: predictions whose time is up, labels held whose prediction may have come."""
        now = self._clock()
        self.store.sweep(now)
        due = [held for waiting in self._waiting.values() for held in waiting if _is_due(held, now)]
        if not due:
            return
        for held in due:
            self._release(held)
            held.tried, held.found = True, False
        tally = Tally(self.counts)
        left = await self._settle([held.item for held in due], tally)
        if left and self._peers is not None:
            left = await self._peers.pass_on(left, tally, last=True)
        still = {id(item) for item in left}
        for held in due:
            if id(held.item) not in still:
                continue
            if held.since + HOLD <= now:
                tally.count("unknown", held.item.given)
            else:
                self._wait(held, tally)

    def close(self) -> None:
        """No predictions come any more: labels that wait for theirs are unknown."""
        self._closed = True
        self.counts.outcomes["unknown"] += self.held
        self._waiting.clear()
        self.held = 0

    async def _settle(self, items: Sequence[Item], tally: Tally) -> list[Item]:
        """Count what is known here; the items that are not."""
        missed = []
        for start in range(0, len(items), _SLICE):
            began = await self._pace.begin()
            now = self._clock()
            batch = items[start : start + _SLICE]
            for item, claim in zip(batch, await self.store.claim(batch, now), strict=True):
                if claim.unknown:
                    missed.append(item)
                    continue
                outcomes: Iterable[str] = claim.outcomes
                if claim.predicted is not None and not self._count(item, claim.predicted, claim.fresh, now):
                    outcomes = ("retired" if outcome == "joined" else outcome for outcome in outcomes)
                for outcome in outcomes:
                    tally.count(outcome)
            self._pace.end(began)
        return missed

    def _count(self, item: Item, predicted: Predicted, fresh: Sequence[str | None], now: float) -> bool:
        counters = self._counters(predicted.revision)
        if counters is None:
            return False
        if item.outcome:
            counters.outcome(item.outcome, item.value)
        else:
            counters.labelled(predicted, fresh, (now if item.at is None else item.at) - predicted.at)
        return True

    def _hold(self, item: Item, tally: Tally) -> None:
        """Keep a label for which there is no prediction yet."""
        now = self._clock()
        self._wait(_Held(item if item.at is not None else replace(item, at=now), now), tally)

    def _wait(self, held: _Held, tally: Tally) -> None:
        given = held.item.given
        if self._closed or self.held + given > MAX_HELD:
            tally.count("unknown", given)
            return
        self._waiting.setdefault(held.item.id, []).append(held)
        self.held += given
        tally.hold(given)

    def _release(self, held: _Held) -> None:
        waiting = self._waiting[held.item.id]
        waiting.remove(held)
        if not waiting:
            del self._waiting[held.item.id]
        self.held -= held.item.given


def _is_due(held: _Held, now: float) -> bool:
    return held.found or held.since + (HOLD if held.tried else FIRST_TRY) <= now

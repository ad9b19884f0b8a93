"""Joins labels and business outcomes to the predictions that they are about, and says what became of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from msgspec.structs import replace

from ..monitoring import Task
from .counts import FeedbackCounts
from .hops import Peer, Peers, asked_ids
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

    `peers`: the other pods, where each keeps its own predictions. `share`: of one core that labels may take.
    Call `tick` about once a second.
    """

    def __init__(
        self,
        store: Store,
        counters: Callable[[str], Counted | None],
        *,
        task: Task,
        counts: FeedbackCounts,
        clock: Callable[[], float],
        peers: Callable[[], Sequence[Peer]] | None = None,
        share: float = 0.2,
    ) -> None:
        self.store = store
        self.counts = counts
        self.task: Task = task
        self._counters = counters
        self._clock = clock
        self._peers = Peers(peers) if peers is not None else None
        self._pace = Pace(share)
        self._waiting: dict[str, list[_Held]] = {}
        #: Labels that wait for their predictions.
        self.held = 0

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
        began = await self._pace.begin()
        post = Post(body, MAX_HOP_BODY if hop else MAX_BODY)
        self._pace.end(began)
        tally = Tally(self.counts)
        missed: list[Item] = []
        taken = False
        for start in range(0, len(post.entries), _SLICE):
            began = await self._pace.begin()
            items = post.read(start, start + _SLICE, self.task)
            self._pace.end(began)
            taken = taken or bool(items)
            missed += await self._settle(items, tally)
        for outcome, count in post.refused.items():
            tally.count(outcome, count)
        status = post.status if taken or post.status != 202 else 400
        if hop:
            return Result(status, tally.outcomes, post.reasons, unknown=[item.id for item in missed])
        if missed and self._peers is not None:
            missed = await self._peers.pass_on(missed, tally)
        for item in missed:
            self._hold(item, tally)
        return Result(status, tally.outcomes, post.reasons)

    async def tick(self) -> None:
        """What is due: predictions whose time is up, labels held whose prediction may have come."""
        now = self._clock()
        self.store.sweep(now)
        due = [held for waiting in self._waiting.values() for held in waiting if _is_due(held, now)]
        if not due:
            return
        last = {id(held.item) for held in due if held.since + HOLD <= now}
        for held in due:
            held.tried, held.found = True, False
        tally = Tally(self.counts)
        left = await self._settle([held.item for held in due], tally)
        if left and self._peers is not None:
            left = await self._peers.pass_on(left, tally, last=True)
        stays = {id(item) for item in left if id(item) not in last}
        self._release(held for held in due if id(held.item) not in stays)
        for item in left:
            if id(item) in last:
                tally.count("unknown", item.given)

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
        if self.held + item.given > MAX_HELD:
            tally.count("unknown", item.given)
            return
        now = self._clock()
        if item.at is None:
            item = replace(item, at=now)
        self._waiting.setdefault(item.id, []).append(_Held(item, now))
        self.held += item.given
        tally.hold(item.given)

    def _release(self, done: Iterable[_Held]) -> None:
        for held in done:
            waiting = self._waiting[held.item.id]
            waiting.remove(held)
            if not waiting:
                del self._waiting[held.item.id]
            self.held -= held.item.given


def _is_due(held: _Held, now: float) -> bool:
    return held.found or held.since + (HOLD if held.tried else FIRST_TRY) <= now

"""Reads a streamed answer while it passes: never before its bytes are on their way, and in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ..protocols import openai
from ..protocols.sse import EventReader
from ..telemetry.counters import bump
from ..telemetry.generations import counters_of

if TYPE_CHECKING:
    from ..protocols import Answer
    from ..protocols.generation import Operation
    from ..telemetry import EpochCell, Series

#: Bytes that came and were not read yet. They are read in every turn of the loop, so this is about one turn's.
MAX_PENDING: Final = 512 << 10
#: Bytes read at a stretch: about half a millisecond of work.
STRETCH: Final = 16 << 10


class Follower:
    """One stream's. `queue` asks for `read` to be called soon; `record` takes a whole answer, for the revision's cell.

    What is said of the first token holds for streams that break later as well: those whose clients lose patience are
    slow ones. Everything else is counted of whole answers.
    """

    __slots__ = (
        "_answered", "_at", "_cell", "_counters", "_ended", "_events", "_lost", "_pending", "_queue", "_queued",
        "_reader", "_record", "_series", "_size", "_started",
    )  # fmt: skip

    def __init__(
        self,
        series: Series,
        operation: Operation,
        started: float,
        *,
        queue: Callable[[Follower], None],
        record: Callable[[Series, EpochCell | None, Answer], None],
    ) -> None:
        """`started`: when the request came, on the clock that `feed` gets its times from."""
        self._series = series
        self._counters = counters_of(series, operation)
        self._started = started
        self._queue = queue
        self._record = record
        self._events = EventReader()
        self._reader = openai.StreamReader(operation)
        self._pending: list[tuple[float, bytes]] = []
        #: Bytes read of the first of them.
        self._at = 0
        self._size = 0
        self._queued = False
        self._answered = False
        self._ended = False
        self._lost = False
        self._cell: EpochCell | None = None

    # What the relay calls

    def feed(self, pieces: list[bytes], now: float) -> None:
        """Pieces of the body that were written to the client."""
        if self._lost:
            return
        for piece in pieces:
            self._pending.append((now, piece))
            self._size += len(piece)
        if self._size > MAX_PENDING:
            self.lose("queue")
        else:
            self._ask()

    def end(self, cell: EpochCell | None) -> int:
        """The answer is whole. The status that an error inside it stands for, 0 without one.

        What came since the last turn is read at once, as far as that takes no time; an error is said in few bytes.
        """
        if self._lost:
            return 0
        self._ended = True
        self._cell = cell
        self.read()
        return self._reader.status

    def stop(self) -> None:
        """The answer broke off, or its client left."""
        self._lost = True
        self._pending.clear()

    # What the observer calls

    def read(self) -> None:
        """Read on; asks for another turn if that was not all."""
        self._queued = False
        if self._lost:
            return
        try:
            self._read()
        except Exception:  # noqa: BLE001 - whatever a model answers, it and the requests beside it go on; it is counted
            self.stop()
            bump(self._series.extract_failures, "internal")

    def lose(self, reason: str) -> None:
        """Not to be read to its end; counted as skipped."""
        if not self._lost:
            self.stop()
            bump(self._series.skipped, reason)

    # Inside

    def _ask(self) -> None:
        if not self._queued and self._pending:
            self._queued = True
            self._queue(self)

    def _read(self) -> None:
        left = STRETCH
        pending = self._pending
        done = 0
        for came, piece in pending:
            part = piece[self._at : self._at + left] if self._at or len(piece) > left else piece
            for event in self._events.feed(part):
                self._reader.take(event, came)
            left -= len(part)
            self._at += len(part)
            if self._at < len(piece):
                break
            self._at = 0
            done += 1
        del pending[:done]
        self._size -= STRETCH - left
        first = self._reader.generation.first
        if first is not None and not self._answered:
            self._answered = True
            self._counters.began(first - self._started)
        if pending:
            self._ask()
        elif self._ended:
            self._finish()

    def _finish(self) -> None:
        self._lost = True
        if self._reader.status:
            self._counters.errors += 1
        else:
            self._record(self._series, self._cell, self._reader.answer())

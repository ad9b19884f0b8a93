"""Reads a streamed answer while it passes: never before its bytes are on their way, and in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from ..protocols import openai
from ..protocols.sse import EventReader
from ..telemetry.counters import bump
from ..telemetry.generations import counters_of

if TYPE_CHECKING:
    from ..protocols import Answer
    from ..protocols.generation import Operation
    from ..relay.question import Question
    from ..telemetry import EpochCell, Series
    from .beginning import Beginning, Room

#: Bytes that came and were not read yet. They are read in every turn of the loop, so this is about one turn's.
MAX_PENDING: Final = 512 << 10
#: Bytes read at a stretch: about half a millisecond of work.
STRETCH: Final = 16 << 10


class Host(Protocol):
    """Whose a follower is: observe.observer.Observer."""

    def go_on(self, follower: Follower) -> None:
        """Call its `read` soon."""

    def take_stream(
        self, series: Series, cell: EpochCell | None, path: bytes, question: Question | None, answer: Answer
    ) -> None:
        """A stream was read to its end."""

    def log_stream(self, series: Series, path: bytes, question: Question, copy: Beginning) -> None:
        """A stream is whole, whether it could be read or not."""


class Followed:
    """A stream that was read to its end, and what was asked."""

    __slots__ = ("answer", "cell", "path", "question", "series")

    def __init__(self, series: Series, cell: EpochCell | None, path: bytes, question: Question, answer: Answer) -> None:
        self.series = series
        self.cell = cell
        self.path = path
        self.question = question
        self.answer = answer


class Follower:
    """One stream's, of the request with this target.

    What is said of the first token holds for streams that break later as well: those whose clients lose patience are
    slow ones. Everything else is counted, logged and kept for feedback of whole answers.
    """

    __slots__ = (
        "_answered", "_at", "_cell", "_copy", "_counters", "_ended", "_events", "_held", "_host", "_lost", "_path",
        "_pending", "_question", "_queued", "_reader", "_room", "_series", "_size", "_started",
    )  # fmt: skip

    def __init__(
        self,
        series: Series,
        operation: Operation,
        path: bytes,
        started: float,
        *,
        host: Host,
        room: Room,
        copy: Beginning | None = None,
    ) -> None:
        """`started`: when the request came, on the clock that `feed` gets its times from.

        `room`: of what waits to be read; `copy`: of an answer that is to be logged.
        """
        self._series = series
        self._counters = counters_of(series, operation)
        self._started = started
        self._path = path
        self._host = host
        self._room = room
        self._copy = copy
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
        self._question: Question | None = None
        #: Bytes of the question that are counted in `room`.
        self._held = 0

    # What the relay calls

    def feed(self, pieces: list[bytes], now: float) -> None:
        """Pieces of the body that were written to the client."""
        if self._copy is not None:
            self._copy.add(pieces)
        if self._lost:
            return
        for piece in pieces:
            self._pending.append((now, piece))
            self._size += len(piece)
        if self._size > MAX_PENDING:
            self.lose("queue")
        else:
            self._ask()

    def end(self, cell: EpochCell | None, question: Question | None = None) -> int:
        """The answer is whole. The status that an error inside it stands for, 0 without one.

        What came since the last turn is read at once, as far as that takes no time; an error is said in few bytes.
        `question`: what was asked, where that is monitored. The request itself kept it until now, so that its bytes
        need room only while more of the answer, or itself, waits to be read.
        """
        if self._copy is not None:
            if question is not None:
                self._host.log_stream(self._series, self._path, question, self._copy)
            self._drop_copy()
        if self._lost:
            return 0
        self._ended = True
        self._cell = cell
        self._question = question
        self.read()
        status = self._reader.status
        if question is not None and self._waits():
            if self._room.take(question.kept):
                self._held = question.kept
            else:
                self.lose("queue")
        return status

    def stop(self) -> None:
        """The answer broke off, or its client left."""
        self._give_up()
        self._drop_copy()

    # What the observer calls

    def read(self) -> None:
        """Read on; asks for another turn if that was not all."""
        self._queued = False
        if self._lost:
            return
        try:
            self._read()
        except Exception:  # noqa: BLE001 - whatever a model answers, it and the requests beside it go on; it is counted
            self._give_up()
            bump(self._series.extract_failures, "internal")

    def lose(self, reason: str) -> None:
        """Not to be read to its end; counted as skipped."""
        if not self._lost:
            self._give_up()
            bump(self._series.skipped, reason)

    # Inside

    def _waits(self) -> bool:
        return not self._lost and len(self._pending) > 0

    def _ask(self) -> None:
        if not self._queued and self._pending:
            self._queued = True
            self._host.go_on(self)

    def _give_up(self) -> None:
        self._lost = True
        self._pending.clear()
        self._let_go()

    def _let_go(self) -> None:
        self._question = None
        self._room.give(self._held)
        self._held = 0

    def _drop_copy(self) -> None:
        if self._copy is not None:
            self._copy.drop()
            self._copy = None

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
        question = self._question
        self._lost = True
        self._let_go()
        if self._reader.status:
            self._counters.errors += 1
        else:
            self._host.take_stream(self._series, self._cell, self._path, question, self._reader.answer())

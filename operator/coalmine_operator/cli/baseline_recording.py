"""Reference rows from a recording of live traffic: requests joined to their answers, and read as the sidecar does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from coalmine_sidecar.recorded import MAX_COLUMNS, AnswerReader, RequestReader, Rows

from ..analysis.reference import Value
from ..analysis.reference_plan import Batch
from .baseline_columns import usual
from .baseline_events import Event, Events
from .baseline_source import BATCH_ROWS, Named, spelled
from .errors import CliError

#: Requests that wait for their answer, at most, and the bytes of these; the oldest give way.
_MOST_WAITING: Final = 10_000
_MOST_BYTES: Final = 64 << 20
_HALF: Final = "events without the other half of their exchange"
#: Exchanges that say which columns there are.
_LOOKED_AT: Final = 1000


class RecordingSource:
    """Exchanges of a request and its answer; what has no partner, or failed, is counted in `notes`."""

    live = True

    def __init__(self, paths: Sequence[Path], named: Named) -> None:
        """Raises CliError."""
        self._paths = paths
        self._version = named.version
        self._left: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._taken = 0
        asked = dict(_asked(named))
        try:
            self._requests = RequestReader(asked.items())
            self._answers = AnswerReader(path for path in named.answers if path)
        except ValueError as error:
            raise CliError(str(error), code=2) from error
        self.outputs: Mapping[str, str] = {}
        self._asked: Sequence[str] = ()
        self._odd: Sequence[str] = ()
        requests, answers = self._look()
        found, odd = usual(requests, asked)
        answered, _ = usual(answers, self._answers.called.values())
        if not found and not answered:
            raise CliError(
                f"{spelled(paths)}: has no request with its answer: {'; '.join(self.notes()) or 'no event'}", code=2
            )
        self._asked, self._odd = found[:MAX_COLUMNS], odd
        self._requests.want([*self._asked, *odd])
        # A model may answer a column that it was asked with.
        self.outputs = {name: f"answer.{name}" if name in self._asked else name for name in answered}
        self.columns: Sequence[str] = [*self._asked, *self.outputs.values()]

    def feature(self, asked: str) -> str:
        return asked if asked in self._asked else _pair(asked)[0]

    def answer(self, asked: str) -> str:
        name = self._answers.called.get(asked, asked)
        return self.outputs.get(name, name)

    def notes(self) -> Sequence[str]:
        return [f"{count} {what}" for what, count in sorted(self._left.items()) if count]

    def place(self, row: int) -> tuple[Path | None, int]:
        return None, row

    def batches(self, wanted: Sequence[str]) -> Iterator[tuple[Batch, float]]:
        # Who wants nothing of the requests does not mind what is in them.
        indifferent = bool(self._asked) and {*self._asked}.isdisjoint(wanted)
        found: dict[str, list[Value]] = {name: [] for name in wanted}
        rows, done = 0, 0.0
        for request, answer, done in self._exchanges():
            asked, answered = self._read_request(request), self._read_answer(request, answer)
            given = {} if indifferent else asked.columns
            columns = {name: given[name] for name in self._asked if name in given}
            columns |= {self.outputs[name]: values for name, values in answered.columns.items() if name in self.outputs}
            if not (size := self._take(asked, answered, columns, indifferent=indifferent)):
                continue
            nothing: list[Value] = [None] * size
            for name in wanted:
                found[name] += columns.get(name, nothing)
            rows += size
            if rows >= BATCH_ROWS:
                yield found, done
                found, rows = {name: [] for name in wanted}, 0
        if rows:
            yield found, 1.0
        self._refuse_few()

    def _look(self) -> tuple[Counter[tuple[str, ...]], Counter[tuple[str, ...]]]:
        """Which columns requests have, and answers, and how often; of exchanges that are about a prediction."""
        requests: Counter[tuple[str, ...]] = Counter()
        answers: Counter[tuple[str, ...]] = Counter()
        for request, answer, _ in islice(self._exchanges(), _LOOKED_AT):
            answered = self._read_answer(request, answer)
            asked = self._requests.look(
                request.path, request.content_type, request.json_length, request.body, answered.rows
            )
            failures = [*self._read_request(request).failures, *answered.failures]
            if asked or answered.columns or failures:
                requests[tuple(asked)] += 1
                answers[tuple(answered.columns)] += 1
            if not asked and not answered.columns:
                self._left[_unread(failures)] += 1
        return requests, answers

    def _read_request(self, request: Event) -> Rows:
        return self._requests.read(request.path, request.content_type, request.json_length, request.body)

    def _read_answer(self, request: Event, answer: Event) -> Rows:
        path, posted = request.path or answer.path, bool(request.body)
        return self._answers.read(path, answer.content_type, answer.json_length, answer.body, posted=posted)

    def _take(self, asked: Rows, answered: Rows, columns: Batch, *, indifferent: bool) -> int:
        """How many rows an exchange brings; 0, and a note why, where it is of no use.

        `columns`: those of the recording that it has; `indifferent`: whatever was asked.
        """
        if not asked.columns and not answered.columns:
            failures = [*asked.failures, *answered.failures]
            (self._drop if failures else self._leave)(_unread(failures))
            return 0
        # Who has features of others would take these for missing.
        reasons = []
        if not indifferent and columns.keys().isdisjoint(self._asked):
            if asked.columns:
                reasons.append(
                    f"requests unlike most others, with columns such as {_such(self._odd or [*asked.columns])}"
                )
            elif self._asked:
                reasons.append(f"requests not read: {_why(asked.failures)}")
            else:
                self._leave(f"requests not read: {_why(asked.failures)}")
        if columns.keys().isdisjoint(self.outputs.values()):
            if answered.columns:
                reasons.append("answers unlike most others")
            elif self.outputs:
                reasons.append(f"answers not read: {_why(answered.failures)}")
            else:
                self._leave(f"answers not read: {_why(answered.failures)}")
        sizes = {len(values) for values in columns.values()}
        if not reasons and len(sizes) != 1:
            reasons.append("exchanges whose columns have different numbers of rows")
        if reasons:
            self._drop(*reasons)
            return 0
        (size,) = sizes
        if max(asked.rows, answered.rows) > size:
            self._leave(f"exchanges of which the first {size} rows are read")
        self._taken += 1
        return size

    def _leave(self, why: str) -> None:
        self._left[why] += 1

    def _drop(self, *reasons: str) -> None:
        """An exchange that a baseline should have had; each of the reasons is noted."""
        self._left.update(reasons)
        self._dropped[reasons[0]] += 1

    def _refuse_few(self) -> None:
        """Raises CliError where most of what was predicted is left out: the rest may be of another kind."""
        dropped = self._dropped.total()
        if dropped > self._taken:
            reasons = "; ".join(f"{count} {why}" for why, count in self._dropped.most_common(3))
            raise CliError(
                f"{spelled(self._paths)}: {dropped} of {dropped + self._taken} exchanges are left out, "
                f"so no baseline is made of the rest: {reasons}",
                code=2,
            )

    def _exchanges(self) -> Iterator[tuple[Event, Event, float]]:
        """Requests and their answers, both whole, and the share of the files that is read by then."""
        self._left.clear()
        self._dropped.clear()
        self._taken = 0
        waiting: dict[str, Event] = {}
        held = 0
        for event, done in Events(self._paths, self._left):
            if event.version and event.version != self._version:
                self._left[f"events of version {event.version[:60]!r}"] += 1
                continue
            if (other := waiting.pop(event.id, None)) is not None:
                held -= len(other.body)
            if other is None or other.asks == event.asks:
                self._left[_HALF] += other is not None
                waiting[event.id] = event
                held += len(event.body)
                while len(waiting) > _MOST_WAITING or held > _MOST_BYTES:
                    held -= len(waiting.pop(next(iter(waiting))).body)
                    self._left[_HALF] += 1
                continue
            request, answer = (event, other) if event.asks else (other, event)
            if answer.status != "200":
                self._left["answers with another status than 200"] += 1
            elif lost := request.lost or answer.lost:
                self._drop(f"exchanges with a body that is {lost}")
            else:
                yield request, answer, done
        self._left[_HALF] += len(waiting)


def _asked(named: Named) -> Iterator[tuple[str, str]]:
    """Names and paths of the requests' columns that are named."""
    yield from map(_pair, named.features)
    if named.label:
        yield named.label, named.label if named.label.startswith("$") else ""


def _pair(text: str) -> tuple[str, str]:
    """`NAME=PATH`, a JSON path, or a name that says itself which column it is."""
    if text.startswith("$"):
        return text, text
    name, equals, path = text.partition("=")
    return (name, path) if name and equals and path else (text, "")


def _why(reasons: Sequence[str]) -> str:
    return reasons[0].replace("_", " ") if reasons else "no prediction"


def _unread(failures: Sequence[str]) -> str:
    return f"exchanges not read: {_why(failures)}" if failures else "exchanges without a prediction"


def _such(names: Sequence[str]) -> str:
    return ", ".join(repr(name[:30]) for name in names[:2])

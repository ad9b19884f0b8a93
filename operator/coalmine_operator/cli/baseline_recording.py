"""Reference rows from a recording of live traffic: requests joined to their answers, and read as the sidecar does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from coalmine_sidecar.recorded import AnswerReader, RequestReader, Rows

from ..analysis.reference import Value
from ..analysis.reference_plan import Batch
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

    def __init__(self, paths: Sequence[Path], named: Named) -> None:
        """Raises CliError."""
        self._paths = paths
        self._version = named.version
        self._left: Counter[str] = Counter()
        try:
            self._requests = RequestReader(_asked(named))
            self._answers = AnswerReader(path for path in named.answers if path)
        except ValueError as error:
            raise CliError(str(error), code=2) from error
        self.outputs: Mapping[str, str] = {}
        answered: dict[str, None] = {}
        for i, (request, answer, _) in enumerate(self._exchanges()):
            found = self._read_answer(request, answer)
            answered.update(dict.fromkeys(found.columns))
            self._requests.learn(request.path, request.content_type, request.json_length, request.body, found.rows)
            self._note(self._read_request(request), found)
            if i >= _LOOKED_AT:
                break
        asked = self._requests.names
        if not asked and not answered:
            raise CliError(
                f"{spelled(paths)}: has no request with its answer: {'; '.join(self.notes()) or 'no event'}", code=2
            )
        # A model may answer a column that it was asked with.
        self.outputs = {name: f"answer.{name}" if name in asked else name for name in answered}
        self.columns: Sequence[str] = [*asked, *self.outputs.values()]

    def feature(self, asked: str) -> str:
        return asked if asked in self._requests.names else _pair(asked)[0]

    def answer(self, asked: str) -> str:
        name = self._answers.called.get(asked, asked)
        return self.outputs.get(name, name)

    def notes(self) -> Sequence[str]:
        return [f"{count} {what}" for what, count in sorted(self._left.items()) if count]

    def batches(self, wanted: Sequence[str]) -> Iterator[tuple[Batch, float]]:
        found: dict[str, list[Value]] = {name: [] for name in wanted}
        rows, done = 0, 0.0
        for request, answer, done in self._exchanges():
            asked, answered = self._read_request(request), self._read_answer(request, answer)
            size = self._note(asked, answered)
            nothing: list[Value] = [None] * size
            columns = dict(asked.columns) | {
                self.outputs[name]: values for name, values in answered.columns.items() if name in self.outputs
            }
            for name in wanted:
                found[name] += columns.get(name, nothing) if size else nothing
            rows += size
            if rows >= BATCH_ROWS:
                yield found, done
                found, rows = {name: [] for name in wanted}, 0
        if rows:
            yield found, 1.0

    def _read_request(self, request: Event) -> Rows:
        return self._requests.read(request.path, request.content_type, request.json_length, request.body)

    def _read_answer(self, request: Event, answer: Event) -> Rows:
        path, posted = request.path or answer.path, bool(request.body)
        return self._answers.read(path, answer.content_type, answer.json_length, answer.body, posted=posted)

    def _note(self, asked: Rows, answered: Rows) -> int:
        """How many rows an exchange brings; 0, and a note why, where it is of no use."""
        if not asked.columns and not answered.columns:
            reasons = [*asked.failures, *answered.failures]
            self._left[f"exchanges not read: {_why(reasons)}" if reasons else "exchanges without a prediction"] += 1
            return 0
        if not asked.columns:
            self._left[f"requests not read: {_why(asked.failures)}"] += 1
        if not answered.columns:
            self._left[f"answers not read: {_why(answered.failures)}"] += 1
        # Who has features of others would take these for missing.
        if (not asked.columns and self._requests.names) or (not answered.columns and self.outputs):
            return 0
        sizes = {len(values) for values in (*asked.columns.values(), *answered.columns.values())}
        if len(sizes) != 1:
            self._left["exchanges whose columns have different numbers of rows"] += 1
            return 0
        (size,) = sizes
        if max(asked.rows, answered.rows) > size:
            self._left[f"exchanges of which the first {size} rows are read"] += 1
        return size

    def _exchanges(self) -> Iterator[tuple[Event, Event, float]]:
        """Requests and their answers, both whole, and the share of the files that is read by then."""
        self._left.clear()
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
                self._left[f"exchanges with a body that is {lost}"] += 1
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

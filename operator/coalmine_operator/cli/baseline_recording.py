"""Reference rows from a recording of live traffic: CloudEvents in JSON lines, as the sidecar's payload log has them.

An event a line, of type `org.kubeflow.serving.inference.request` or `.response`; two of the same id belong together.
Bodies (`data`) are KServe v1's, v2's or MLflow's JSON. Columns are called as the sidecar calls them: by a tensor's
name, by a key of an instance, `NAME[3]` the fourth of a row without names, and `NAME.3` of an answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from ..analysis.reference import Value
from ..analysis.reference_plan import Batch
from .baseline_source import BATCH_ROWS, spelled
from .errors import CliError

_REQUEST: Final = "org.kubeflow.serving.inference.request"
_RESPONSE: Final = "org.kubeflow.serving.inference.response"
#: What stands for an id where the payload log had none.
_UNKNOWN: Final = "unknown"
#: Requests that wait for their answer, at most, and the bytes of these; the oldest give way.
_MOST_WAITING: Final = 10_000
_MOST_BYTES: Final = 64 << 20
_HALF: Final = "events without the other half of their exchange"
#: Exchanges that say which columns there are.
_LOOKED_AT: Final = 1000
_LONGEST_LINE: Final = 64 << 20

#: Columns by name.
_Rows = dict[str, list[Value]]


class _Event(Struct):
    """What of an event is needed. `status` of the answer and `version` of the model are the payload log's own."""

    id: str
    type: str
    data: msgspec.Raw = msgspec.Raw(b"null")
    status: str = "200"
    version: str = ""


class UnreadableError(ValueError):
    """A body of another shape; the message says why."""


class RecordingSource:
    """Pairs of a request and its answer; what has no partner, or failed, is counted in `notes`."""

    def __init__(self, paths: Sequence[Path], *, version: str) -> None:
        self._paths = paths
        self._version = version
        self._left: Counter[str] = Counter()
        asked: dict[str, None] = {}
        answered: dict[str, None] = {}
        for i, (request, answer, _) in enumerate(self._exchanges()):
            asked.update(dict.fromkeys(request))
            answered.update(dict.fromkeys(answer))
            if i >= _LOOKED_AT:
                break
        if not asked and not answered:
            raise CliError(
                f"{spelled(paths)}: has no request with its answer: {'; '.join(self.notes()) or 'no event'}", code=2
            )
        both = asked.keys() & answered.keys()
        # A model may answer a column that it was asked with.
        self._renamed = {name: f"answer.{name}" for name in both}
        self.outputs: Sequence[str] = [self._renamed.get(name, name) for name in answered]
        self.columns: Sequence[str] = [*asked, *self.outputs]

    def notes(self) -> Sequence[str]:
        return [f"{count} {what}" for what, count in sorted(self._left.items()) if count]

    def batches(self, wanted: Sequence[str]) -> Iterator[tuple[Batch, float]]:
        found: dict[str, list[Value]] = {name: [] for name in wanted}
        rows, done = 0, 0.0
        for request, answer, done in self._exchanges():
            columns = request | {self._renamed.get(name, name): values for name, values in answer.items()}
            size = len(next(iter(columns.values())))
            nothing: list[Value] = [None] * size
            for name in wanted:
                found[name] += columns.get(name, nothing)
            rows += size
            if rows >= BATCH_ROWS:
                yield found, done
                found, rows = {name: [] for name in wanted}, 0
        if rows:
            yield found, 1.0

    def _exchanges(self) -> Iterator[tuple[_Rows, _Rows, float]]:
        """Columns of a request and of its answer, of one length, and the share of the file that is read."""
        self._left.clear()
        waiting: dict[str, _Event] = {}
        held = 0
        for event, done in self._events():
            if (other := waiting.pop(event.id, None)) is not None:
                held -= len(other.data)
            if other is None or other.type == event.type:
                self._left[_HALF] += other is not None
                waiting[event.id] = event
                held += len(event.data)
                while len(waiting) > _MOST_WAITING or held > _MOST_BYTES:
                    held -= len(waiting.pop(next(iter(waiting))).data)
                    self._left[_HALF] += 1
                continue
            request, answer = (event, other) if event.type == _REQUEST else (other, event)
            if answer.status != "200":
                self._left["answers with another status than 200"] += 1
                continue
            try:
                asked = read_request(msgspec.json.decode(request.data))
                answered = read_answer(msgspec.json.decode(answer.data))
            except UnreadableError as error:
                self._left[f"exchanges not read: {error}"] += 1
                continue
            if len({len(values) for values in (*asked.values(), *answered.values())}) != 1:
                self._left["exchanges whose columns have different numbers of rows"] += 1
                continue
            yield asked, answered, done
        self._left[_HALF] += len(waiting)

    def _events(self) -> Iterator[tuple[_Event, float]]:
        sizes = [path.stat().st_size for path in self._paths]
        before, total = 0, max(sum(sizes), 1)
        for path, size in zip(self._paths, sizes, strict=True):
            for event, at in self._events_of(path):
                yield event, (before + at) / total
            before += size

    def _events_of(self, path: Path) -> Iterator[tuple[_Event, int]]:
        """With the bytes that are read by then."""
        decode = msgspec.json.Decoder(_Event).decode
        try:
            with path.open("rb") as opened:
                for number, line in enumerate(iter(lambda: opened.readline(_LONGEST_LINE), b""), 1):
                    if not line.strip():
                        continue
                    try:
                        event = decode(line)
                    except (ValueError, RecursionError) as error:
                        if not line.endswith(b"\n"):
                            self._left["lines cut off at the end"] += 1
                            return
                        raise CliError(
                            f"{path}:{number}: is no CloudEvent in JSON: {' '.join(str(error).split())}", code=2
                        ) from error
                    if event.type not in (_REQUEST, _RESPONSE):
                        self._left["events of another type"] += 1
                    elif event.id == _UNKNOWN:
                        self._left["events without an id"] += 1
                    elif event.version and event.version != self._version:
                        self._left[f"events of version {event.version[:60]!r}"] += 1
                    else:
                        yield event, opened.tell()
        except OSError as error:
            raise CliError(f"{path}: cannot be read: {error.strerror}", code=2) from error


def read_request(body: Any) -> _Rows:
    """Columns of a request. Raises UnreadableError."""
    if not isinstance(body, dict):
        raise UnreadableError("no JSON object")
    inputs = body.get("inputs")
    if isinstance(inputs, list) and inputs and isinstance(inputs[0], dict) and "datatype" in inputs[0]:
        return _tensors(inputs, "{}[{}]")
    for key in ("instances", "inputs", "dataframe_records"):
        if key in body:
            return _named(body[key]) if isinstance(body[key], dict) else _rows(key, body[key], "{}[{}]")
    split = body.get("dataframe_split")
    if isinstance(split, dict) and isinstance(split.get("columns"), list) and isinstance(split.get("data"), list):
        names = [str(name) for name in split["columns"]]
        return _rows("dataframe_split", [_dict(names, row) for row in split["data"]], "{}[{}]")
    raise UnreadableError("neither inputs, instances nor a dataframe in the request")


def read_answer(body: Any) -> _Rows:
    """Columns of an answer. Raises UnreadableError."""
    if not isinstance(body, dict):
        raise UnreadableError("no JSON object")
    outputs = body.get("outputs")
    if isinstance(outputs, list) and outputs and isinstance(outputs[0], dict) and "datatype" in outputs[0]:
        return _tensors(outputs, "{}.{}")
    for key in ("predictions", "outputs", "result", "results"):
        if key in body:
            return _named(body[key]) if isinstance(body[key], dict) else _rows(key, body[key], "{}.{}")
    raise UnreadableError("neither predictions nor outputs in the answer")


def _tensors(tensors: list[Any], spelling: str) -> _Rows:
    """`spelling` of a column's name, from the tensor's and a number."""
    columns: _Rows = {}
    for tensor in tensors:
        if not isinstance(tensor, dict) or not isinstance(tensor.get("data"), list):
            raise UnreadableError("a tensor without data in JSON")
        name, shape, values = str(tensor.get("name")), tensor.get("shape") or [1], _flat(tensor["data"])
        rows = shape[0]
        if not isinstance(rows, int) or rows < 1 or len(values) % rows:
            raise UnreadableError("a tensor whose shape is not that of its data")
        width = len(values) // rows
        if width == 1:
            columns[name] = values
        else:
            columns |= {spelling.format(name, i): values[i::width] for i in range(width)}
    return columns


def _rows(key: str, rows: Any, spelling: str) -> _Rows:
    if not isinstance(rows, list):
        rows = [rows]
    if not rows:
        return {}
    if all(isinstance(row, dict) for row in rows):
        names = dict.fromkeys(name for row in rows for name in row)
        found: _Rows = {}
        for name in names:
            found |= _rows(name, [row.get(name) for row in rows], spelling)
        return found
    if all(isinstance(row, list) for row in rows):
        width = len(rows[0])
        if any(len(row) != width for row in rows):
            raise UnreadableError("rows of different lengths")
        if width == 1:
            return {key: [_value(row[0]) for row in rows]}
        return {spelling.format(key, i): [_value(row[i]) for row in rows] for i in range(width)}
    return {key: [_value(value) for value in rows]}


def _named(columns: dict[str, Any]) -> _Rows:
    return {
        name: [_value(v) for v in (values if isinstance(values, list) else [values])]
        for name, values in columns.items()
    }


def _dict(names: list[str], row: Any) -> dict[str, Any]:
    if not isinstance(row, list) or len(row) != len(names):
        raise UnreadableError("a row that has not one value a column")
    return dict(zip(names, row, strict=True))


def _flat(data: list[Any]) -> list[Value]:
    while any(isinstance(item, list) for item in data):
        data = [one for item in data for one in (item if isinstance(item, list) else [item])]
    return [_value(one) for one in data]


def _value(value: Any) -> Value:
    """A list of one is what some clients make of a value; what else is nested is none."""
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    return value if isinstance(value, float | int | str) else None

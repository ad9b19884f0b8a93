"""The contract's part about recordings: exchanges as the payload log has them, read as the sidecar has read them live.

Like `contract`, which see, but for `coalmine baseline build` alone: what it makes bins of is then what is counted in
them, in any wire format. A sidecar knows which columns it wants; here those that exist are found out first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

from msgspec import Struct

from .protocols import Answer, extract
from .protocols.candidates import candidates
from .protocols.columns import column_of
from .protocols.inputs import read_request
from .protocols.openai import StreamReader, operation_of
from .protocols.outputs import Value
from .protocols.sse import EventReader
from .protocols.wanted import Wanted

__all__ = ["AnswerReader", "RequestReader", "Rows"]

#: Of requests; who wants others of wider ones asks for them.
MAX_COLUMNS: Final = 4000


class Rows(Struct, frozen=True):
    """What was read of a request or an answer.

    `rows`: predictions that it is about; `columns`: by name, the values of the first `outputs.MAX_ROWS` of them;
    `failures`: reasons of REQUEST_FAILURES or EXTRACT_FAILURES why not all was read.
    """

    rows: int
    columns: dict[str, Sequence[Value]]
    failures: Sequence[str]


class RequestReader:
    """Columns of requests: those that are asked for, as pairs of a name and a path (see monitoring.Feature), and those
    that are wanted, by the names by which a Feature without a path finds them.

    What `path`, `content_type`, `json_length` and `body` are says `inputs.read_request`.
    """

    def __init__(self, asked: Iterable[tuple[str, str]] = ()) -> None:
        """Raises ValueError for a wrong path, with one clear line."""
        self._asked = dict(asked)
        self._wanted = Wanted(self._asked.items())

    def look(self, path: bytes, content_type: bytes, json_length: int | None, body: bytes, rows: int) -> Sequence[str]:
        """Which columns a request has, those that are asked for first; `rows` of its answer."""
        guessed = candidates(path, content_type, json_length, body, rows)
        # A list has positions where there is a second one.
        second = {f"{name}[1]": name for name, width in guessed.names.items() if width}
        pairs = dict.fromkeys((*guessed.names, *second), "") | self._asked
        asked = read_request("auto", path, content_type, json_length, body, Wanted(pairs.items()))
        # What stands beside the rows, such as a model's name, is a feature only for who asks for it.
        beside = guessed.beside.intersection(asked.constants)
        single = {name for name, values in asked.columns.items() if any(value is not None for value in values)} - beside
        wide = {name for position, name in second.items() if position in asked.columns}
        found = [name for name in self._asked if name in asked.columns]
        columns = (
            one
            for name, width in guessed.names.items()
            for one in (_positions(name, width) if name in wide else [name] if name in single else [])
        )
        named = [*islice(columns, MAX_COLUMNS)]
        if not named:
            places = Wanted((name, "") for name in _positions("", guessed.width))
            named = [*read_request("auto", path, content_type, json_length, body, places).columns]
        return found + named

    def want(self, names: Iterable[str]) -> None:
        """To be read from now on, MAX_COLUMNS of them; what is asked for is read anyway."""
        self._wanted = Wanted((dict.fromkeys(islice(names, MAX_COLUMNS), "") | self._asked).items())

    def read(self, path: bytes, content_type: bytes, json_length: int | None, body: bytes) -> Rows:
        asked = read_request("auto", path, content_type, json_length, body, self._wanted)
        return Rows(asked.rows, asked.columns, asked.failures)


class AnswerReader:
    """Columns of answers: all that a sidecar finds without being told, and those that `paths` name, as the paths of
    monitoring.Prediction do. `called`: what the columns of the paths are called, of those that were found.

    What `path`, `content_type`, `json_length` and `body` are says `detect.extract`.
    """

    def __init__(self, paths: Iterable[str] = ()) -> None:
        """Raises ValueError for a wrong path, with one clear line."""
        self._paths = tuple(dict.fromkeys(paths))
        self._wanted = Wanted((path, path) for path in self._paths) if self._paths else None
        self.called: dict[str, str] = {}

    def read(self, path: bytes, content_type: bytes, json_length: int | None, body: bytes, *, posted: bool) -> Rows:
        """`posted`: the request had a body."""
        if content_type.startswith(b"text/event-stream"):
            answer = _streamed(path, body)
        else:
            answer = extract("auto", path, content_type, json_length, body, outputs=self._wanted, posted=posted)
        columns = dict(answer.columns)
        for one in self._paths:
            values = column_of(answer, one)
            if values is not None:
                name = next((name for name, found in answer.columns if found is values), one)
                self.called[one] = name
                columns[name] = values
        return Rows(answer.rows, columns, answer.failures)


def _streamed(path: bytes, body: bytes) -> Answer:
    operation = operation_of(path)
    if operation is None:
        return Answer()
    stream = StreamReader(operation)
    for event in EventReader().feed(body):
        stream.take(event, 0.0)
    return Answer(failures=["no_outputs"]) if stream.status else stream.answer()


def _positions(name: str, width: int) -> list[str]:
    return [f"{name}[{at}]" for at in range(width)]

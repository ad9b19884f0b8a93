"""From a request and its answer to what monitoring counts: features, the prediction, and what waits for its label."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import isfinite
from typing import TYPE_CHECKING, Final, Protocol

from ..feedback.labels import class_text
from ..feedback.predicted import Predicted
from ..monitoring import Monitoring
from ..protocols import Answer, Value
from ..protocols.columns import column_of, prediction_id, wanted_of_answers
from ..protocols.inputs import read_request
from ..protocols.outputs import MAX_ROWS
from ..protocols.picking import add_picked
from ..protocols.wanted import Asked, Wanted
from ..telemetry.counters import bump
from ..telemetry.outputs import MAX_CLASS_LENGTH

if TYPE_CHECKING:
    from ..relay.question import Question
    from ..telemetry import Series
    from ..telemetry.watched import Watched

_GZIP: Final = b"\x1f\x8b"
#: Before the names of slices among those of features: no feature has one.
_SLICE: Final = "\0"


class Remembering(Protocol):
    """Keeps a prediction until its label comes; `other`: another id that it may be asked for by, or empty."""

    def remember(self, predicted: Predicted, other: str) -> None: ...


class Watching:
    """What one routing file's `monitoring` asks for. `remembering`: None where there is no feedback."""

    def __init__(
        self, monitoring: Monitoring, remembering: Remembering | None, *, clock: Callable[[], float] = time.time
    ) -> None:
        """`clock`: Unix seconds."""
        self.monitoring = monitoring
        self._remembering = remembering
        self._clock = clock
        self._predicts = monitoring.task != "text"
        by_path = [(_SLICE + one.attribute, one.path) for one in monitoring.slices if one.path]
        self._wanted = Wanted([*((one.name, one.path) for one in monitoring.features), *by_path])
        self._reads = bool(monitoring.features or by_path)
        #: What is to be read of answers beyond what is found in them.
        self.outputs = wanted_of_answers(monitoring)

    def name_outputs(self, answer: Answer) -> None:
        """What `extract` does with `outputs`, of an answer that was streamed: no JSON path finds anything in it."""
        if self.outputs is not None:
            add_picked(answer, self.outputs, b"", b"", other=False)

    def read(self, series: Series, protocol: str, path: bytes, question: Question, answer: Answer) -> None:
        """Count one request with the answer that `series`' revision gave; `protocol` is contract.Observe.protocol."""
        watched = series.watched
        if watched is None:
            return
        asked = self._asked(watched, protocol, path, question, answer) if self._reads else None
        if asked is not None:
            self._count(watched, asked)
        if not answer.rows:
            return
        predicted = self._predicted(series, watched, question, answer, asked)
        if predicted is not None:
            watched.performance.predicted(predicted)
            if self._remembering is not None:
                other = "" if question.given else self._other_id(path, question, answer)
                if predicted.id or other:
                    self._remembering.remember(predicted, other)

    def _asked(self, watched: Watched, protocol: str, path: bytes, question: Question, answer: Answer) -> Asked | None:
        if question.body is None:
            bump(watched.read_failures, "size")
            return None
        body = question.body[0] if len(question.body) == 1 else b"".join(question.body)
        if body.startswith(_GZIP):
            bump(watched.read_failures, "encoding")
            return None
        if not body and answer.rows:
            bump(watched.read_failures, "not_json")
            return None
        asked = read_request(protocol, path, question.content_type, question.json_length, body, self._wanted)
        for reason in asked.failures:
            bump(watched.read_failures, reason)
        return asked

    def _count(self, watched: Watched, asked: Asked) -> None:
        columns = asked.columns
        for name, counter in watched.features.items():
            values = columns.get(name)
            if values is None:
                counter.add_missing(min(asked.rows, MAX_ROWS))
            elif len(values) == 1:
                counter.add(values[0])
            else:
                counter.add_all(values)

    def _predicted(
        self, series: Series, watched: Watched, question: Question, answer: Answer, asked: Asked | None
    ) -> Predicted | None:
        how = self.monitoring.prediction
        # A text has neither: it is known by its id, for the outcomes that come of it.
        scores = column_of(answer, how.score, kind="number") if self._predicts else None
        # Whoever has a score has chosen by its threshold, unless it is said where the choice stands.
        chosen = how.label or scores is None or self.monitoring.task == "multiclass"
        labels = column_of(answer, how.label, kind="label") if self._predicts and chosen else None
        if scores is None and labels is None and self._predicts:
            bump(watched.read_failures, "no_prediction")
            return None
        rows = len(scores if scores is not None else labels or ()) if self._predicts else 1
        if scores is not None and labels is not None and len(labels) != rows:
            labels = None
        groups = self._groups(question, asked, rows)
        if groups is None:
            bump(watched.read_failures, "rows_differ")
            groups = []
        return Predicted(
            id=question.id.decode("utf-8", "replace"),
            revision=series.revision,
            at=self._clock(),
            scores=[_number(value) for value in scores] if scores is not None else [None] * rows,
            labels=[class_text(value) for value in labels] if labels is not None else [None] * rows,
            groups=groups,
        )

    def _groups(self, question: Question, asked: Asked | None, rows: int) -> list[list[str]] | None:
        """The groups of each row, by slice; None where the request's rows are not the answer's."""
        groups: list[list[str]] = []
        headers = iter(question.groups)
        for one in self.monitoring.slices:
            if one.header:
                value = next(headers)
                groups.append(["" if value is None else value.decode("utf-8", "replace")[:MAX_CLASS_LENGTH]])
                continue
            values = asked.columns.get(_SLICE + one.attribute) if asked is not None else None
            if values is None:
                groups.append([""])
            elif len(values) in (1, rows):
                groups.append([class_text(value) or "" for value in values])
            else:
                return None
        return groups

    def _other_id(self, path: bytes, question: Question, answer: Answer) -> str:
        body = question.body
        joined = b"".join(body) if body else b""
        return prediction_id(path, question.content_type, joined, answer, question.json_length) or ""


def _number(value: Value) -> float | None:
    if isinstance(value, bool):
        return 1.0 if value else 0.0
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            return None
        return number if isfinite(number) else None
    return None

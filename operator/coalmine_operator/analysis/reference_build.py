"""The second look at reference rows: counts in the bins of the plan, and performance on the rows with a label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
from msgspec import Struct

from coalmine_sidecar.monitoring import category

from ..api import baseline
from .performance import calibrate
from .performance_tally import BinaryTally, ClassTally, ErrorTally
from .reference import RowsError, equal, numbers, present
from .reference_columns import CategoryCounter, ColumnCounter, NumericCounter
from .reference_plan import Asked, Batch, Chosen, Plan, nothing_labelled

#: Chunks that a deviation needs at least.
_TWO: Final = 2


class Identity(Struct, frozen=True, kw_only=True):
    """Whose baseline it is; see api.baseline.Baseline."""

    model: str
    version: str
    created_at: str = ""
    source: str = ""


class Counting:
    """Takes all rows once more, in the same order."""

    def __init__(self, asked: Asked, plan: Plan) -> None:
        self._asked = asked
        self._plan = plan
        self._columns = [(one, _counter(one)) for one in (*plan.features, *plan.outputs) if one.guess.type]
        self._measured = _measured(asked, plan)
        self._scores = asked.scores()
        # A recording may have grown since the first look.
        self._rows = 0

    def add(self, batch: Batch) -> None:
        self._rows += len(next(iter(batch.values())))
        batch = self._scores.look(batch)
        for one, counter in self._columns:
            counter.add(batch[one.column])
        if self._measured:
            self._measured.add(batch)

    def baseline(self, identity: Identity) -> baseline.Baseline:
        """Raises RowsError where no row has all that a performance needs."""
        found = {id(one): counter.column() for one, counter in self._columns}
        score, performance = self._measured.result() if self._measured else (None, None)
        return baseline.Baseline(
            schema=baseline.SCHEMA,
            model=identity.model,
            version=identity.version,
            task=self._asked.task,
            rows=self._rows,
            created_at=identity.created_at,
            source=identity.source,
            features={one.name: found[id(one)] for one in self._plan.features if id(one) in found},
            outputs={one.name: found[id(one)] for one in self._plan.outputs if id(one) in found},
            score=score,
            performance=performance,
        )


class _Tally(Protocol):
    @property
    def rows(self) -> int: ...

    def figures(self) -> dict[str, float]: ...


class _Measured(Protocol):
    """Rows with a label, cut into chunks."""

    def add(self, batch: Batch) -> None: ...

    def result(self) -> tuple[baseline.Score | None, baseline.Performance]: ...


class _Scored:
    """Of two classes."""

    def __init__(self, asked: Asked, plan: Plan) -> None:
        self._asked = asked
        self._edges = plan.score_edges or (asked.threshold,)
        self._chunks = [self._new()]

    def add(self, batch: Batch) -> None:
        asked = self._asked
        label = batch[asked.label]
        known = present(label)
        if asked.score:
            scores, _ = numbers(batch[asked.score])
            known &= np.isfinite(scores)
        if asked.prediction:
            known &= present(batch[asked.prediction])
            predicted = equal(batch[asked.prediction], asked.positive)
        else:
            predicted = scores >= asked.threshold
        if not asked.score:
            scores = predicted.astype(np.float64)
        truth = equal(label, asked.positive)
        scores, predicted, truth = scores[known], predicted[known], truth[known]
        start = 0
        while start < len(scores):
            end = start + asked.chunk - self._chunks[-1].rows
            self._chunks[-1].add(scores[start:end], predicted[start:end], truth[start:end])
            start = end
            if self._chunks[-1].rows == asked.chunk:
                self._chunks.append(self._new())

    def result(self) -> tuple[baseline.Score | None, baseline.Performance]:
        total = self._new()
        for chunk in self._chunks:
            total += chunk
        if not total.rows:
            raise RowsError(nothing_labelled(self._asked))
        if not self._asked.ranks:
            return None, _performance(self._asked, total.figures(), [(c.rows, c.figures()) for c in self._chunks])
        calibration = calibrate(total.positives, total.counts)
        score = baseline.Score(
            threshold=self._asked.threshold,
            positive=self._asked.positive,
            edges=self._edges,
            calibration=tuple(calibration.tolist()),
            counts=tuple(int(n) for n in total.counts),
            positives=tuple(int(n) for n in total.positives),
        )
        figures = [(c.rows, c.figures() | c.estimated(calibration)) for c in self._chunks]
        return score, _performance(self._asked, total.figures() | total.estimated(calibration), figures)

    def _new(self) -> BinaryTally:
        asked = self._asked
        binary = asked.task == "binary"
        return BinaryTally(
            self._edges,
            ranked=asked.ranks,
            probable=binary and asked.ranks,
            decided=binary or bool(asked.prediction),
        )


class _Classed:
    """Of many classes."""

    def __init__(self, asked: Asked, plan: Plan) -> None:
        self._asked = asked
        self._classes = plan.classes
        self._chunks = [ClassTally(plan.classes)]

    def add(self, batch: Batch) -> None:
        for predicted, truth in zip(batch[self._asked.prediction], batch[self._asked.label], strict=True):
            if predicted is None or truth is None or predicted != predicted or truth != truth:
                continue
            self._chunks[-1].add([category(predicted)], [category(truth)])
            if self._chunks[-1].rows == self._asked.chunk:
                self._chunks.append(ClassTally(self._classes))

    def result(self) -> tuple[None, baseline.Performance]:
        total = ClassTally(self._classes)
        for chunk in self._chunks:
            total += chunk
        if not total.rows:
            raise RowsError(nothing_labelled(self._asked))
        return None, _performance(self._asked, total.figures(), [(c.rows, c.figures()) for c in self._chunks])


class _Numbers:
    """Of a regression."""

    def __init__(self, asked: Asked, plan: Plan) -> None:
        self._asked = asked
        self._center = plan.center
        self._chunks = [ErrorTally(plan.center)]

    def add(self, batch: Batch) -> None:
        predicted, _ = numbers(batch[self._asked.score or self._asked.prediction])
        truth, _ = numbers(batch[self._asked.label])
        known = np.isfinite(predicted) & np.isfinite(truth)
        predicted, truth = predicted[known], truth[known]
        start = 0
        while start < len(truth):
            end = start + self._asked.chunk - self._chunks[-1].rows
            self._chunks[-1].add(predicted[start:end], truth[start:end])
            start = end
            if self._chunks[-1].rows == self._asked.chunk:
                self._chunks.append(ErrorTally(self._center))

    def result(self) -> tuple[None, baseline.Performance]:
        total = ErrorTally(self._center)
        for chunk in self._chunks:
            total += chunk
        if not total.rows:
            raise RowsError(nothing_labelled(self._asked))
        return None, _performance(self._asked, total.figures(), [(c.rows, c.figures()) for c in self._chunks])


def _measured(asked: Asked, plan: Plan) -> _Measured | None:
    if not asked.label or asked.task == "text":
        return None
    if asked.task == "multiclass":
        return _Classed(asked, plan) if asked.prediction else None
    if not (asked.score or asked.prediction):
        return None
    if asked.task == "regression":
        return _Numbers(asked, plan)
    return _Scored(asked, plan) if asked.score or asked.task == "binary" else None


def _performance(
    asked: Asked, figures: dict[str, float], chunks: Sequence[tuple[int, dict[str, float]]]
) -> baseline.Performance:
    """The spread is over whole chunks: what a shorter one shows varies more."""
    whole = [found for rows, found in chunks if rows == asked.chunk]
    metrics = {}
    for name, value in figures.items():
        if not math.isfinite(value):
            continue
        each = np.array([one for found in whole if math.isfinite(one := found.get(name, math.nan))])
        spread = len(each) >= _TWO
        metrics[name] = baseline.Figure(
            value=value,
            mean=float(each.mean()) if spread else None,
            stddev=float(each.std(ddof=1)) if spread else None,
        )
    return baseline.Performance(chunk_rows=asked.chunk, metrics=metrics)


def _counter(one: Chosen) -> ColumnCounter:
    return NumericCounter(one.edges) if one.edges else CategoryCounter(one.categories)

"""The first of two looks at reference rows: which columns there are, what each is, and where its bins are cut."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from msgspec import Struct

from coalmine_sidecar.monitoring import MAX_FEATURES, FeatureType, Task, category

from .reference import Guess, RowsError, Value, equal, guess, names, numbers, present, quantile_edges, score_edges
from .reference_scores import Scores

#: Rows that bins are cut from, drawn at random where there are more: a quantile is right to a third of a per cent.
SAMPLE_ROWS: Final = 100_000
#: Values in the sample, so that many columns stay in bounds too.
SAMPLE_VALUES: Final = 4_000_000
#: Classes of a prediction that are told apart; all others are one.
MAX_CLASSES: Final = 20

#: Columns by name, each with a value of every row.
Batch = Mapping[str, Sequence[Value]]


class Asked(Struct, frozen=True, kw_only=True):
    """What a baseline is to be made of. Columns by their names; empty: there is none.

    `features`: None for all columns that are nothing else; a type of None is guessed. `outputs`: columns by the names
    that live outputs have. `live`: the rows are of recorded traffic.
    """

    task: Task = "binary"
    score: str = ""
    label: str = ""
    prediction: str = ""
    positive: str = "1"
    features: dict[str, FeatureType | None] | None = None
    outputs: dict[str, str] = {}
    chunk: int = 5000
    bins: int = 10
    score_bins: int = 100
    threshold: float = 0.5
    live: bool = False

    @property
    def all_outputs(self) -> dict[str, str]:
        """With the score and the predicted class, unless they have another name already."""
        more = {one: one for one in (self.score, self.prediction) if one and one not in self.outputs.values()}
        return dict(self.outputs) | more

    @property
    def ranks(self) -> bool:
        """Whether there is a score that puts two classes in order."""
        return bool(self.score) and self.task in ("binary", "ranking")

    def scores(self) -> Scores:
        """Who looks at the columns that have to be numbers."""
        columns = [self.score, *((self.label, self.prediction) if self.task == "regression" else ())]
        probable = [self.score] if self.task == "binary" else []
        return Scores(list(filter(None, columns)), probable, live=self.live)


class Chosen(Struct, frozen=True, kw_only=True):
    """One column of the plan; `guess.type` is None where it is left out."""

    name: str
    column: str
    guess: Guess
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()


class Plan(Struct, frozen=True, kw_only=True):
    """`rows`: all that were looked at. `score_edges` are of a score with labels; `classes` of what was predicted;
    `notes`: what is odd about the rows.
    """

    rows: int
    features: tuple[Chosen, ...] = ()
    outputs: tuple[Chosen, ...] = ()
    score_edges: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    center: float = 0.0
    notes: tuple[str, ...] = ()


def wanted(asked: Asked, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns that are needed. Raises RowsError for one that is not there."""
    outputs = asked.all_outputs
    features = asked.features
    if features is None:
        taken = {asked.score, asked.label, asked.prediction, *outputs.values()}
        features = dict.fromkeys((name for name in columns if name not in taken), None)
        if len(features) > MAX_FEATURES:
            raise RowsError(f"{len(features)} columns are over {MAX_FEATURES} features: name those that matter")
    needed = dict.fromkeys((*features, *outputs.values(), *filter(None, (asked.label,))))
    for name in needed:
        if name not in columns:
            raise RowsError(f"there is no column {name!r}{_meant(name, columns)}")
    if not needed:
        raise RowsError("no column is asked for: name a score or features")
    return tuple(needed)


class Planner:
    """Takes all rows, batch by batch; keeps a sample. Raises RowsError at the first that the task cannot have."""

    def __init__(self, asked: Asked, columns: Sequence[str]) -> None:
        self._asked = asked
        self.columns = wanted(asked, columns)
        self._rows = 0
        self._room = min(SAMPLE_ROWS, SAMPLE_VALUES // len(self.columns))
        self._sample: dict[str, list[Value]] = {name: [] for name in self.columns}
        self._head: Batch = {}
        self._labels: dict[str, None] = {}
        self._scores = asked.scores()
        self._random = np.random.default_rng(0)  # the same file makes the same baseline

    def add(self, batch: Batch) -> None:
        rows = len(batch[self.columns[0]])
        batch = self._scores.look(batch)
        self._check(batch)
        self._head = self._head or batch
        filled = min(rows, max(0, self._room - self._rows))
        for name in self.columns:
            self._sample[name] += batch[name][:filled]
        # Algorithm R (Vitter 1985): row i takes a place of the sample with probability room / i.
        places = self._random.integers(0, np.arange(self._rows + filled, self._rows + rows) + 1)
        (drawn,) = np.nonzero(places < self._room)
        for name in self.columns:
            kept, values = self._sample[name], batch[name]
            for i in drawn.tolist():
                kept[int(places[i])] = values[filled + i]
        self._rows += rows

    def plan(self) -> Plan:
        """Raises RowsError."""
        asked, sample = self._asked, self._sample
        if not self._rows:
            raise RowsError("there is no row in it")
        notes = self._scores.notes()
        if asked.label and asked.task in ("binary", "ranking"):
            self._check_positive()
        features = asked.features
        if features is None:
            taken = {asked.label, *asked.all_outputs.values()}
            features = dict.fromkeys((name for name in self.columns if name not in taken), None)
        ends: tuple[float, ...] = ()
        if asked.ranks and asked.label:
            score, _ = numbers(sample[asked.score])
            known = np.isfinite(score) & present(sample[asked.label])
            if not known.any():
                raise RowsError(nothing_labelled(asked))
            truth = equal(sample[asked.label], asked.positive)
            ends = score_edges(score[known], truth[known], asked.score_bins, asked.threshold)
        classes: tuple[str, ...] = ()
        if asked.task == "multiclass" and asked.label and asked.prediction:
            classes = names([*sample[asked.label], *sample[asked.prediction]], MAX_CLASSES)
        center = 0.0
        if asked.task == "regression" and asked.label:
            center = float(self._finite(asked.label).mean())
        # What was predicted is a name in every task but a regression, however many values it has.
        forced: dict[str, FeatureType] = {asked.score: "numeric"}
        if asked.task != "regression":
            forced[asked.prediction] = "categorical"
        outputs = asked.all_outputs.items()
        return Plan(
            rows=self._rows,
            features=tuple(self._choose(name, name, kind) for name, kind in features.items()),
            outputs=tuple(self._choose(name, column, forced.get(column)) for name, column in outputs),
            score_edges=ends,
            classes=classes,
            center=center,
            notes=tuple(notes),
        )

    def _choose(self, name: str, column: str, kind: FeatureType | None) -> Chosen:
        values = self._sample[column]
        found = guess(values, self._head[column])
        if kind:
            found = Guess(kind, "as asked")
        if found.type == "numeric":
            finite = numbers(values)[0]
            finite = finite[np.isfinite(finite)]
            if len(finite):
                return Chosen(name=name, column=column, guess=found, edges=quantile_edges(finite, self._asked.bins))
            found = Guess(None, "never a number")
        elif found.type == "categorical":
            if kept := names(values):
                return Chosen(name=name, column=column, guess=found, categories=kept)
            found = Guess(None, "never a name that a bin can have")
        return Chosen(name=name, column=column, guess=found)

    def _finite(self, column: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        found = numbers(self._sample[column])[0]
        found = found[np.isfinite(found)]
        if not len(found):
            raise RowsError(f"column {column!r} has no number in {self._rows} rows")
        return found

    def _check(self, batch: Batch) -> None:
        asked = self._asked
        if asked.label and asked.task in ("binary", "ranking") and len(self._labels) <= 2:
            found = (category(value) for value in batch[asked.label] if value is not None and value == value)
            self._labels.update(dict.fromkeys(found))
            if len(self._labels) > 2:
                raise RowsError(
                    f"column {asked.label!r} has more than two values ({_listed(self._labels)}), and a "
                    f"{asked.task} task has two: give --task multiclass or regression, or name another --label"
                )

    def _check_positive(self) -> None:
        asked = self._asked
        if not self._labels:
            raise RowsError(f"column {asked.label!r} has no label in {self._rows} rows")
        if asked.positive not in self._labels:
            raise RowsError(
                f"column {asked.label!r} has {_listed(self._labels)}, never {asked.positive!r}: "
                f"give --positive {max(self._labels)}"
            )


def nothing_labelled(asked: Asked) -> str:
    return f"no row has both a label ({asked.label!r}) and a prediction ({asked.score or asked.prediction!r})"


def _listed(found: Iterable[str]) -> str:
    shown = sorted(found)
    return ", ".join(repr(name[:30]) for name in shown[:3]) + (", …" if len(shown) > 3 else "")


def _meant(name: str, columns: Sequence[str]) -> str:
    near = difflib.get_close_matches(name.lower(), [one.lower() for one in columns], n=1, cutoff=0.6)
    if near:
        found = next(one for one in columns if one.lower() == near[0])
        return f": did you mean {found!r}?"
    shown = ", ".join(columns[:10]) + (", …" if len(columns) > 10 else "")
    return f": there are {shown}" if columns else ""

"""Which columns are wanted of requests or answers, compiled once, and what was found of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct

from ..jsonpath import EVERY, Step, column_of_path, path_problem, steps_of
from .outputs import MAX_ROWS, Value

#: Why something of a request was not read. `no_columns`: it has rows, and none of the wanted columns.
REQUEST_FAILURES: Final = (
    "not_json",
    "not_csv",
    "truncated",
    "shape",
    "datatype",
    "unknown_protocol",
    "too_many_rows",
    "no_columns",
)

#: Types of Value.
SCALARS: Final = frozenset({float, int, str, bool, type(None)})


#: Headers of tables whose columns' places are kept; clients mostly send the same one.
_MAX_TABLES: Final = 16
_WIDEST_TABLE: Final = 1000

Key = TypeVar("Key", str, int)


class Keys(Generic[Key]):
    """Values of an object by its keys, or of an array by its positions: (name, key) pairs."""

    __slots__ = ("_get", "_names", "pairs")

    def __init__(self, pairs: Sequence[tuple[str, Key]]) -> None:
        self.pairs: tuple[tuple[str, Key], ...] = tuple(pairs)
        self._names = tuple(name for name, _ in pairs)
        #: With two keys or more it gives a tuple: a single one is asked for twice.
        keys = [key for _, key in pairs]
        self._get: Callable[[Any], tuple[Any, ...]] | None = (
            itemgetter(*(keys * 2 if len(keys) == 1 else keys)) if keys else None
        )

    def of_one(self, row: dict[str, object] | list[object]) -> dict[str, tuple[Value]] | None:
        """The columns of one row that has them all, each a single value, which is nearly always so; else None."""
        if self._get is None:
            return {}
        try:
            values = self._get(row)
        except LookupError:
            return None
        if not SCALARS.issuperset(map(type, values)):
            return None
        return dict(zip(self._names, zip(values, strict=False), strict=False))


class Group(Struct, frozen=True):
    """JSON paths that share their way: from the document along `way`, over all elements if `spread`, then on.

    `keys`: of those that end a step further; `deep`: (name, steps) of all others.
    """

    way: tuple[Step, ...]
    spread: bool
    keys: Keys[str]
    deep: tuple[tuple[str, tuple[Step, ...]], ...]


def _column(name: str, path: str) -> tuple[str, int | None]:
    """Without a path the name says it: `x[3]` is the fourth of `x`, as in a path; any other name is a column's."""
    try:
        return column_of_path(path or name)
    except ValueError:
        if path:
            raise
        return name, None


class Wanted:
    """Columns by name, from pairs of a name and a path (see monitoring.Feature.path).

    `plain`: (name, column), the same as `keys`; `indexed`: (name, column, position in it), the column empty where it
    has no name; `asks`: both by column, as (name, position or None); `groups`: the JSON paths;
    `places`: positions in what has no name.
    """

    __slots__ = ("_tables", "asks", "groups", "indexed", "keys", "names", "places", "plain")

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Raises ValueError for a wrong path, with one clear line."""
        self.names: tuple[str, ...] = ()
        plain: list[tuple[str, str]] = []
        indexed: list[tuple[str, str, int]] = []
        asks: dict[str, list[tuple[str, int | None]]] = {}
        paths: list[tuple[str, tuple[Step, ...]]] = []
        for name, path in pairs:
            self.names += (name,)
            if problem := path_problem(path):
                raise ValueError(f"{name}: {problem}")
            if path.startswith("$"):
                paths.append((name, steps_of(path)))
                continue
            column, position = _column(name, path)
            asks.setdefault(column, []).append((name, position))
            if position is None:
                plain.append((name, column))
            else:
                indexed.append((name, column, position))
        self.keys = Keys(plain)
        self.plain = self.keys.pairs
        self.indexed = tuple(indexed)
        self.asks = {column: tuple(asked) for column, asked in asks.items()}
        self.groups = _grouped(paths)
        self.places = Keys([(name, at) for name, of, at in indexed if not of])
        self._tables: dict[tuple[Any, ...], Keys[int]] = {}

    def in_table(self, header: Sequence[Any]) -> Keys[int]:
        """Where the columns are in rows below this header, positions without a name included."""
        names = tuple(header) if len(header) <= _WIDEST_TABLE else ()
        try:
            known = self._tables.get(names)
        except TypeError:  # there is a list among them
            known, names = None, ()
        if known is None:
            by_name = {str(name): at for at, name in enumerate(header)}
            known = Keys([*self.places.pairs, *((name, by_name[of]) for name, of in self.plain if of in by_name)])
            if names:
                if len(self._tables) >= _MAX_TABLES:
                    self._tables.clear()
                self._tables[names] = known
        return known

    def positions(self, column: str) -> list[int]:
        """Positions that are asked for in one column, or in whichever there is, in their order."""
        asks = self.asks.get(column, ()) + (self.asks.get("", ()) if column else ())
        return sorted({at for _, at in asks if at is not None})


def _grouped(paths: list[tuple[str, tuple[Step, ...]]]) -> tuple[Group, ...]:
    by_way: dict[tuple[tuple[Step, ...], bool], list[tuple[str, tuple[Step, ...]]]] = {}
    for name, steps in paths:
        if EVERY in steps:
            at = steps.index(EVERY)
            by_way.setdefault((steps[:at], True), []).append((name, steps[at + 1 :]))
        else:
            by_way.setdefault((steps[:-1], False), []).append((name, steps[-1:]))
    groups = []
    for (way, spread), ends in by_way.items():
        keys = Keys([(name, end[0]) for name, end in ends if len(end) == 1 and isinstance(end[0], str)])
        deep = tuple((name, end) for name, end in ends if len(end) != 1 or not isinstance(end[0], str))
        groups.append(Group(way, spread, keys, deep))
    return tuple(groups)


class Asked(Struct):
    """What was read of one request.

    `rows`: predictions that it asks for, also those beyond MAX_ROWS. `columns`: of each wanted name the values of the
    first MAX_ROWS rows; a name is absent where the request has no such column. `failures`: reasons of REQUEST_FAILURES,
    each at most once.

    The rest is the readers' own: `seen`: whether `rows` was said; `uneven`: not all said the same; `constants`: names
    whose only value holds for all rows.
    """

    rows: int = 0
    columns: dict[str, Sequence[Value]] = {}
    failures: list[str] = []
    seen: bool = False
    uneven: bool = False
    constants: list[str] = []

    def fail(self, reason: str) -> None:
        if reason not in self.failures:
            self.failures.append(reason)

    def saw(self, rows: int) -> None:
        """A part of the request has this many rows."""
        if rows > MAX_ROWS:
            self.fail("too_many_rows")
        if not self.seen:
            self.seen = True
            self.rows = rows
        elif rows != self.rows:
            self.uneven = True
            if rows > self.rows:
                self.rows = rows

    def cell(self, value: object) -> Value:
        """A value of one row; lists of one are what some clients make of a column."""
        while isinstance(value, list) and len(value) == 1:
            value = value[0]
        if value is None or isinstance(value, float | int | str):
            return value
        self.fail("shape")
        return None

    def settle(self) -> None:
        """The columns of one request have as many values as each other: those that have not are left out."""
        columns = self.columns
        if self.constants:
            if not self.seen:
                self.saw(1)
            if self.rows != 1:
                count = min(self.rows, MAX_ROWS)
                for name in dict.fromkeys(self.constants):  # a name may be asked for twice
                    columns[name] = list(columns[name]) * count
                    if not count:
                        del columns[name]
        if self.uneven:
            count = min(self.rows, MAX_ROWS)
            for name in [name for name, values in columns.items() if len(values) != count]:
                del columns[name]
                self.fail("shape")

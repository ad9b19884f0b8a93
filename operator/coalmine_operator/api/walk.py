"""Plain values -> frozen types, with every problem found and its path named.

One walker, driven by msgspec's description of the types: they stay the only place that says what a field may hold.
msgspec's own decoding stops at the first problem. As Kubernetes does, null means absent.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Final

from msgspec import inspect

from .duration import Duration
from .problems import ROOT, Problem, index_path, join_path, key_path, show

MAX_PROBLEMS: Final = 50
MAX_DEPTH: Final = 64
_INT64: Final = 1 << 63

#: What a rule says of a value of its type that is sound by itself: paths relative to the value, and messages.
Rule = Callable[[Any], Iterable[tuple[str, str]]]


class _Broken:
    """Stands for a value that has a problem."""


BROKEN: Final = _Broken()


class Walker:
    """Walks one manifest. `problems` holds at most `MAX_PROBLEMS`; `total` counts all."""

    def __init__(self, rules: Mapping[type, Rule]) -> None:
        self.rules = rules
        self.problems: list[Problem] = []
        self.total = 0

    def read(self, cls: type, raw: Any) -> Any:
        """An instance of `cls`, or BROKEN."""
        if not isinstance(raw, dict):
            return self._refuse(ROOT, f"{show(raw)} is no mapping: give fields as `name: value`")
        return self._value(_info(cls), raw, "", 0)

    def _refuse(self, path: str, message: str) -> _Broken:
        self.total += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(path, message))
        return BROKEN

    def _value(self, info: inspect.Type, raw: Any, path: str, depth: int) -> Any:
        """`raw` as `info` describes it. `depth` counts the collections around it."""
        if depth > MAX_DEPTH:
            return self._refuse(path, f"nested deeper than {MAX_DEPTH}")
        match info:
            case inspect.Metadata(type=inspect.StrType() as text):
                return self._text(text, raw, path, (info.extra_json_schema or {}).get("description", ""))
            case inspect.StructType():
                return self._struct(info, raw, path, depth)
            case inspect.VarTupleType():
                return self._tuple(info, raw, path, depth)
            case inspect.DictType():
                return self._mapping(info, raw, path, depth)
            case inspect.UnionType():
                return self._union(info, raw, path, depth)
            case inspect.AnyType():
                return self._any(raw, path, depth)
            case inspect.StrType():
                return self._text(info, raw, path)
            case inspect.BoolType():
                return raw if isinstance(raw, bool) else self._refuse(path, f"{show(raw)} is neither true nor false")
            case inspect.IntType() | inspect.FloatType():
                return self._number(info, raw, path)
            case inspect.LiteralType():
                return self._literal(info, raw, path)
            case inspect.CustomType() if info.cls is Duration:
                return self._duration(raw, path)
        raise TypeError(f"no manifest may hold a {info}")  # a type was added to the spec and not here

    def _struct(self, info: inspect.StructType, raw: Any, path: str, depth: int) -> Any:
        if not isinstance(raw, dict):
            return self._refuse(path, f"{show(raw)} is no mapping: give fields as `name: value`")
        before = self.total
        values: dict[str, Any] = {}
        fields = {field.encode_name: field for field in info.fields}
        if info.forbid_unknown_fields:
            for key in raw:
                if key not in fields:
                    self._refuse(key_path(path, key), f"unknown field; {_nearest(key, fields)}")
        for name, field in fields.items():
            given = raw.get(name)
            if given is not None:
                values[field.name] = self._value(field.type, given, key_path(path, name), depth + 1)
            elif field.required:
                self._refuse(key_path(path, name), "missing")
        if self.total > before:
            return BROKEN
        built = info.cls(**values)
        for where, message in self.rules.get(info.cls, _no_rule)(built):
            self._refuse(join_path(path, where), message)
        return built if self.total == before else BROKEN

    def _tuple(self, info: inspect.VarTupleType, raw: Any, path: str, depth: int) -> Any:
        if not isinstance(raw, list | tuple):
            return self._refuse(path, f"{show(raw)} is no list")
        if info.max_length is not None and len(raw) > info.max_length:
            return self._refuse(path, f"has {len(raw)} entries, at most {info.max_length} are allowed")
        if info.min_length is not None and len(raw) < info.min_length:
            return self._refuse(path, f"has {len(raw)} entries, needs at least {info.min_length}")
        before = self.total
        values = tuple(self._value(info.item_type, item, index_path(path, i), depth + 1) for i, item in enumerate(raw))
        return values if self.total == before else BROKEN

    def _mapping(self, info: inspect.DictType, raw: Any, path: str, depth: int) -> Any:
        if not isinstance(raw, dict):
            return self._refuse(path, f"{show(raw)} is no mapping: give entries as `name: value`")
        before = self.total
        values = {}
        for key, item in raw.items():
            if self._text(inspect.StrType(), key, key_path(path, key)) is not BROKEN:
                values[key] = self._value(info.value_type, item, key_path(path, key), depth + 1)
        return values if self.total == before else BROKEN

    def _union(self, info: inspect.UnionType, raw: Any, path: str, depth: int) -> Any:
        """Of several scalars, the one whose kind it is; beside null there is mostly only one."""
        kinds = [kind for kind in info.types if not isinstance(kind, inspect.NoneType)]
        if len(kinds) == 1:
            return self._value(kinds[0], raw, path, depth)
        for kind in kinds:
            if isinstance(raw, str) == isinstance(kind, inspect.StrType) and not isinstance(raw, bool | list | dict):
                return self._value(kind, raw, path, depth)
        return self._refuse(path, f"{show(raw)} is neither text nor a number")

    def _any(self, raw: Any, path: str, depth: int) -> Any:
        """Parts that are passed on as they are: whatever JSON holds."""
        match raw:
            case None | bool():
                return raw
            case str():
                return self._text(inspect.StrType(), raw, path)
            case int():
                return self._number(inspect.IntType(), raw, path)
            case float():
                return self._number(inspect.FloatType(), raw, path)
            case dict():
                return self._mapping(inspect.DictType(inspect.StrType(), inspect.AnyType()), raw, path, depth)
            case list() | tuple():
                items = self._tuple(inspect.VarTupleType(inspect.AnyType()), raw, path, depth)
                return list(items) if isinstance(items, tuple) else items
        return self._refuse(path, f"{show(raw)} is nothing that JSON can hold: put it in quotes")

    def _text(self, info: inspect.StrType, raw: Any, path: str, described: str = "") -> Any:
        """`described` says in words what the pattern lets through."""
        if not isinstance(raw, str):
            remedy = "" if isinstance(raw, dict | list) else ": put it in quotes"
            return self._refuse(path, f"{show(raw)} is no text{remedy}")
        if info.min_length is not None and len(raw) < info.min_length:
            return self._refuse(path, "is empty")
        if info.max_length is not None and len(raw) > info.max_length:
            return self._refuse(path, f"{show(raw)} has {len(raw)} characters, at most {info.max_length} are allowed")
        if info.pattern is not None and not re.fullmatch(info.pattern, raw):
            return self._refuse(path, f"{show(raw)} is not allowed: write {described or info.pattern}")
        if not raw.isascii() and any("\ud800" <= c <= "\udfff" for c in raw):
            return self._refuse(path, f"{show(raw)} holds a character that is no Unicode text")
        return raw

    def _number(self, info: inspect.IntType | inspect.FloatType, raw: Any, path: str) -> Any:
        whole = isinstance(info, inspect.IntType)
        if isinstance(raw, bool) or not isinstance(raw, int | float):
            return self._refuse(path, f"{show(raw)} is no {'whole ' if whole else ''}number")
        if isinstance(raw, float) and not math.isfinite(raw):
            return self._refuse(path, f"{show(raw)} is no finite number")
        if not -_INT64 <= raw < _INT64 and (whole or isinstance(raw, int)):
            return self._refuse(path, f"{show(raw)} is a number too large")
        if whole and raw != int(raw):
            return self._refuse(path, f"{show(raw)} is no whole number")
        for bound, inside, word in (
            (info.ge, operator.ge, "is under"),
            (info.gt, operator.gt, "is not over"),
            (info.le, operator.le, "is over"),
            (info.lt, operator.lt, "is not under"),
        ):
            if bound is not None and not inside(raw, bound):
                return self._refuse(path, f"{show(raw)} {word} {bound}")
        return int(raw) if whole else float(raw)

    def _literal(self, info: inspect.LiteralType, raw: Any, path: str) -> Any:
        if isinstance(raw, str) and raw in info.values:
            return raw
        return self._refuse(path, f"{show(raw)} is not allowed: write {_either(map(str, info.values))}")

    def _duration(self, raw: Any, path: str) -> Any:
        try:
            return Duration.parse(raw if isinstance(raw, str) else "")
        except ValueError as error:
            return self._refuse(path, f"{show(raw)} {error}")


@cache
def _info(cls: type) -> inspect.Type:
    return inspect.type_info(cls)


def _no_rule(_: Any) -> Iterable[tuple[str, str]]:
    return ()


def _nearest(key: Any, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.6) if isinstance(key, str) and len(key) <= 64 else []
    return f"did you mean {near[0]}?" if near else f"known here: {', '.join(names)}"


def _either(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last

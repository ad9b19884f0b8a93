"""YAML text -> plain values, for manifests: what JSON can hold, and nothing that surprises.

Built on the parser's events rather than on PyYAML's constructors: so sharing through anchors is bounded, a key that
stands twice is found, every problem has its line, and scalars mean what they mean to kubectl (a date is text).
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

import yaml
from msgspec import Struct

from .problems import Problem, show

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 64
#: Values in one document, counted with what its aliases stand for.
MAX_VALUES: Final = 100_000
MAX_PROBLEMS: Final = 50

# libyaml reads a megabyte in a tenth of a second, the parser in Python takes ten; wheels without the former exist.
_LOADER: Final = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader

_NULL = re.compile(r"|~|null|Null|NULL")
_TRUE = re.compile(r"true|True|TRUE|yes|Yes|YES|on|On|ON")
_FALSE = re.compile(r"false|False|FALSE|no|No|NO|off|Off|OFF")
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_OCTAL = re.compile(r"[-+]?0[0-7]+")
_BASED = re.compile(r"[-+]?0(x[0-9a-fA-F]+|o[0-7]+|b[01]+)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_TAG = "tag:yaml.org,2002:"


class Document(Struct, frozen=True):
    """One YAML document: plain values, where it came from, and its first line (from 1)."""

    raw: Any
    source: str
    line: int


class _RefusedError(Exception):
    """The document can't be read on; carries its problem."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


class _Sized(Struct):
    """A value with how many values it holds (aliases counted in full) and how deep it is."""

    value: Any
    size: int = 1
    height: int = 0


class _Frame:
    """A collection that is still open."""

    def __init__(self, *, mapping: bool, anchor: str | None, line: int) -> None:
        self.value: Any = {} if mapping else []
        self.mapping = mapping
        self.anchor = anchor
        self.line = line
        self.size = 1
        self.height = 0
        self.key: Any = None
        self.has_key = False
        self.lines: dict[str, int] = {}
        self.merged: list[dict[str, Any]] = []


def read_manifests(text: str, *, source: str) -> tuple[list[Document], list[Problem]]:
    """All documents of a text; empty ones are left out. Never raises.

    A document with a problem is not among the documents, so: any problem means that the file is not to be used.
    `source` (a file's name) stands in the problems, with the line.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return [], [Problem(source, "holds a character that is no Unicode text: save it as UTF-8")]
    if size > MAX_BYTES:
        return [], [Problem(source, f"has {size} bytes: a manifest may have {MAX_BYTES}")]
    reader = _Reader(source)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            reader.take(event)
    except _RefusedError as error:
        reader.refuse(error.line, error.message)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reader.refuse(mark.line + 1 if mark else 1, f"no YAML: {_one_line(error.problem or error.context or '')}")
    except yaml.YAMLError as error:
        reader.refuse(_line_of(text, error), f"no YAML: {_one_line(getattr(error, 'reason', '') or str(error))}")
    if not reader.documents and not reader.problems:
        reader.problems.append(Problem(source, "holds no manifest"))
    return reader.documents, reader.problems


class _Reader:
    """Builds documents from parser events, without recursion."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.documents: list[Document] = []
        self.problems: list[Problem] = []
        self._begin(1)

    def _begin(self, line: int) -> None:
        self.line = line
        self.sound = True
        self.root: Any = None
        self.open: list[_Frame] = []
        self.anchors: dict[str, _Sized] = {}

    def refuse(self, line: int, message: str) -> None:
        self.sound = False
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(f"{self.source}:{line}", message))

    def take(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else self.line
        match event:
            case yaml.DocumentStartEvent():
                self._begin(line)
            case yaml.DocumentEndEvent():
                if self.sound and self.root is not None:
                    self.documents.append(Document(self.root, self.source, self.line))
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._check_tag(event.tag, line, ("map", "seq"))
                if len(self.open) >= MAX_DEPTH:
                    raise _RefusedError(line, f"nested deeper than {MAX_DEPTH}")
                mapping = isinstance(event, yaml.MappingStartEvent)
                self.open.append(_Frame(mapping=mapping, anchor=event.anchor, line=line))
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._close()
            case yaml.AliasEvent():
                if event.anchor not in self.anchors:
                    raise _RefusedError(
                        line, f"alias *{_one_line(event.anchor or '')} stands for nothing that is complete before it"
                    )
                self._put(self.anchors[event.anchor], line)
            case yaml.ScalarEvent():
                sized = _Sized(self._scalar(event, line))
                if event.anchor:
                    self.anchors[event.anchor] = sized
                self._put(sized, line)

    def _close(self) -> None:
        frame = self.open.pop()
        for merged in frame.merged:
            for key, value in merged.items():
                frame.value.setdefault(key, value)
        sized = _Sized(frame.value, frame.size, frame.height + 1)
        if frame.anchor:
            self.anchors[frame.anchor] = sized
        self._put(sized, frame.line)

    def _put(self, item: _Sized, line: int) -> None:
        """A complete value goes to where it belongs."""
        if not self.open:
            self.root = item.value
            return
        frame = self.open[-1]
        frame.size += item.size
        frame.height = max(frame.height, item.height)
        if frame.size > MAX_VALUES:
            raise _RefusedError(line, f"more than {MAX_VALUES} values, counted with what aliases stand for")
        if len(self.open) + frame.height > MAX_DEPTH:
            raise _RefusedError(line, f"nested deeper than {MAX_DEPTH}")
        if not frame.mapping:
            frame.value.append(item.value)
        elif not frame.has_key:
            frame.key, frame.has_key = self._key(frame, item.value, line), True
        else:
            frame.has_key = False
            if frame.key == "<<":
                self._merge(frame, item.value, line)
            elif frame.key is not None:
                frame.value[frame.key] = item.value

    def _key(self, frame: _Frame, key: Any, line: int) -> str | None:
        if not isinstance(key, str):
            remedy = "" if isinstance(key, (dict, list)) else ": put it in quotes"
            self.refuse(line, f"{show(key)} is no name of a field{remedy}")
            return None
        if key in frame.lines:
            self.refuse(line, f"{show(key)} stands twice in one mapping, first in line {frame.lines[key]}")
        frame.lines.setdefault(key, line)
        return key

    def _merge(self, frame: _Frame, value: Any, line: int) -> None:
        sources = value if isinstance(value, list) else [value]
        if not all(isinstance(source, dict) for source in sources):
            self.refuse(line, "<< takes a mapping, or a list of mappings")
            return
        frame.merged += sources

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> Any:
        text: str = event.value
        tag = event.tag
        if tag == "!" or (tag is None and not event.implicit[0]) or tag == _TAG + "str":
            return text
        self._check_tag(tag, line, tuple(_EXPECTED))
        try:
            value = _resolve(text)
        except ValueError as error:
            self.refuse(line, str(error))
            return None
        if tag is not None and not isinstance(value, _EXPECTED[tag.removeprefix(_TAG)]):
            self.refuse(line, f"{show(text)} is not what its tag !!{tag.removeprefix(_TAG)} says")
        return value

    def _check_tag(self, tag: str | None, line: int, known: tuple[str, ...]) -> None:
        if tag is not None and tag != "!" and tag.removeprefix(_TAG) not in known:
            raise _RefusedError(line, f"tag {show(tag)} has no meaning in a manifest: leave it out")


_EXPECTED: Final[dict[str, type | tuple[type, ...]]] = {
    "null": type(None),
    "bool": bool,
    "int": int,
    "float": (float, int),
    "str": str,
}


def _resolve(text: str) -> Any:
    """What a plain scalar means. Raises ValueError for a number that no JSON can hold."""
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text):
        return True
    if _FALSE.fullmatch(text):
        return False
    for pattern, base in ((_DECIMAL, 10), (_OCTAL, 8), (_BASED, 0)):
        if pattern.fullmatch(text):
            return _integer(text, base)
    if _FLOAT.fullmatch(text) or _NOT_FINITE.fullmatch(text):
        number = math.inf if _NOT_FINITE.fullmatch(text) else float(text)
        if math.isinf(number):
            raise ValueError(f"{show(text)} is no finite number: put it in quotes if text is meant")
        return number
    return text


def _integer(text: str, base: int) -> int:
    number = int(text, base) if len(text) <= 70 else 1 << 63
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"{show(text)} is a number too large: put it in quotes if text is meant")
    return number


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


def _line_of(text: str, error: yaml.YAMLError) -> int:
    position = getattr(error, "position", 0)
    return text.count("\n", 0, position) + 1 if isinstance(position, int) else 1

"""Paths that name a value of a request or an answer: JSON paths, and columns as a protocol has them.

The part of JSONPath (RFC 9535) that names columns: `$`, `.name`, `['any name']`, `[3]` from 0, `[*]` for all rows.
Both the operator, which refuses wrong paths, and the sidecar, which follows them, read them here.
"""

from __future__ import annotations

from typing import Final

#: A name, a position, or EVERY.
Step = str | int | None
#: `[*]`: all elements of a list.
EVERY: Final = None

#: A larger position is no column: the widest rows have thousands.
_MOST: Final = 10_000_000
_LONGEST: Final = 512


def path_problem(path: str) -> str:
    """What is wrong with a path, in one line; empty where nothing is.

    `path` as in `monitoring.Feature.path`: a JSON path if it begins with `$`, else a column.
    """
    if len(path) > _LONGEST:
        return f"path {path[:40]!r}…: {len(path)} characters; at most {_LONGEST} are read"
    try:
        if not path.startswith("$"):
            column_of_path(path)
        elif steps_of(path).count(EVERY) > 1:
            return f"path {path!r}: [*] stands for the rows, so at most once; write a position instead, such as [0]"
    except ValueError as error:
        return str(error)
    return ""


def steps_of(path: str) -> tuple[Step, ...]:
    """The steps of a JSON path from the document on; `$` has none. Raises ValueError, with one clear line."""
    if not path.startswith("$"):
        raise ValueError(f"path {path!r}: a JSON path begins with $")
    steps: list[Step] = []
    step: Step
    at = 1
    while at < len(path):
        if path[at] == ".":
            step, at = _name(path, at + 1)
        elif path[at] == "[":
            step, at = _bracket(path, at + 1)
        else:
            raise ValueError(f"path {path!r}: {path[at:]!r} should begin with . or [")
        steps.append(step)
    return tuple(steps)


def column_of_path(path: str) -> tuple[str, int | None]:
    """A column's name and its position in it: `x[3]` is the fourth of `x`, `[3]` the fourth of what has no name.

    Raises ValueError, with one clear line.
    """
    name, bracket, inside = path.rpartition("[")
    if not bracket or not path.endswith("]"):
        return path, None
    inside = inside[:-1]
    if inside == "*":
        raise ValueError(f"path {path!r}: a column has a value of each row anyway; leave [*] out, or begin with $")
    if not _is_position(inside):
        # Nothing of ours: columns may be called `temperature [C]`.
        return path, None
    return name, int(inside)


def _is_position(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 9 and int(text) < _MOST


def _name(path: str, at: int) -> tuple[str, int]:
    """After a dot: all up to the next step."""
    end = at
    while end < len(path) and path[end] not in ".[":
        end += 1
    name = path[at:end]
    if not name:
        raise ValueError(f"path {path!r}: no name after the dot at character {at}")
    if name == "*" or "]" in name:
        raise ValueError(f"path {path!r}: {name!r} is no name; for all rows write [*], for a name with signs ['…']")
    return name, end


def _bracket(path: str, at: int) -> tuple[Step, int]:
    """After an opening bracket."""
    quote = path[at : at + 1]
    if quote in ("'", '"'):
        end = path.find(f"{quote}]", at + 1)
        if end < 0:
            raise ValueError(f"path {path!r}: no {quote}] ends the name at character {at + 1}")
        return path[at + 1 : end], end + 2
    end = path.find("]", at)
    if end < 0:
        raise ValueError(f"path {path!r}: no ] ends the bracket at character {at}")
    inside = path[at:end]
    if inside == "*":
        return EVERY, end + 1
    if not _is_position(inside):
        raise ValueError(f"path {path!r}: [{inside}] is neither a position from 0, nor [*], nor a name in quotes")
    return int(inside), end + 1

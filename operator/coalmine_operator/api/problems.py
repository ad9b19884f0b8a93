"""Problems of a manifest: one line each, with the path, the value and the remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

#: The longest spelling of a value inside a problem, in characters.
SHOWN = 60
#: The path of a manifest as a whole.
ROOT = "manifest"
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")


class Problem(Struct, frozen=True):
    """`path` says where: `spec.replicas`, or `fraud.yaml:12` of broken text. `message` says what, and the remedy.

    `local`: of `coalmine run` only; a cluster takes the manifest as it is.
    """

    path: str
    message: str
    local: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class Invalid(ValueError):  # noqa: N818 - read aloud, `raise Invalid(problems)` says it all
    """A manifest that can't be used. `problems` has at least one entry; the text has one line for each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


def show(value: Any) -> str:
    """A value for a message: JSON spelling of scalars, one printable line of at most `SHOWN` characters."""
    match value:
        case None | bool():
            text = json.dumps(value)
        case str():
            text = _quoted(value)
        case int():
            text = str(value) if value.bit_length() <= 128 else f"a number of {value.bit_length()} bits"
        case float():
            text = str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
        case list() | tuple():
            text = "a list"
        case dict():
            text = "a mapping"
        case _:
            text = f"a {type(value).__name__}"
    return text


def key_path(path: str, key: Any) -> str:
    """The path of an entry of a mapping: `spec.model`, `metadata.labels["a.b/c"]`."""
    if not isinstance(key, str) or not _PLAIN_KEY.fullmatch(key):
        return f"{path or ROOT}[{show(key)}]"
    return f"{path}.{key}" if path else key


def index_path(path: str, index: int) -> str:
    return f"{path}[{index}]"


def join_path(path: str, rest: str) -> str:
    """`rest` continues `path`: `.` stands between them unless either is empty or `rest` begins with an index."""
    return f"{path}.{rest}" if path and rest and not rest.startswith("[") else path + rest


def _quoted(text: str) -> str:
    spelled = _printable(json.dumps(text[:SHOWN], ensure_ascii=False))
    if len(text) <= SHOWN and len(spelled) <= SHOWN:
        return spelled
    return spelled[: SHOWN - 2].rstrip('"\\') + '…"'


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)

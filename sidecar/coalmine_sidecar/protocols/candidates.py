"""Names that the columns of a request may have, for who reads one without knowing what is in it.

More of them than there are, and none too few: which of them there are says the reader (`inputs.read_request`). So no
format is known here but by what they share: keys of objects, headers of tables, names and shapes of tensors, lists.
"""

from __future__ import annotations

from math import prod
from typing import Any, Final

from msgspec import Struct

from .csvtext import csv_rows, has_header
from .jsontext import read_json, read_lines
from .openai import operation_of
from .outputs import UnreadableError
from .tables import SPLIT, from_text
from .v2_grpc_inputs import tensors_of
from .wanted import SCALARS

#: Of one request; positions in a list are no names of their own.
MAX_NAMES: Final = 2000
#: Elements of a list, or of a tensor's row, that are told apart.
MAX_WIDTH: Final = 1000
#: A longer name is none that a feature may have.
_LONGEST: Final = 128
#: What `prompt.read_prompt` makes of a request to OpenAI's API.
_OF_PROMPTS: Final = ("prompt_chars", "messages", "max_tokens")
_DEEPEST: Final = 8
#: Rows that are looked at: they are mostly alike.
_ROWS: Final = 256


class Candidates(Struct):
    """`names` with the length of the longest list that is called so, or 0; `width`: of the longest list of all, where
    positions may be asked for without a name; `beside`: keys of the document with a single value.

    `rows` of the answer tell whether a tensor of one dimension is a value of each row or one row.
    """

    rows: int
    names: dict[str, int] = {}
    width: int = 0
    beside: frozenset[str] = frozenset()

    def add(self, name: object, width: int = 0) -> None:
        width = min(width, MAX_WIDTH)
        self.width = max(self.width, width)
        if not isinstance(name, str) or not 0 < len(name) <= _LONGEST:
            return
        if name in self.names or len(self.names) < MAX_NAMES:
            self.names[name] = max(width, self.names.get(name, 0))

    def add_tensor(self, name: object, shape: object) -> None:
        if not isinstance(shape, list) or not all(type(size) is int for size in shape):
            return
        width = prod(shape[1:])
        if len(shape) == 1 and self.rows == 1:
            width = shape[0]
        self.add(name, width if width > 1 else 0)

    def add_document(self, document: Any) -> None:
        if isinstance(document, dict):
            self.beside = frozenset(key for key, value in document.items() if type(value) in SCALARS)
        self._walk(document, "", 0)

    def _walk(self, node: Any, name: str, depth: int) -> None:
        """`name`: what the node is called where it stands."""
        if depth > _DEEPEST:
            return
        if isinstance(node, dict):
            if "datatype" in node and "shape" in node:
                self.add_tensor(node.get("name"), node["shape"])
                return
            for header, rows in SPLIT:
                if isinstance(node.get(header), list) and isinstance(node.get(rows), list):
                    self._add_table(node[header], node[rows])
            for key, value in node.items():
                self.add(key)
                if isinstance(value, dict | list):
                    self._walk(value, key, depth + 1)
        elif isinstance(node, list):
            if node and type(node[0]) in SCALARS:
                self.add(name, len(node) if len(node) > 1 else 0)
            for element in node[:_ROWS]:
                if isinstance(element, dict):
                    self._walk(element, name, depth + 1)
                elif isinstance(element, list) and len(element) > 1:
                    self.add(name, len(element))

    def _add_table(self, header: list[Any], rows: list[Any]) -> None:
        for name in header[:MAX_NAMES]:
            self.add(str(name))
        for row in rows[:_ROWS]:
            if isinstance(row, list):
                for name, cell in zip(header, row, strict=False):
                    if isinstance(cell, list) and len(cell) > 1:
                        self.add(str(name), len(cell))

    def add_csv(self, body: bytes, content_type: bytes) -> None:
        rows, _ = csv_rows(body, 2)
        kind = content_type.lower().replace(b" ", b"")
        if b"header=absent" not in kind and (
            b"header=present" in kind or has_header([[from_text(cell) for cell in row] for row in rows])
        ):
            for name in rows[0] if rows else ():
                self.add(name.strip())
        self.width = max([self.width, *map(len, rows)])


def candidates(path: bytes, content_type: bytes, json_length: int | None, body: bytes, rows: int) -> Candidates:
    """Of a request; see `inputs.read_request` and Candidates. Never raises: what is unreadable has no names."""
    found = Candidates(rows)
    try:
        first = body.lstrip(b" \t\r\n")[:1]
        if content_type.startswith(b"application/grpc"):
            for tensor in tensors_of(body)[0]:
                found.add_tensor(tensor.name, tensor.shape)
        elif json_length is not None:
            found.add_document(read_json(body[: max(0, json_length)]))
        elif b"lines" in content_type or b"ndjson" in content_type or b"jsonl" in content_type:
            found.add_document(read_lines(body))
        elif first in (b"{", b"[") or b"json" in content_type:
            found.add_document(read_json(body))
        elif content_type[:5].lower() == b"text/":
            found.add_csv(body, content_type)
    except (UnreadableError, ValueError, RecursionError):
        return found
    if operation_of(path.partition(b"?")[0]) is not None:
        for name in _OF_PROMPTS:
            found.add(name)
    return found

"""Parquet, as far as a table of texts and bytes takes it: pure.

One row group; every column nullable, of one PLAIN page, packed by gzip. No library writes it: arro3 (35 MB) keeps
Python's lock until a file is written, and requests would wait for 50 ms each 8 MiB; zlib gives it back. And on a full
disk it panics. pyarrow is 170 MB.
See https://parquet.apache.org/docs/file-format/ and its parquet.thrift.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from . import thrift

MAGIC: Final = b"PAR1"

# Numbers of parquet.thrift.
_BYTE_ARRAY: Final = 6
_OPTIONAL: Final = 1
_UTF8: Final = 0
_GZIP: Final = 2
_DATA_PAGE: Final = 0
_PLAIN: Final = 0
_RLE: Final = 3

#: For zlib: gzip's head and tail, and its quickest level.
_WBITS: Final = 31
_LEVEL: Final = 1
_length = struct.Struct("<I").pack
_ABSENT, _PRESENT = b"01"


class Column(NamedTuple):
    """`text`: its values are UTF-8."""

    name: str
    text: bool


class _Cells:
    """Of one column: its values, each after its length, and for each row whether it has one."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.present = bytearray()

    def add(self, value: bytes | None) -> None:
        if value is None:
            self.present.append(_ABSENT)
        else:
            self.present.append(_PRESENT)
            self.values += (_length(len(value)), value)

    def page(self) -> bytes:
        # A bit a row, the first row the lowest, in groups of eight.
        groups = -(-len(self.present) // 8)
        bits = int(b"0" + self.present[::-1], 2).to_bytes(groups, "little")
        levels = thrift.varint(groups << 1 | 1) + bits
        return b"".join((_length(len(levels)), levels, *self.values))


class Table:
    """Rows that become one file."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._cells = [_Cells() for _ in columns]
        self._rows = 0

    def add(self, row: Sequence[bytes | None]) -> None:
        """A value for each column."""
        for cells, value in zip(self._cells, row, strict=True):
            cells.add(value)
        self._rows += 1

    def pieces(self) -> Iterator[bytes]:
        """The file's bytes."""
        yield MAGIC
        at = len(MAGIC)
        chunks: list[thrift.Value] = []
        whole = 0
        for column, cells in zip(self._columns, self._cells, strict=True):
            page = cells.page()
            packed = zlib.compress(page, _LEVEL, _WBITS)
            header = _page_header(self._rows, len(page), len(packed))
            yield header
            yield packed
            plain, stored = len(header) + len(page), len(header) + len(packed)
            chunks.append(_chunk(column.name, self._rows, at, plain, stored))
            at += stored
            whole += plain
        footer = _footer(self._columns, self._rows, chunks, whole)
        yield footer + _length(len(footer)) + MAGIC


def _page_header(rows: int, plain: int, packed: int) -> bytes:
    page = thrift.struct({1: thrift.i32(rows), 2: thrift.i32(_PLAIN), 3: thrift.i32(_RLE), 4: thrift.i32(_RLE)})
    fields = {1: thrift.i32(_DATA_PAGE), 2: thrift.i32(plain), 3: thrift.i32(packed), 5: page}
    return thrift.struct(fields)[1]


def _chunk(name: str, rows: int, at: int, plain: int, stored: int) -> thrift.Value:
    metadata = {
        1: thrift.i32(_BYTE_ARRAY),
        2: thrift.array([thrift.i32(_PLAIN), thrift.i32(_RLE)]),
        3: thrift.array([thrift.text(name)]),
        4: thrift.i32(_GZIP),
        5: thrift.i64(rows),
        6: thrift.i64(plain),
        7: thrift.i64(stored),
        9: thrift.i64(at),
    }
    return thrift.struct({2: thrift.i64(0), 3: thrift.struct(metadata)})


def _footer(columns: Sequence[Column], rows: int, chunks: Sequence[thrift.Value], whole: int) -> bytes:
    root = thrift.struct({4: thrift.text("schema"), 5: thrift.i32(len(columns))})
    group = thrift.struct({1: thrift.array(chunks), 2: thrift.i64(whole), 3: thrift.i64(rows)})
    fields = {
        1: thrift.i32(1),
        2: thrift.array([root, *map(_element, columns)]),
        3: thrift.i64(rows),
        4: thrift.array([group]),
        6: thrift.text("coalmine version 1"),
    }
    return thrift.struct(fields)[1]


def _element(column: Column) -> thrift.Value:
    fields = {1: thrift.i32(_BYTE_ARRAY), 3: thrift.i32(_OPTIONAL), 4: thrift.text(column.name)}
    if column.text:
        # Once for old readers, once for new ones: the first of a union's, an empty struct.
        fields |= {6: thrift.i32(_UTF8), 10: thrift.struct({1: thrift.struct({})})}
    return thrift.struct(fields)

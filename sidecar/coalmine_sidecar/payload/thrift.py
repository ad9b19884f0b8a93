"""Thrift's compact protocol, as far as a Parquet file takes it: writing only, and no negative numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

#: What a field's or an element's header says it is, and its bytes.
Value = tuple[int, bytes]

_I32: Final = 5
_I64: Final = 6
_BINARY: Final = 8
_LIST: Final = 9
_STRUCT: Final = 12
#: Elements that a list's header has room for; the number of more of them follows it.
_SHORT: Final = 14


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def i32(number: int) -> Value:
    return _I32, varint(number << 1)


def i64(number: int) -> Value:
    return _I64, varint(number << 1)


def text(string: str) -> Value:
    data = string.encode()
    return _BINARY, varint(len(data)) + data


def array(values: Sequence[Value]) -> Value:
    """Of one kind, and at least one."""
    kind, count = values[0][0], len(values)
    header = bytes([count << 4 | kind]) if count <= _SHORT else bytes([0xF0 | kind]) + varint(count)
    return _LIST, header + _joined(values)


def struct(fields: Mapping[int, Value]) -> Value:
    """By the fields' numbers, which ascend by at most 15."""
    data, before = bytearray(), 0
    for number, (kind, value) in fields.items():
        data.append(number - before << 4 | kind)
        data += value
        before = number
    return _STRUCT, bytes(data) + b"\0"


def _joined(values: Iterable[Value]) -> bytes:
    return b"".join(value for _, value in values)

"""The columns that are wanted of a request's tensors: Open Inference Protocol v2, as JSON, binary or gRPC."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Sequence
from math import isfinite, prod
from typing import Any, Final

from .elements import CODES, flatten, read_block
from .jsontext import float_of
from .outputs import MAX_ROWS, UnreadableError, Value
from .v2 import MAX_RANK
from .wanted import Asked, Wanted

_Kind = tuple[type, frozenset[type]]
#: Types of the elements in JSON: the one that is meant, others that some clients write.
_FLOAT: Final[_Kind] = (float, frozenset({int, type(None)}))
_WHOLE: Final[_Kind] = (int, frozenset({float, type(None)}))
_KINDS: Final[dict[str, _Kind]] = {
    **{name: _FLOAT if name.startswith("FP") else _WHOLE for name in CODES},
    "BOOL": (bool, frozenset({int, type(None)})),
    "BYTES": (str, frozenset({type(None)})),
}
_WHOLES: Final = frozenset({int})
#: memoryview reads the machine's own numbers only, and no halves.
_CAST: Final = sys.byteorder == "little"
_Ask = tuple[str, int | None]
#: Of one value, as nearly all tensors of a request with one row are.
ONES: Final = ([1, 1], [1])
_UNPACK: Final[dict[str, Callable[[memoryview], tuple[Any]]]] = {
    name: struct.Struct("<" + code).unpack for name, code in CODES.items()
}


def read_json_tensors(inputs: list[Any], tail: memoryview, room: int, wanted: Wanted, asked: Asked) -> None:
    """`inputs` of a document; binary tensors follow in `tail`, in their order. `room`: bytes of the request."""
    offset = 0
    whole = wanted.asks.get("", ()) if len(inputs) == 1 else ()
    for tensor in inputs:
        if not isinstance(tensor, dict):
            asked.fail("shape")
            continue
        parameters = tensor.get("parameters")
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        block = None
        if type(size) is int and size >= 0:
            block = tail[offset : offset + size]
            offset += size
        name = tensor.get("name")
        asks = wanted.asks.get(name, ()) if isinstance(name, str) else ()
        if whole:
            asks += whole
        if not asks and (asked.seen or len(inputs) > 1):
            continue
        if block is not None and len(block) != size:
            asked.fail("truncated")
            continue
        if tensor.get("shape") in ONES and len(asks) == 1 and not asks[0][1]:
            one = _single(tensor, block)
            if one is not None:
                asked.saw(1)
                asked.columns[asks[0][0]] = one
                continue
        try:
            if block is None:
                add_json(tensor.get("shape"), tensor.get("datatype"), tensor.get("data"), room, asks, asked)
            else:
                add_block(tensor.get("shape"), tensor.get("datatype"), block, room, asks, asked)
        except UnreadableError as reason:
            asked.fail(str(reason))
    if not asked.seen and inputs and isinstance(inputs[0], dict):
        shape = inputs[0].get("shape")
        if isinstance(shape, list) and shape and type(shape[0]) is int and 0 <= shape[0] <= room:
            asked.saw(shape[0])


def _single(tensor: dict[str, Any], block: memoryview | None) -> Sequence[Value] | None:
    """The only value of a tensor; None where it is not as simple as that."""
    datatype = tensor.get("datatype")
    if not isinstance(datatype, str):
        return None
    if block is not None:
        return single_number(datatype, block)
    data = tensor.get("data")
    kind = _KINDS.get(datatype)
    if kind is not None and isinstance(data, list) and len(data) == 1 and type(data[0]) is kind[0]:
        return data
    return None


def single_number(datatype: str, block: memoryview) -> tuple[Value] | None:
    """The only number of a binary tensor; None where it is none."""
    unpack = _UNPACK.get(datatype)
    try:
        return None if unpack is None else unpack(block)
    except struct.error:
        return None


def add_json(shape: Any, datatype: Any, data: Any, room: int, asks: Sequence[_Ask], asked: Asked) -> None:
    """Columns of elements in JSON, flat or nested. Raises UnreadableError."""
    rows, width = measure(shape, room, asks)
    kind = _KINDS.get(datatype) if isinstance(datatype, str) else None
    if kind is None:
        raise UnreadableError("datatype")
    if data is None:
        raise UnreadableError("shape")
    if not isinstance(data, list):
        data = [data]
    if data and isinstance(data[0], list):
        data = flatten(data)
    if len(data) != rows * width:
        raise UnreadableError("shape")
    asked.saw(rows)
    if not data:
        return
    end = min(rows, MAX_ROWS) * width
    main, others = kind
    for name, position in asks:
        at = _place(position, width, asked)
        if at < 0:
            continue
        values = [data[at]] if rows == 1 else data[at:end:width]
        if len(values) != 1 or type(values[0]) is not main:
            values = _meant(values, main, others, asked)
        asked.columns[name] = values


def add_block(shape: Any, datatype: Any, block: memoryview, room: int, asks: Sequence[_Ask], asked: Asked) -> None:
    """Columns of elements as Triton's binary extension has them. Raises UnreadableError."""
    rows, width = measure(shape, room, asks)
    code = CODES.get(datatype) if isinstance(datatype, str) else None
    if code is None and datatype != "BYTES":
        raise UnreadableError("datatype")
    if code is not None and len(block) != rows * width * struct.calcsize("<" + code):
        raise UnreadableError("shape")
    asked.saw(rows)
    end = min(rows, MAX_ROWS) * width
    if not end or not asks:
        return
    if code is not None and code not in "e?" and _CAST:
        numbers: Sequence[Value] = block.cast("B").cast(code)  # type: ignore[call-overload]  # one of the literals
    else:
        numbers = read_block(datatype, block, rows * width, end)
    add_elements(numbers, rows, width, asks, asked)


def add_elements(elements: Sequence[Value], rows: int, width: int, asks: Sequence[_Ask], asked: Asked) -> None:
    """Columns of elements that have their types already."""
    end = min(rows, MAX_ROWS) * width
    for name, position in asks:
        at = _place(position, width, asked)
        if at >= 0:
            asked.columns[name] = [elements[at]] if rows == 1 else list(elements[at:end:width])


def measure(shape: Any, room: int, asks: Sequence[_Ask]) -> tuple[int, int]:
    """Rows and values in each. A tensor of one dimension whose positions are asked for is one row: it has no batch.

    Raises UnreadableError.
    """
    if not isinstance(shape, list) or len(shape) > MAX_RANK or not _WHOLES.issuperset(map(type, shape)):
        raise UnreadableError("shape")
    if len(shape) == 2:
        rows, width = shape
    elif len(shape) == 1:
        rows, width = shape[0], 1
        if rows > 1 and any(position for _, position in asks):
            rows, width = 1, rows
    else:
        rows, width = (shape[0], prod(shape[1:])) if shape else (1, 1)
    # Every element takes a byte at least: a shape that claims more than that is no count of rows.
    if not (0 <= rows <= room and 0 <= rows * width <= room):
        raise UnreadableError("shape")
    return rows, width


def _place(position: int | None, width: int, asked: Asked) -> int:
    """Where in a row a value is; -1: it has no such one."""
    if position is not None:
        return position if position < width else -1
    if width == 1:
        return 0
    asked.fail("shape")
    return -1


def _meant(values: list[Any], main: type, others: frozenset[type], asked: Asked) -> list[Value]:
    kinds = set(map(type, values))
    if kinds == {main}:
        return values
    meant: list[Value] = []
    for value in values:
        kind = type(value)
        if kind is main or value is None or (kind is float and not isfinite(value)):
            meant.append(value)
        elif kind not in others:
            asked.fail("datatype")
            meant.append(None)
        elif main is bool:
            meant.append(bool(value))
        elif main is float:
            meant.append(float_of(value))
        else:
            meant.append(value)
    return meant

"""The elements of a tensor of Open Inference Protocol v2, as JSON or as bytes."""

from __future__ import annotations

import struct
from math import isfinite
from typing import Any, Final

import msgspec
from msgspec import Raw

from .jsontext import float_of, read_json
from .outputs import UnreadableError, Value

#: struct codes of the datatypes with a fixed size.
CODES: Final = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
#: What the elements of a datatype are in JSON; some servers write booleans as 0 and 1, or whole numbers as 7.0.
ELEMENTS: Final[dict[str, Any]] = {
    **{name: list[float | None] if name.startswith("FP") else list[int | float | None] for name in CODES},
    "BOOL": list[bool | int | None],
    "BYTES": list[str | None],
}
_DECODERS: Final = {name: msgspec.json.Decoder(kind) for name, kind in ELEMENTS.items()}
#: A longer element is text, not a label: its rest need not be read.
LABEL_BYTES: Final = 512


def read_data(datatype: str, data: Any, total: int, wanted: int) -> list[Value]:
    """Elements, flat or nested in any way that has `total` of them: JSON, or what was read of it."""
    values: list[Value]
    try:
        if isinstance(data, Raw):
            try:
                values = _DECODERS[datatype].decode(data)
            except ValueError:
                values = _convert(datatype, read_json(bytes(data)))
        else:
            values = _convert(datatype, data)
    except (ValueError, RecursionError):
        raise UnreadableError("shape") from None
    if len(values) != total:
        raise UnreadableError("shape")
    if datatype == "BOOL":
        values = [bool(value) if isinstance(value, int) else value for value in values]
    return values if total == wanted else values[:wanted]


def _convert(datatype: str, data: Any) -> list[Value]:
    """Elements of this datatype. Raises ValueError."""
    elements = flatten(data)
    values: list[Value]
    try:
        values = msgspec.convert(elements, ELEMENTS[datatype])
    except ValueError:
        # Where a value is missing some writers put NaN, of whatever type the others are.
        odd = {at: number for at, element in enumerate(elements) if not isfinite(number := _number(element))}
        if not odd:
            raise ValueError("elements of another type") from None
        values = msgspec.convert([None if at in odd else one for at, one in enumerate(elements)], ELEMENTS[datatype])
        for at, number in odd.items():
            values[at] = number
    return values


def _number(element: Any) -> float:
    """0 for what is no number."""
    return element if type(element) is float else float_of(element) if type(element) is int else 0.0


def flatten(data: Any) -> list[Any]:
    while isinstance(data, list) and any(isinstance(item, list) for item in data):
        if not all(isinstance(item, list) for item in data):
            raise UnreadableError("shape")
        data = [element for item in data for element in item]
    if not isinstance(data, list):
        # A scalar where the shape is [] or all ones.
        return [data]
    return data


def read_block(datatype: str, block: memoryview, total: int, wanted: int) -> list[Value]:
    """Elements as Triton's binary extension and `raw_output_contents` have them."""
    if datatype == "BYTES":
        return _read_strings(block, total, wanted)
    code = CODES[datatype]
    if len(block) != total * struct.calcsize("<" + code):
        raise UnreadableError("shape")
    return list(struct.unpack_from(f"<{wanted}{code}", block))


def _read_strings(block: memoryview, total: int, wanted: int) -> list[Value]:
    values: list[Value] = []
    offset = 0
    for _ in range(wanted):
        if offset + 4 > len(block):
            raise UnreadableError("truncated")
        length = int.from_bytes(block[offset : offset + 4], "little")
        offset += 4
        if offset + length > len(block):
            raise UnreadableError("truncated")
        values.append(str(block[offset : offset + min(length, LABEL_BYTES)], "utf-8", "replace"))
        offset += length
    if wanted == total and offset != len(block):
        raise UnreadableError("shape")
    return values

"""Open Inference Protocol v2: JSON, and Triton's binary tensor extension.

With the header `Inference-Header-Content-Length: J` the first J bytes are JSON and the tensors follow in the order of
`outputs`, each `parameters.binary_data_size` bytes, little-endian, row-major; BYTES elements are a u32 length and the
bytes. Source: github.com/kserve/open-inference-protocol and Triton's extension_binary_data.md.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct

from .elements import ELEMENTS, read_block, read_data
from .jsontext import read_as
from .outputs import (
    MAX_COLUMNS,
    MAX_ROWS,
    MAX_WIDTH,
    Answer,
    UnreadableError,
    Value,
    failure,
    id_of,
)
from .wanted import Wanted

_ONE: Final = ([1, 1], [1])
#: A longer answer holds more than one number.
_SHORT: Final = 1024
#: No tensor has more dimensions; the product of thousands of them would take long.
MAX_RANK: Final = 16


class _Output(Struct):
    name: str
    shape: list[int]
    datatype: str
    data: Raw = Raw()  # empty where there is none
    parameters: dict[str, Any] | None = None


class _Document(Struct):
    outputs: list[_Output] = []
    id: Any = None


class _LenientOutput(Struct):
    """The same of a document that is no strict JSON: its elements are read already."""

    name: str
    shape: list[int]
    datatype: str
    data: Any = UNSET
    parameters: dict[str, Any] | None = None


class _LenientDocument(Struct):
    outputs: list[_LenientOutput] = []
    id: Any = None


class _Number(Struct):
    """The commonest output by far: numbers in JSON, few enough to be read whole at once."""

    name: str
    shape: list[int]
    datatype: Literal["FP64", "FP32", "FP16"]
    data: list[float | None]


class _Numbers(Struct):
    outputs: Annotated[list[_Number], Meta(min_length=1, max_length=1)]
    id: Any = None


_decode = msgspec.json.Decoder(_Document).decode
_decode_numbers = msgspec.json.Decoder(_Numbers).decode


def read(body: bytes, json_length: int | None = None, wanted: Wanted | None = None) -> Answer:
    """The outputs of an answer; `json_length` is the value of its Inference-Header-Content-Length.

    `wanted`: columns of wide outputs to be read.
    """
    if json_length is None:
        if len(body) < _SHORT and (one := _read_one(body)) is not None:
            return one
        head, offset = body, len(body)
    elif 0 <= json_length <= len(body):
        head, offset = body[:json_length], json_length
    else:
        return failure("truncated")
    try:
        document = read_as(head, _decode, _LenientDocument)
    except msgspec.ValidationError:
        return failure("shape")
    except (ValueError, RecursionError):
        return failure("not_json")
    outputs = document.outputs
    if not outputs:
        return failure("no_outputs")
    answer = Answer(id=id_of(document.id))
    for output in outputs[:MAX_COLUMNS]:
        if answer.full:
            break
        size = _binary_size(output)
        block = None if size is None else memoryview(body)[offset : offset + size]
        offset += size or 0
        try:
            _read_output(output, answer, block, size, len(body), wanted)
        except UnreadableError as reason:
            answer.fail(str(reason))
    if len(outputs) > MAX_COLUMNS:
        answer.fail("too_many_outputs")
    return answer


def _read_one(body: bytes) -> Answer | None:
    """One float in JSON, read in a third of the time; None where an answer is not that."""
    try:
        document = _decode_numbers(body)
    except (ValueError, RecursionError):
        return None
    (output,) = document.outputs
    if len(output.data) == 1 and output.shape in _ONE:
        return Answer(1, [(output.name, output.data)], id=id_of(document.id))
    return None


def _binary_size(output: _Output | _LenientOutput) -> int | None:
    if not output.parameters:
        return None
    size = output.parameters.get("binary_data_size")
    return size if isinstance(size, int) and size >= 0 and not isinstance(size, bool) else None


def _read_output(
    output: _Output | _LenientOutput,
    answer: Answer,
    block: memoryview | None,
    size: int | None,
    room: int,
    wanted: Wanted | None,
) -> None:
    """`block`: the bytes of a binary tensor, `size` how many there should be, `room` the answer's."""

    def take(total: int, wanted: int) -> list[Value]:
        if block is not None:
            if len(block) != size:
                raise UnreadableError("truncated")
            return read_block(output.datatype, block, total, wanted)
        data = output.data
        if data is UNSET or (isinstance(data, Raw) and not data):
            raise UnreadableError("no_outputs")
        return read_data(output.datatype, data, total, wanted)

    read_tensor(answer, output.name, output.shape, output.datatype, room, take, wanted)


def read_tensor(
    answer: Answer,
    name: str,
    shape: list[int],
    datatype: str,
    room: int,
    take: Callable[[int, int], list[Value]],
    wanted: Wanted | None = None,
) -> None:
    """Add one output to an answer of `room` bytes.

    `take` gives the first elements in row-major order: of `total` that there must be, as many as are `wanted`.
    """
    if len(shape) > MAX_RANK:
        raise UnreadableError("shape")
    rows = shape[0] if shape else 1
    width = prod(shape[1:])
    # Every element takes a byte at least: a shape that claims more than that is no count of predictions.
    if not (0 <= rows <= room and 0 <= rows * width <= room):
        raise UnreadableError("shape")
    answer.saw(rows)
    few = wanted.positions(name) if wanted is not None and width > MAX_WIDTH else ()
    if width > MAX_WIDTH and not few:
        raise UnreadableError("wide")
    if datatype not in ELEMENTS:
        raise UnreadableError("datatype")
    if width == 0 or rows == 0:
        return
    values = take(rows * width, min(rows, MAX_ROWS) * width)
    if few:
        answer.add_few(name, values, width, few)
    else:
        answer.add(name, values, width)

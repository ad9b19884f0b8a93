"""Open Inference Protocol v2 over gRPC: a `ModelInferResponse`, read from protobuf's wire format.

Only what counts is read: of each output its name, datatype, shape and elements, the latter from `contents` or from
`raw_output_contents`. A generated reader would bring protobuf's runtime (3 MB) into every pod.

Sources: github.com/kserve/open-inference-protocol, specification/protocol/open_inference_grpc.proto (field numbers);
protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final

from msgspec import Struct

from .elements import LABEL_BYTES, read_block
from .outputs import MAX_COLUMNS, MAX_ID, Answer, UnreadableError, Value, failure
from .v2 import read_tensor
from .wanted import Wanted

# Wire types.
_VARINT, _LONG, _BYTES, _SHORT = 0, 1, 2, 5
# Fields of ModelInferResponse and of InferOutputTensor.
_ID, _OUTPUTS, _RAW = 3, 5, 6
_NAME, _DATATYPE, _SHAPE, _CONTENTS = 1, 2, 3, 5
#: Fields of InferTensorContents: the datatypes that use it.
_ELEMENTS: Final = {
    "BOOL": 1, "INT8": 2, "INT16": 2, "INT32": 2, "INT64": 3, "UINT8": 4, "UINT16": 4, "UINT32": 4, "UINT64": 5,
    "FP32": 6, "FP64": 7, "BYTES": 8,
}  # fmt: skip
_PREFIX: Final = 5


class Tensor(Struct):
    """An InferOutputTensor of an answer or an InferInputTensor of a request: their fields have the same numbers."""

    name: str = ""
    datatype: str = ""
    shape: list[int] = []
    contents: memoryview | None = None


#: Tensors without contents, which follow: clients send the same name, datatype and shape each time.
_known: Final[dict[bytes, Tensor]] = {}
_MOST_KNOWN: Final = 1024
_SHORT_TENSOR: Final = 128
#: A value on the wire: a varint or fixed bits as a number, a length-delimited one as bytes.
_Wire = int | memoryview


def read(body: bytes, wanted: Wanted | None = None) -> Answer:
    """The outputs of the answer to a ModelInfer: one gRPC message, uncompressed. `wanted`: columns of wide ones."""
    try:
        message = read_frame(body)
        outputs, raw = read_tensors(message, _OUTPUTS, _RAW, MAX_COLUMNS)
    except UnreadableError as reason:
        return failure(str(reason))
    if not outputs:
        return failure("no_outputs")
    answer = Answer(id=read_id(message))
    for at, output in enumerate(outputs[:MAX_COLUMNS]):
        if answer.full:
            break
        try:
            take = _taker(output, raw[at] if raw else None)
            read_tensor(answer, output.name, output.shape, output.datatype, len(body), take, wanted)
        except UnreadableError as reason:
            answer.fail(str(reason))
        except IndexError:
            answer.fail("truncated")
    if len(outputs) > MAX_COLUMNS:
        answer.fail("too_many_outputs")
    return answer


def _taker(output: Tensor, block: memoryview | None) -> Callable[[int, int], list[Value]]:
    def take(total: int, wanted: int) -> list[Value]:
        if block is not None:
            return read_block(output.datatype, block, total, wanted)
        if output.contents is None:
            raise UnreadableError("no_outputs")
        return read_contents(output.datatype, output.contents, total, wanted)

    return take


def read_frame(body: bytes) -> memoryview:
    """The one message of a gRPC body. Raises UnreadableError."""
    if len(body) < _PREFIX or int.from_bytes(body[1:_PREFIX], "big") != len(body) - _PREFIX:
        raise UnreadableError("truncated")
    return memoryview(body)[_PREFIX:]


def read_id(message: memoryview) -> str:
    """The id of a request or an answer. Raises UnreadableError where the bytes are no message."""
    for number, value in _fields(message):
        if number == _ID and isinstance(value, memoryview) and len(value) <= MAX_ID:
            return str(value, "utf-8", "replace")
    return ""


def read_tensors(message: memoryview, tensor: int, block: int, most: int) -> tuple[list[Tensor], list[memoryview]]:
    """Tensors and raw contents, which are fields `tensor` and `block` of the message; one more than `most` of each.

    Raises UnreadableError where the bytes are no message.
    """
    tensors: list[Tensor] = []
    raw: list[memoryview] = []
    for number, value in _fields(message):
        if isinstance(value, int):
            continue
        if number == tensor and len(tensors) <= most:
            about = bytes(value) if len(value) <= _SHORT_TENSOR else b""
            known = _known.get(about)
            if known is None:
                known = _read_tensor(value)
                if about and known.contents is None:
                    if len(_known) >= _MOST_KNOWN:
                        _known.clear()
                    _known[about] = known
            tensors.append(known)
        elif number == block and len(raw) <= most:
            raw.append(value)
    return tensors, raw


def _read_tensor(message: memoryview) -> Tensor:
    output = Tensor()
    shape: list[int] = []
    for number, value in _fields(message):
        if number == _SHAPE and len(shape) <= 64:
            shape += (_signed(value),) if isinstance(value, int) else map(_signed, _varints(value, 65))
        elif isinstance(value, int):
            continue
        elif number == _NAME:
            output.name = str(value, "utf-8", "replace")
        elif number == _DATATYPE:
            output.datatype = str(value, "utf-8", "replace")
        elif number == _CONTENTS:
            output.contents = value
    output.shape = shape
    return output


def read_contents(datatype: str, message: memoryview, total: int, wanted: int) -> list[Value]:
    """The first `wanted` elements; UnreadableError where there are not `total` of them."""
    own = _ELEMENTS.get(datatype)
    values: list[Value] = []
    count = 0
    for number, value in _fields(message):
        if number != own:
            continue
        if datatype == "BYTES":
            count += 1
            if len(values) < wanted and isinstance(value, memoryview):
                values.append(str(value[:LABEL_BYTES], "utf-8", "replace"))
        elif isinstance(value, int):
            count += 1
            values.append(_element(datatype, value))
        elif datatype in ("FP32", "FP64"):
            code, size = ("f", 4) if datatype == "FP32" else ("d", 8)
            here = len(value) // size
            count += here
            values += struct.unpack_from(f"<{min(here, wanted)}{code}", value)
        else:
            numbers = list(_varints(value, total))
            count += len(numbers)
            values += (_element(datatype, number) for number in numbers)
    if count != total or len(values) < wanted:
        raise UnreadableError("shape")
    return values[:wanted]


def _element(datatype: str, bits: int) -> Value:
    if datatype == "FP32":
        return float(struct.unpack("<f", bits.to_bytes(4, "little"))[0])
    if datatype == "FP64":
        return float(struct.unpack("<d", bits.to_bytes(8, "little"))[0])
    if datatype == "BOOL":
        return bool(bits)
    return _signed(bits) if datatype.startswith("INT") else bits


def _signed(bits: int) -> int:
    """Negative numbers are ten bytes long: two's complement of 64 bits."""
    return bits - (1 << 64) if bits >> 63 else bits


def _varints(block: memoryview, most: int) -> Iterator[int]:
    """A packed list; one more than `most` tells that there are too many."""
    at = 0
    for _ in range(most + 1):
        if at >= len(block):
            return
        number, at = _varint(block, at)
        yield number


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise UnreadableError("truncated")
        byte = message[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7


def _fields(message: memoryview) -> Iterator[tuple[int, _Wire]]:
    """The fields of a message in their order. Raises UnreadableError where it is none."""
    at, end = 0, len(message)
    while at < end:
        # Nearly all varints here are one byte long: a call for each would be half of the time.
        tag = message[at]
        at += 1
        if tag > 127:
            tag, at = _varint(message, at - 1)
        kind = tag & 7
        value: _Wire
        if kind == _VARINT:
            value, at = _varint(message, at)
        else:
            if kind == _BYTES:
                if at >= end:
                    raise UnreadableError("truncated")
                size = message[at]
                at += 1
                if size > 127:
                    size, at = _varint(message, at - 1)
            elif kind in (_LONG, _SHORT):
                size = 8 if kind == _LONG else 4
            else:
                raise UnreadableError("truncated")
            if size > end - at:
                raise UnreadableError("truncated")
            piece = message[at : at + size]
            at += size
            value = piece if kind == _BYTES else int.from_bytes(piece, "little")
        yield tag >> 3, value

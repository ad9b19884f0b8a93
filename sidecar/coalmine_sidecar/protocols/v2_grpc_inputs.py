"""The columns that are wanted of a ModelInferRequest. See v2_grpc, which reads its answer."""

from __future__ import annotations

from typing import Final

from .outputs import MAX_ROWS, UnreadableError
from .tensors import ONES, add_block, add_elements, measure, single_number
from .v2_grpc import Tensor, read_contents, read_frame, read_tensors
from .wanted import Asked, Wanted

# Fields of ModelInferRequest.
_INPUTS: Final = 5
_RAW: Final = 7
#: Tensors that are looked at: each takes microseconds.
_MAX_TENSORS: Final = 512


def read_message(body: bytes, wanted: Wanted, asked: Asked) -> None:
    """One gRPC message, uncompressed. Raises UnreadableError."""
    tensors, raw = tensors_of(body)
    whole = wanted.asks.get("", ()) if len(tensors) == 1 else ()
    for at, tensor in enumerate(tensors):
        asks = wanted.asks.get(tensor.name, ()) + whole
        if not asks and (asked.seen or len(tensors) > 1):
            continue
        if raw and at >= len(raw):
            asked.fail("truncated")
            continue
        if raw and tensor.shape in ONES and len(asks) == 1 and not asks[0][1]:
            one = single_number(tensor.datatype, raw[at])
            if one is not None:
                asked.saw(1)
                asked.columns[asks[0][0]] = one
                continue
        try:
            if raw:
                add_block(tensor.shape, tensor.datatype, raw[at], len(body), asks, asked)
            else:
                _add_contents(tensor, len(body), asks, asked)
        except UnreadableError as reason:
            asked.fail(str(reason))
    if not asked.seen and tensors and tensors[0].shape and 0 <= tensors[0].shape[0] <= len(body):
        asked.saw(tensors[0].shape[0])


def tensors_of(body: bytes) -> tuple[list[Tensor], list[memoryview]]:
    """All tensors of the message, and their raw contents if they have such. Raises UnreadableError."""
    return read_tensors(read_frame(body), _INPUTS, _RAW, _MAX_TENSORS)


def _add_contents(tensor: Tensor, room: int, asks: tuple[tuple[str, int | None], ...], asked: Asked) -> None:
    rows, width = measure(tensor.shape, room, asks)
    if tensor.contents is None:
        raise UnreadableError("truncated")
    elements = read_contents(tensor.datatype, tensor.contents, rows * width, min(rows, MAX_ROWS) * width)
    asked.saw(rows)
    if elements:
        add_elements(elements, rows, width, asks, asked)

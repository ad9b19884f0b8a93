"""JSON as models write it: strict, or with the NaN and Infinity that Python's and TensorFlow's writers add to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import msgspec

#: The reader of NaN is slow; beyond this many bytes it would hold up requests.
MAX_LENIENT: Final = 256 << 10

_decoder: Final = msgspec.json.Decoder()
_decode = _decoder.decode


def read_json(body: bytes) -> Any:
    """The JSON value; NaN and Infinity are what they are called. Raises ValueError where there is none."""
    try:
        return _decode(body)
    except (ValueError, RecursionError):
        return _lenient(body, float)


def read_lines(body: bytes) -> list[Any]:
    """JSON lines: a value of each. Raises ValueError where one is none."""
    try:
        return _decoder.decode_lines(body)
    except (ValueError, RecursionError):
        lines = [line for line in body.split(b"\n") if line.strip()]
        return list(_lenient(b"[%b]" % b",".join(lines), float))


def strict_json(body: bytes) -> bytes:
    """The same document with null for NaN and Infinity. Raises ValueError where these are not what is wrong with it."""
    try:
        return msgspec.json.encode(_lenient(body, lambda _: None))
    except (RecursionError, OverflowError) as error:
        raise ValueError("nested too deep or a number out of range") from error


def _lenient(body: bytes, constant: Callable[[str], float | None]) -> Any:
    """`constant`: what NaN, Infinity or -Infinity becomes."""
    if len(body) > MAX_LENIENT or (b"NaN" not in body and b"Infinity" not in body):
        raise ValueError("no JSON")
    try:
        return json.loads(body, parse_constant=constant)
    except (RecursionError, OverflowError) as error:
        raise ValueError("nested too deep or a number out of range") from error

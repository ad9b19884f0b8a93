"""JSON as models write it: strict, or with the NaN and Infinity that Python's and TensorFlow's writers add to it."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

#: The reader of NaN is slow; beyond this many bytes it would hold up requests.
MAX_LENIENT: Final = 256 << 10

_decoder: Final = msgspec.json.Decoder()
_decode = _decoder.decode


def read_json(body: bytes) -> Any:
    """The JSON value, with None for NaN and Infinity. Raises ValueError where there is none."""
    try:
        return _decode(body)
    except (ValueError, RecursionError):
        return _decode(strict_json(body))


def read_lines(body: bytes) -> list[Any]:
    """JSON lines: a value of each. Raises ValueError where one is none."""
    try:
        return _decoder.decode_lines(body)
    except (ValueError, RecursionError):
        lines = [line for line in body.split(b"\n") if line.strip()]
        return list(_decode(strict_json(b"[%b]" % b",".join(lines))))


def strict_json(body: bytes) -> bytes:
    """The same document with null for NaN and Infinity. Raises ValueError where these are not what is wrong with it."""
    if len(body) > MAX_LENIENT or (b"NaN" not in body and b"Infinity" not in body):
        raise ValueError("no JSON")
    try:
        return msgspec.json.encode(json.loads(body, parse_constant=lambda _: None))
    except (RecursionError, OverflowError) as error:
        raise ValueError("nested too deep or a number out of range") from error

"""Frames of HTTP/2 (RFC 9113, sections 4 and 6): numbers, and bytes of those we send. Pure."""

from __future__ import annotations

from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
WITH_PRIORITY: Final = 0x20

# Error codes (section 7).
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0x0, 0x1, 0x2, 0x3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = 0x5, 0x6, 0x7, 0x8, 0x9
ENHANCE_YOUR_CALM: Final = 0xB

# Settings (section 6.5.2).
ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 0x2, 0x3, 0x4
MAX_HEADER_LIST_SIZE: Final = 0x6

#: The longest payload we take, and the shortest limit a peer may have.
FRAME_SIZE: Final = 16384
DEFAULT_WINDOW: Final = 65535
LARGEST: Final = (1 << 31) - 1

#: Length (8 and 16 bits), type, flags, stream.
HEAD: Final = Struct(">BHBBL")
HEAD_SIZE: Final = HEAD.size

_LONG: Final = Struct(">L")
_SETTING: Final = Struct(">HL")
_TWO_LONGS: Final = Struct(">LL")


class LinkError(Exception):
    """A peer that breaks the rules of the connection: it ends with this error code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    size = len(payload)
    return HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def data_head(size: int, flags: int, stream: int) -> bytes:
    return HEAD.pack(size >> 16, size & 0xFFFF, DATA, flags, stream)


def headers(block: bytes, flags: int, stream: int, limit: int) -> bytes:
    """HEADERS, with CONTINUATION where the block is longer than a peer's `limit` of a frame."""
    if len(block) <= limit:
        return frame(HEADERS, flags | END_HEADERS, stream, block)
    pieces = [block[at : at + limit] for at in range(0, len(block), limit)]
    last = len(pieces) - 1
    return b"".join(
        frame(CONTINUATION if at else HEADERS, (END_HEADERS if at == last else 0) | (0 if at else flags), stream, piece)
        for at, piece in enumerate(pieces)
    )


def rst_stream(stream: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream, _LONG.pack(code))


def window_update(stream: int, size: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, _LONG.pack(size))


def goaway(last: int, code: int, text: str = "") -> bytes:
    return frame(GOAWAY, 0, 0, _TWO_LONGS.pack(last, code) + text.encode())


def ping(payload: bytes, *, ack: bool = False) -> bytes:
    return frame(PING, ACK if ack else 0, 0, payload)


def settings(values: dict[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*pair) for pair in values.items()))


SETTINGS_ACK: Final = frame(SETTINGS, ACK, 0)


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """The settings of a frame in their order. Raises LinkError."""
    if len(payload) % 6:
        raise LinkError(FRAME_SIZE_ERROR, "SETTINGS of a broken length")
    return [_SETTING.unpack_from(payload, at) for at in range(0, len(payload), 6)]


def read_long(payload: bytes) -> int:
    """The one number of RST_STREAM and WINDOW_UPDATE. Raises LinkError."""
    if len(payload) != 4:
        raise LinkError(FRAME_SIZE_ERROR, "a frame of a broken length")
    return int(_LONG.unpack(payload)[0])


def read_goaway(payload: bytes) -> tuple[int, int]:
    """The last stream that was or will be served, and the error code. Raises LinkError."""
    if len(payload) < 8:
        raise LinkError(FRAME_SIZE_ERROR, "GOAWAY of a broken length")
    last, code = _TWO_LONGS.unpack_from(payload)
    return last & LARGEST, code


def unpadded(flags: int, payload: bytes) -> bytes:
    """A payload of DATA or HEADERS without its padding. Raises LinkError."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise LinkError(PROTOCOL_ERROR, "padding longer than its frame")
    return payload[1 : len(payload) - payload[0]]

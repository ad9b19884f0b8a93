"""gRPC's own words: status codes and what they count as, deadlines, answers in the sidecar's own name.

Source: github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md and doc/statuscodes.md; HTTP statuses as google.rpc.Code maps them.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote_from_bytes

from ...contract import OUTCOMES
from .fields import Fields, find

OK, CLIENT_ERROR, MODEL_ERROR, TIMEOUT, REJECTED, CANCELLED = range(len(OUTCOMES))

DEADLINE_EXCEEDED: Final = 4
RESOURCE_EXHAUSTED: Final = 8
INTERNAL: Final = 13
UNAVAILABLE: Final = 14

#: grpc-status -> the HTTP status it is counted as: metrics, alerts and `fallback.statusCodes` speak one language.
#: CANCELLED by a server whose client is there still is the server's failure. A method that the server does not have is
#: the client's mistake, as a 404 is.
_COUNTED: Final = (200, 500, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 404, 500, 503, 500, 401)
_OF_HTTP: Final = {400: INTERNAL, 408: DEADLINE_EXCEEDED, 413: RESOURCE_EXHAUSTED, 504: DEADLINE_EXCEEDED}
_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def counted(grpc_status: bytes | None, http_status: int) -> int:
    """The HTTP status an answer counts as. An answer of 200 without a grpc-status broke off, if it is gRPC's."""
    if grpc_status is None:
        return http_status
    code = int(grpc_status) if grpc_status.isdigit() and len(grpc_status) < 4 else -1
    return _COUNTED[code] if 0 <= code < len(_COUNTED) else 500


def outcome(status: int) -> int:
    if status < 400:
        return OK
    if status < 500:
        return CLIENT_ERROR
    return TIMEOUT if status == 504 else MODEL_ERROR


def is_grpc(fields: Fields) -> bool:
    """Whether a message is gRPC's, by its content-type."""
    return (find(fields, b"content-type") or b"").startswith(b"application/grpc")


def timeout_of(value: bytes | None) -> float | None:
    """Seconds of a grpc-timeout; None where there is none, or none that can be read."""
    text = (value or b"").decode("ascii", "replace")
    if not 2 <= len(text) <= 9 or not text[:-1].isdigit() or text[-1] not in _UNITS:
        return None
    return int(text[:-1]) * _UNITS[text[-1]]


def timeout_text(seconds: float) -> bytes:
    """A grpc-timeout, in milliseconds."""
    return b"%dm" % max(1, min(99_999_999, int(seconds * 1000)))


class MessageBound:
    """Watches the lengths that the messages of a stream announce (five bytes before each: a flag and its length)."""

    __slots__ = ("_head", "_left", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._head = b""
        self._left = 0

    def passed(self, data: bytes) -> bool:
        """Whether a message that begins in the next bytes of the stream is longer than the limit."""
        at = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
            else:
                step = min(5 - len(self._head), len(data) - at)
                self._head += data[at : at + step]
                if len(self._head) == 5:
                    self._left = int.from_bytes(self._head[1:], "big")
                    self._head = b""
                    if self._left > self._limit:
                        return True
            at += step
        return False


def error_fields(status: int, message: str, who: bytes) -> Fields:
    """A refusal of a gRPC call: a Trailers-Only answer. `errors.refusal_fields` has those of HTTP."""
    return [
        (b":status", b"200"),
        (b"content-type", b"application/grpc"),
        *error_trailers(status, message),
        (b"coalmine-error", who),
    ]


def error_trailers(status: int, message: str) -> Fields:
    """`status`: an HTTP status; 502, 503 and whatever else has no own word are UNAVAILABLE."""
    code = _OF_HTTP.get(status, UNAVAILABLE)
    text = quote_from_bytes(message.encode(), safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode()
    return [(b"grpc-status", b"%d" % code), (b"grpc-message", text)]

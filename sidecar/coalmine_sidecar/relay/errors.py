"""What the sidecar answers in its own name."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from httptools import HttpParserCallbackError, HttpParserError

from ..protocols.refusal import error_body
from ..telemetry.refusals import reason_of

#: Who a `coalmine-error` header blames: the sidecar refused; what stands behind it did not answer; or it did not, and
#: that nobody else was asked is the sidecar's doing.
SIDECAR: Final = b"sidecar"
UPSTREAM: Final = b"upstream"
BOTH: Final = b"both"

_PHRASES: Final = {status.value: status.phrase.encode() for status in HTTPStatus}


class Refusal(Exception):  # noqa: N818 - a request is refused; nothing of ours went wrong
    """A request the sidecar does not relay. The connection ends after the answer: what follows can't be trusted."""

    def __init__(self, status: int, message: str, why: str = "") -> None:
        """`why`: a word of telemetry.refusals, for a status with several reasons."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.why = why or reason_of(status)


def refusal_of(error: HttpParserError) -> Refusal:
    """What a parser's error means: a Refusal raised in one of our callbacks, or bytes that are not HTTP.

    Any other exception of a callback is a fault of ours and goes on.
    """
    cause = error.__context__
    if isinstance(cause, Refusal):
        # It is kept with its request, which the frames it came through hold: a circle.
        return cause.with_traceback(None)
    if isinstance(error, HttpParserCallbackError) and cause is not None:
        raise cause
    return Refusal(400, f"malformed request: {error}")


def phrase_of(status: int) -> bytes:
    """The standard's reason phrase."""
    return _PHRASES.get(status, b"Unknown")


def status_line(status: int, phrase: bytes) -> bytes:
    """`HTTP/1.1 200 OK` with its line end."""
    return b"HTTP/1.1 %d %s\r\n" % (status, phrase)


def refusal_fields(
    protocol: str, path: bytes, status: int, message: str, who: bytes, why: str
) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Every refusal of HTTP, whatever its version: header fields and the body, in the error shape of its protocol.

    `protocol` is contract.Observe.protocol, `path` the request's target, empty if it was not read.
    """
    body = error_body(protocol, path, status, message, why)
    return [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"coalmine-error", who),
    ], body


def error_answer(
    status: int,
    message: str,
    who: bytes,
    *,
    close: bool,
    bodyless: bool = False,
    extra: bytes = b"",
    protocol: str = "auto",
    path: bytes = b"",
    why: str = "",
) -> bytes:
    """A refusal as bytes of HTTP/1.1; `extra` are complete header lines."""
    fields, body = refusal_fields(protocol, path, status, message, who, why)
    return b"".join((
        status_line(status, phrase_of(status)),
        *(b"%b: %b\r\n" % field for field in fields),
        extra,
        b"connection: close\r\n" if close else b"",
        b"\r\n",
        b"" if bodyless else body,
    ))  # fmt: skip

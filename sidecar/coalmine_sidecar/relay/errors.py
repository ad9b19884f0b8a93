"""What the sidecar answers in its own name."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import msgspec
from httptools import HttpParserCallbackError, HttpParserError

#: Who a `coalmine-error` header blames: the sidecar refused, or what stands behind it did not answer.
SIDECAR: Final = b"sidecar"
UPSTREAM: Final = b"upstream"

_PHRASES: Final = {status.value: status.phrase.encode() for status in HTTPStatus}


class Refusal(Exception):  # noqa: N818 - a request is refused; nothing of ours went wrong
    """A request the sidecar does not relay. The connection ends after the answer: what follows can't be trusted."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def refusal_of(error: HttpParserError) -> Refusal:
    """What a parser's error means: a Refusal raised in one of our callbacks, or bytes that are not HTTP.

    Any other exception of a callback is a fault of ours and goes on.
    """
    cause = error.__context__
    if isinstance(cause, Refusal):
        return cause
    if isinstance(error, HttpParserCallbackError) and cause is not None:
        raise cause
    return Refusal(400, f"malformed request: {error}")


def phrase_of(status: int) -> bytes:
    """The standard's reason phrase."""
    return _PHRASES.get(status, b"Unknown")


def status_line(status: int, phrase: bytes) -> bytes:
    """`HTTP/1.1 200 OK` with its line end."""
    return b"HTTP/1.1 %d %s\r\n" % (status, phrase)


def error_answer(
    status: int, message: str, blame: bytes, *, close: bool, bodyless: bool = False, extra: bytes = b""
) -> bytes:
    """A whole answer: one line of JSON, `{"error": message}`; `extra` are complete header lines."""
    body = msgspec.json.encode({"error": message}) + b"\n"
    return b"".join((
        status_line(status, phrase_of(status)),
        b"content-type: application/json\r\ncontent-length: %d\r\ncoalmine-error: %s\r\n" % (len(body), blame),
        extra,
        b"connection: close\r\n" if close else b"",
        b"\r\n",
        b"" if bodyless else body,
    ))  # fmt: skip

"""A parser that begins in the middle of a request: after a head that offered an upgrade nobody takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from httptools import HttpRequestParser

if TYPE_CHECKING:
    from .reading import RequestReader


class _Muted:
    """Passes a parser's calls on to a connection, but for the head that only sets the parser up."""

    def __init__(self, connection: RequestReader) -> None:
        self.muted = True
        self._connection = connection
        self.on_body = connection.on_body
        self.on_message_complete = connection.on_message_complete

    def on_url(self, url: bytes) -> None:
        if not self.muted:
            self._connection.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.muted:
            self._connection.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self.muted:
            self._connection.on_headers_complete()


def resumed_parser(connection: RequestReader, length: int | None) -> HttpRequestParser:
    """A parser that expects `length` bytes of body (None: chunks) and then further requests.

    llhttp can't be told so in words; a head of our own making says it.
    """
    muted = _Muted(connection)
    parser = HttpRequestParser(muted)
    framing = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
    parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n")
    muted.muted = False
    return parser

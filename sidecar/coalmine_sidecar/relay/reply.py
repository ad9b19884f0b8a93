"""An answer on its way to the client: its head and its framing, written anew, and a bounded copy for the observer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .heads import CHUNKED, CLOSE, CRLF, KEEP_ALIVE, LAST_CHUNK, first_line, without
from .trailers import last_chunk
from .upstream import Answer

if TYPE_CHECKING:
    from .front import AnswerFollower

_BODYLESS: Final = frozenset({204, 304})


class Reply:
    """`size` counts the body's bytes so far. `copy` is the body, or None where nobody is to read it when it is whole.

    `follower`: who reads it while it passes.
    """

    __slots__ = ("_chunked", "_copied", "copy", "follower", "size", "skipped", "status", "to_eof")

    def __init__(self, answer: Answer, copied: int) -> None:
        """`copied`: bytes of the body the observer wants at most; negative: none of this answer."""
        self.status = answer.status
        self.size = 0
        self._chunked = False
        #: Only the end of the client's connection ends the body.
        self.to_eof = False
        self._copied = copied
        self.copy: list[bytes] | None = None
        #: Why the observer, who wants the answer, does not get it: "" if he does.
        self.skipped = ""
        self.follower: AnswerFollower | None = None
        if copied >= 0:
            if answer.special is not None and answer.special.coded:
                self.skipped = "encoding"
            else:
                self.copy = []

    def open(self, answer: Answer, method: bytes, out: list[bytes], *, line: bytes, http10: bool, close: bool) -> bool:
        """Append the head to `out`; `line` is one of our own. Whether the connection has to end after the answer."""
        status = answer.status
        lines = answer.lines
        if method == b"HEAD" or status in _BODYLESS:
            if status == 204:
                lines = without(lines, {b"content-length"})
        elif answer.length is None:
            if http10:
                close = self.to_eof = True
            else:
                self._chunked = True
        if answer.head:
            out.append(answer.head)
        else:
            out.append(first_line(status, answer.phrase))
            out += lines
        out.append(line)
        if self._chunked:
            out.append(CHUNKED)
        if close:
            out.append(CLOSE)
        elif http10:
            out.append(KEEP_ALIVE)
        out.append(CRLF)
        return close

    def follow(self, follower: AnswerFollower) -> None:
        self.follower = follower
        self.copy = None

    def add(self, answer: Answer, out: list[bytes]) -> None:
        """Append what came of the body since the last time, and the end of the body if it came."""
        body = answer.body
        if body:
            answer.body = []
            size = len(body[0]) if len(body) == 1 else sum(map(len, body))
            self.size += size
            if self.copy is not None:
                self.copy += body
                if self.size > self._copied:
                    self.copy = None
                    self.skipped = "size"
            if self._chunked:
                out.append(b"%x\r\n" % size)
                out += body
                out.append(CRLF)
            else:
                out += body
        if answer.complete and self._chunked:
            trailers = answer.special.trailers if answer.special is not None else None
            out.append(last_chunk(trailers) if trailers else LAST_CHUNK)

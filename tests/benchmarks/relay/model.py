"""A model on raw sockets: reads bodies of any length, answers in one piece or token by token.

    python -m tests.benchmarks.relay.model PORT

`POST /stream` is answered with server-sent events, TOKENS of them, each as its own write and with the time (monotonic
nanoseconds) at which it was written; anything else with ANSWER once the whole body came. nginx, which the other cases
have for a model, does neither: it answers before it has read a body.
"""

from __future__ import annotations

import asyncio
import random
import re
import sys
import time

import uvloop

from .messages import ANSWER

TOKENS = 200
#: Seconds between two tokens: 50 a second and stream, as one user's share of a busy GPU.
PACE = 0.02

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n%b\r\n\r\n"
_WHOLE = _HEAD % (b"application/json", b"content-length: %d" % len(ANSWER)) + ANSWER
_STREAM = _HEAD % (b"text/event-stream", b"transfer-encoding: chunked")


class Model(asyncio.BufferedProtocol):
    """One connection. Of a body only the length is looked at; chunks are not taken."""

    def __init__(self) -> None:
        self._buffer = bytearray(1 << 18)
        self._head = b""
        self._missing = 0
        self._stream = False
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # uvloop's transports are no subclasses

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._missing:
            self._missing -= nbytes
        else:
            self._head += self._buffer[:nbytes]
            head, end, body = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            length = _LENGTH.search(head)
            self._missing = (int(length[1]) if length else 0) - len(body)
            self._stream = b" /stream " in head
            self._head = b""
        if self._missing <= 0:
            self._missing = 0
            self._answer()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    def _answer(self) -> None:
        if self._stream:
            self._task = asyncio.get_running_loop().create_task(self._tokens())
        else:
            self._transport.write(_WHOLE)

    async def _tokens(self) -> None:
        self._transport.write(_STREAM)
        # Streams in step would come in bursts, and a burst's last token waits for all the others.
        at = time.monotonic() + random.random() * PACE
        for _ in range(TOKENS):
            at += PACE
            await asyncio.sleep(at - time.monotonic())
            token = b"data: %d\n\n" % time.monotonic_ns()
            self._transport.write(b"%x\r\n%b\r\n" % (len(token), token))
        self._transport.write(b"0\r\n\r\n")


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Model, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))

"""Broken bytes in any pieces, on both sides at once: no exception escapes, no connection and no request is left over.

The corpus's cases are cut, joined, repeated and damaged. COALMINE_FUZZ_EXAMPLES makes it run for longer.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Any

import uvloop
from hpack import Encoder
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.relay.corpus import ANSWERS, NEXT, REQUESTS
from tests.relay.grpc_client import REQUEST as GRPC
from tests.relay.harness import (
    OPEN,
    Client,
    Pod,
    Upstream,
    answer,
    close_all,
    eventually,
    get,
    listen_raw,
    revision,
    routing,
)

from coalmine_sidecar.relay.h2 import frames

EXAMPLES = int(os.environ.get("COALMINE_FUZZ_EXAMPLES", "150"))
SHORT = 2000
LIMITS = {"replayBytes": 16, "headBytes": 2048, "bodyBytes": 4096}

WELL = [get("/1"), NEXT.encode(), b"POST / HTTP/1.1\r\nHost: m\r\nContent-Length: 40\r\n\r\n" + b"x" * 40]
SAID = [answer(b"abc"), b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nbytes"]
PIECES = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b":",
    b"0\r\n\r\n",
    b"5\r\nabcde\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"\x81\x05",
]


#: No table of fields is kept on either side, so that any of these may come in any order.
ENCODER = Encoder()
ENCODER.header_table_size = 0
CALL = frames.headers(ENCODER.encode(GRPC), 0, 1, frames.FRAME_SIZE)
MESSAGE = frames.frame(frames.DATA, 0, 1, b"\0\0\0\0\3abc")
OPENING = frames.PREFACE + frames.settings({})
#: Of both sides.
FRAMES = [
    MESSAGE,
    frames.frame(frames.DATA, frames.END_STREAM | frames.PADDED, 1, b"\2\0\0\0\0\0\0\0"),
    frames.rst_stream(1, frames.CANCEL),
    frames.window_update(0, 1),
    frames.window_update(1, frames.LARGEST),
    frames.ping(b"12345678"),
    frames.ping(b"12345678", ack=True),
    frames.goaway(1, frames.NO_ERROR),
    frames.settings({frames.INITIAL_WINDOW_SIZE: 1, frames.MAX_CONCURRENT_STREAMS: 1}),
    frames.SETTINGS_ACK,
    frames.frame(frames.PRIORITY, 0, 1, bytes(5)),
    frames.frame(frames.PUSH_PROMISE, frames.END_HEADERS, 1, bytes(5)),
    frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, b"\x88"),
]
CALLS = [
    CALL + MESSAGE,
    CALL + frames.frame(frames.DATA, frames.END_STREAM, 1, bytes(5)),
    frames.headers(ENCODER.encode(GRPC), frames.END_STREAM, 3, frames.FRAME_SIZE),
    *FRAMES,
]
HEARD = [
    frames.headers(ENCODER.encode([(":status", "200"), ("content-type", "application/grpc")]), 0, 1, frames.FRAME_SIZE),
    frames.headers(ENCODER.encode([("grpc-status", "0")]), frames.END_STREAM, 1, frames.FRAME_SIZE),
    frames.headers(ENCODER.encode([(":status", "503")]), frames.END_STREAM, 1, frames.FRAME_SIZE),
    *FRAMES,
]


@st.composite
def damaged(draw: st.DrawFn, whole: list[bytes], most: int = 3) -> list[bytes]:
    """Some of the whole ones, damaged in a few places, in pieces."""
    data = b"".join(draw(st.lists(st.sampled_from(whole), min_size=1, max_size=most)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        gone = draw(st.integers(0, 4))
        data = data[:at] + draw(st.sampled_from(PIECES) | st.binary(max_size=3)) + data[at + gone :]
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=4)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


REQUEST = damaged(WELL + [case.data for case in REQUESTS if len(case.data) < SHORT])
ANSWER = damaged(SAID + [case.data for case in ANSWERS if len(case.data) < SHORT])


class Bench:
    """One relay for all examples, so that what one of them leaves behind is met by the next."""

    def __init__(self, *, falls_back: bool) -> None:
        """`falls_back`: to a model that answers well, over HTTP/1.1; else to one that is as broken."""
        self.falls_back = falls_back
        self.errors: list[dict[str, Any]] = []
        self.said: list[bytes] = []
        self.half_close = False
        self.other = Upstream()
        self.pod: Pod

    async def start(self) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.errors.append(context))
        await self.other.start()
        document = routing(
            revision("a", 100),
            revision("b", 0, self.other.port if self.falls_back else await listen_raw(self.tell)),
            fallback={"chain": ["b"]},
            limits=LIMITS,
            concurrency={"limit": 2, "queueDepth": 2},
            circuitBreaker={"consecutiveFailures": 0, "successRate": 1, "minRequests": 1000},
        )
        self.pod = Pod(await listen_raw(self.tell), document)
        await self.pod.start()

    async def tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # uvloop says RuntimeError where the connection is gone.
        with suppress(RuntimeError):
            while await reader.read(65536):
                for piece in self.said:
                    writer.write(piece)
                    await asyncio.sleep(0)
                if self.half_close:
                    writer.write_eof()
                    await reader.read(-1)
                    break
        writer.transport.abort()

    async def try_out(self, sent: list[bytes], *, half_close: bool) -> None:
        client = await Client.connect(self.pod.ingress)
        with suppress(ConnectionError):
            for piece in sent:
                await client.send(piece)
                await asyncio.sleep(0)
            if half_close:
                client.writer.write_eof()
            with suppress(TimeoutError):
                await asyncio.wait_for(client.reader.read(65536), 0.02)
        client.writer.transport.abort()
        OPEN.remove(client.writer)
        await eventually(lambda: not self.pod.relay.ingress.connections, 5)
        await eventually(lambda: all(e.outstanding == 0 for e in self.pod.endpoints()), 5)
        for name in ("a", "b"):
            assert self.pod.series(name).in_flight == 0
        assert not self.errors, self.errors

    async def probe(self) -> None:
        """Whoever comes next is served, and by nothing that is left of those before."""
        self.said, self.half_close = [answer(b"probe")], False
        assert (await self.pod.ask(get("/probe"))).body == b"probe"
        await eventually(lambda: not self.pod.relay.ingress.connections, 5)

    async def stop(self) -> None:
        await self.pod.stop()
        await close_all()
        await self.other.stop()
        assert not self.errors, self.errors


def test_whatever_is_sent_and_whatever_is_answered():
    _try_out(Bench(falls_back=True), REQUEST, ANSWER)


def test_the_same_in_frames_of_http2():
    calls, answers = (damaged(whole, 8) for whole in (CALLS, HEARD))
    _try_out(
        Bench(falls_back=False),
        calls.map(lambda pieces: [OPENING, *pieces]),
        answers.map(lambda pieces: [frames.settings({}), *pieces]),
    )


def _try_out(bench: Bench, sending: st.SearchStrategy[list[bytes]], answering: st.SearchStrategy[list[bytes]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bench.start())

        # Not shrunk: what is left over after one failure would fail every smaller example.
        @given(sending, answering, st.booleans(), st.booleans())
        @settings(
            max_examples=EXAMPLES, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow]
        )
        def example(sent: list[bytes], said: list[bytes], half_close: bool, half_closed: bool) -> None:
            bench.said, bench.half_close = said, half_closed
            runner.run(asyncio.wait_for(bench.try_out(sent, half_close=half_close), 30))
            runner.run(asyncio.wait_for(bench.probe(), 30))

        try:
            example()
        finally:
            runner.run(bench.stop())

"""Connections and requests that ended are gone at once: a garbage collector that seldom runs has nothing to find."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import pytest
from tests.relay.harness import (
    Handler,
    Pod,
    Request,
    Upstream,
    post,
    reset,
    revision,
    routing,
    says,
    well,
)

from coalmine_sidecar.relay.h2.frames import PREFACE


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def of_the_relay() -> Counter[str]:
    kinds = (type(one) for one in gc.get_objects())
    ours = ("coalmine_sidecar", "httptools")
    return Counter(kind.__name__ for kind in kinds if str(kind.__module__).startswith(ours))


#: Connections kept open for what comes next, and whatever else there is one or two of.
FEW = 3
MANY = 20


def ends(data: bytes) -> Handler:
    async def handle(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        writer.close()

    return handle


ANSWERS = {
    "well": well,
    "on a connection of its own": says(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi"),
    "to the end of the connection": ends(b"HTTP/1.1 200 OK\r\n\r\nhi"),
    "not at all": reset,
    "with another protocol": ends(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"),
}
PLAIN = post(b'{"inputs":[]}')
REQUESTS = {
    "plain": PLAIN,
    "with an upgrade": b"GET / HTTP/1.1\r\nhost: m\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    "of HTTP/2": PREFACE + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]),
    "broken": b"GET / HTTP/1.1\r\nhost: m\r\nhost: n\r\n\r\n",
}


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("answer", ANSWERS)
async def test_a_connection_that_ended_leaves_nothing(
    start_pod: Callable[..., Awaitable[Pod]], model: Upstream, uncollected: None, request_: str, answer: str
) -> None:
    pod = await start_pod(model.port, routing(revision("a", 100)))
    model.handle = ANSWERS[answer]

    async def ask() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", pod.ingress)
        writer.write(REQUESTS[request_])
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reader.read(100), 5)
        writer.transport.abort()
        await asyncio.sleep(0.01)

    await ask()
    before = of_the_relay()
    for _ in range(MANY):
        await ask()
    more = of_the_relay() - before
    assert max(more.values(), default=0) <= FEW, more

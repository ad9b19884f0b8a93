"""What a request costs, in instructions and not in time: a needless piece of work on the hot path fails here."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from tests.relay.cost import Cost, Counting, settled
from tests.relay.harness import Client, Pod, Request, Upstream, close_all, post, revision, routing, well

from coalmine_sidecar.relay.heads import find
from coalmine_sidecar.relay.table import Table

pytestmark = [
    pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="bytecodes are counted as Python 3.11 has them"),
    pytest.mark.looks_inside,
]

#: Bytecodes and calls of C functions for one request, one token of a stream, one request on a connection of its own.
#: They are what was measured; who makes the relay do more, and means it, puts the new figures here, and who makes it
#: do less as well.
COSTS = {"request": (2368, 61.5), "token": (256.2, 7.8), "connection": (3179, 78.6)}
#: Over that it fails. What chance does to these figures is a twentieth of this.
TOLERANCE = 1.01
#: A deck of routing holds 100 requests: after as many each revision had its share.
REQUESTS = 100
TOKENS = 100

_REQUEST = post(b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP64","data":[0.1,0.2]}]}')


async def tokens(_: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(TOKENS):
        await asyncio.sleep(0.0005)
        writer.write(b"a\r\ndata: 12\n\n\r\n")
    writer.write(b"0\r\n\r\n")


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    model = Upstream()
    await model.start()
    yield model
    await model.stop()


@pytest.fixture
async def pod(upstream: Upstream) -> AsyncIterator[Pod]:
    """Everything on: three revisions, the fallback armed, every answer read and binned."""
    port = upstream.port
    document = routing(
        revision("a", 60),
        revision("b", 30, port, track="canary"),
        revision("c", 10, port, track="fallback"),
        fallback={"chain": ["a"]},
        observe={"thresholds": [0.1]},
    )
    pod = Pod(port, document)
    await pod.start()
    yield pod
    await close_all()
    await pod.stop()


async def cost_of_requests(pod: Pod, upstream: Upstream) -> Cost:
    upstream.handle = well
    client = await Client.connect(pod.ingress)

    async def batch() -> None:
        for _ in range(REQUESTS):
            await client.ask(_REQUEST)
        await settled(pod)

    return await _counted(batch) / REQUESTS


async def cost_of_tokens(pod: Pod, upstream: Upstream) -> Cost:
    upstream.handle = tokens

    async def stream() -> None:
        await pod.ask(post())

    return await _counted(stream) / TOKENS


async def cost_of_connections(pod: Pod, upstream: Upstream) -> Cost:
    upstream.handle = well

    async def batch() -> None:
        for _ in range(REQUESTS):
            await pod.ask(_REQUEST)
        await settled(pod)

    return await _counted(batch) / REQUESTS


async def _counted(work: Callable[[], Awaitable[None]]) -> Cost:
    """Once to open connections and fill what is remembered, then the least of three times."""
    await work()
    costs = []
    for _ in range(3):
        with Counting() as cost:
            await work()
        costs.append(cost)
    return min(costs, key=lambda cost: cost.opcodes)


def check(name: str, cost: Cost) -> None:
    opcodes, calls = COSTS[name]
    print(f"{name}: {cost}")
    assert cost.opcodes <= opcodes * TOLERANCE, f"a {name} takes {cost.opcodes:.0f} bytecodes, it took {opcodes}"
    assert cost.calls <= calls * TOLERANCE, f"a {name} calls {cost.calls:.1f} functions of C, it called {calls}"


async def test_a_request_takes_no_more_instructions_than_it_took(pod: Pod, upstream: Upstream) -> None:
    cost = await cost_of_requests(pod, upstream)
    check("request", cost)
    # The client's, the relay's to the model, the model's, the relay's to the client.
    assert round(cost.writes, 1) == 4


async def test_nor_does_a_token_of_a_stream(pod: Pod, upstream: Upstream) -> None:
    check("token", await cost_of_tokens(pod, upstream))


async def test_nor_does_a_request_on_a_connection_of_its_own(pod: Pod, upstream: Upstream) -> None:
    check("connection", await cost_of_connections(pod, upstream))


async def test_one_needless_look_through_a_head_is_too_much(
    pod: Pod, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    route = Table.route

    def wasteful(self: Table, exchange: object) -> object:
        find(exchange.lines, b"x-debug")  # type: ignore[attr-defined] # an Exchange
        return route(self, exchange)  # type: ignore[arg-type] # an Exchange

    monkeypatch.setattr(Table, "route", wasteful)
    with pytest.raises(AssertionError, match="bytecodes"):
        check("request", await cost_of_requests(pod, upstream))

"""Connections that leave HTTP: WebSockets between real programs, and tunnels of bytes that end in every way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import WSMsgType, web
from tests.relay.harness import (
    Client,
    Request,
    answer,
    eventually,
    free_port,
    get,
    listen_raw,
    post,
    reset,
    revision,
    routing,
    says,
    without_identity,
)

from coalmine_sidecar.relay.tunnel import Tunnel
from coalmine_sidecar.relay.tunnel import reset as reset_transport

ALONE = routing(revision("a", 100))
OFFER = "Connection: Upgrade\r\nUpgrade: echo/1\r\n"
TAKEN = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\nX-Kept: 1\r\n\r\n"


@asynccontextmanager
async def websockets(handle) -> AsyncIterator[int]:
    """aiohttp's server with a WebSocket at /ws: its port."""
    app = web.Application()
    app.router.add_get("/ws", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def echo(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(protocols=("v2.infer",), max_msg_size=0)
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


def tunnels(pod) -> list[Tunnel]:
    return [c for front in (pod.relay.ingress, pod.relay.local) for c in front.connections if isinstance(c, Tunnel)]


async def test_a_websocket_from_end_to_end(start_pod):
    async with websockets(echo) as port, aiohttp.ClientSession() as session:
        pod = await start_pod(port, ALONE)
        url = f"ws://127.0.0.1:{pod.ingress}/ws"
        async with session.ws_connect(url, protocols=("v2.infer",), max_msg_size=0) as socket:
            assert socket.protocol == "v2.infer"
            for text in ("a", "b" * 100_000):
                await socket.send_str(text)
                assert await socket.receive_str() == text
            await socket.send_bytes(b"\0\xff" * 700_000)
            assert await socket.receive_bytes() == b"\0\xff" * 700_000
            await socket.ping()
            (tunnel,) = tunnels(pod)
            assert (tunnel.busy, pod.relay.ingress.busy) == (True, 1)
            assert (pod.series().in_flight, pod.outcomes()) == (1, {})
            assert await socket.close() is True
        await eventually(lambda: pod.outcomes() == {"ok": 1})
        assert pod.series().requests[0, 101] == 1
        cell = pod.telemetry.epoch("a")
        assert (cell.requests, cell.errors) == (1, 0)
        assert pod.relay.ingress.connections == set()
        assert pod.series().request_bytes.total > 1_500_000
        assert pod.series().response_bytes.total > 1_500_000


async def test_a_websocket_through_two_sidecars_names_its_revision(start_pod):
    async with websockets(echo) as port, aiohttp.ClientSession() as session:
        behind = await start_pod(port, ALONE)
        pod = await start_pod(free_port(), routing(revision("a", 100, behind.local)), revision="z")
        async with session.ws_connect(f"ws://127.0.0.1:{pod.ingress}/ws") as socket:
            assert socket._response.headers["coalmine-revision"] == "a"
            await socket.send_str("through both")
            assert await socket.receive_str() == "through both"
        await eventually(lambda: pod.outcomes() == {"ok": 1})
        await eventually(lambda: behind.outcomes("a", "local") == {"ok": 1})


async def test_a_server_that_ends_a_websocket(start_pod):
    async def leave(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close(code=1001, message=b"later")
        return socket

    async with websockets(leave) as port, aiohttp.ClientSession() as session:
        pod = await start_pod(port, ALONE)
        async with session.ws_connect(f"ws://127.0.0.1:{pod.ingress}/ws") as socket:
            message = await socket.receive()
            assert (message.type, socket.close_code) == (WSMsgType.CLOSE, 1001)
        await eventually(lambda: pod.outcomes() == {"ok": 1})


async def tunnel_to(handle, start_pod, document=ALONE, ahead: bytes = b""):
    """A relay before a model that takes every upgrade and then does `handle`; a client inside the tunnel."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(without_identity(await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(TAKEN)
        await handle(reader, writer)

    seen: list[str] = []
    port = await listen_raw(take)
    pod = await start_pod(port, document)
    client = await Client.connect(pod.ingress)
    await client.send(get("/tunnel", OFFER) + ahead)
    head = without_identity(await client.reader.readuntil(b"\r\n\r\n")).decode()
    return pod, client, seen[0], head


async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data.upper())
        await writer.drain()
    writer.write(b"bye")
    writer.write_eof()


async def test_heads_of_an_upgrade(start_pod):
    _, client, seen, head = await tunnel_to(shout, start_pod)
    assert seen == "GET /tunnel HTTP/1.1\r\nHost: m\r\nconnection: upgrade\r\nupgrade: echo/1\r\n\r\n"
    assert head == (
        "HTTP/1.1 101 Switching Protocols\r\nX-Kept: 1\r\ncoalmine-revision: a\r\n"
        "connection: upgrade\r\nupgrade: echo/1\r\n\r\n"
    )
    await client.close()


async def test_the_client_ends_its_half_and_reads_on(start_pod):
    pod, client, _, _ = await tunnel_to(shout, start_pod)
    await client.send(b"abc")
    assert await client.reader.readexactly(3) == b"ABC"
    client.writer.write_eof()
    assert await client.rest() == b"bye"
    await client.close()
    await eventually(lambda: pod.outcomes() == {"ok": 1})
    assert pod.series().request_bytes.total == 3
    assert pod.series().response_bytes.total == 6


async def test_the_model_ends_its_half_and_reads_on(start_pod):
    heard = asyncio.get_running_loop().create_future()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"I only listen")
        writer.write_eof()
        heard.set_result(await reader.read(-1))
        writer.close()

    pod, client, _, _ = await tunnel_to(listen, start_pod)
    assert await client.rest() == b"I only listen"
    await client.send(b"still")
    await client.send(b" heard")
    client.writer.write_eof()
    assert await asyncio.wait_for(heard, 5) == b"still heard"
    await eventually(lambda: pod.outcomes() == {"ok": 1})
    await client.close()


async def test_bytes_sent_ahead_of_the_answer_are_of_the_new_protocol(start_pod):
    pod, client, seen, _ = await tunnel_to(shout, start_pod, ahead=b"GET /smuggled HTTP/1.1\r\nHost: m\r\n\r\n")
    assert "smuggled" not in seen
    client.writer.write_eof()
    assert await client.rest() == b"GET /SMUGGLED HTTP/1.1\r\nHOST: M\r\n\r\nbye"
    await eventually(lambda: pod.outcomes() == {"ok": 1})


async def test_bytes_behind_an_answer_that_takes_the_upgrade_arrive(start_pod):
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await shout(reader, writer)

    _, client, _, _ = await tunnel_to(greet, start_pod)
    assert await client.reader.readexactly(5) == b"hello"
    await client.close()


@pytest.mark.parametrize("pieces", [1, 50])
async def test_an_upgrade_that_is_declined_leaves_an_http_connection(model, start_pod, pieces):
    """RFC 9110 7.8: a server may ignore it; what was sent ahead are requests."""

    async def reply(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)
        writer.write(answer(request.target.encode() + request.body))

    model.handle = reply
    pod = await start_pod(model.port, ALONE)
    client = await Client.connect(pod.ingress)
    sent = get("/1", OFFER) + post(b"body", "/2") + get("/3", OFFER) + get("/4")
    for at in range(pieces):
        size = -(-len(sent) // pieces)
        await client.send(sent[at * size :][:size])
        await asyncio.sleep(0.001)
    assert [(await client.answer()).body for _ in range(4)] == [b"/1", b"/2body", b"/3", b"/4"]
    assert [r.header("upgrade") for r in model.requests] == ["echo/1", None, "echo/1", None]
    await client.close()
    assert pod.outcomes() == {"ok": 4}


async def test_declined_with_426_and_garbage_behind_it(model, start_pod):
    model.handle = says(answer(b"no", status="426 Upgrade Required", headers="Upgrade: other\r\n"))
    pod = await start_pod(model.port, ALONE)
    client = await Client.connect(pod.ingress)
    await client.send(get("/1", OFFER) + b"\x81\x05hello")
    assert (await client.answer()).status == 426
    assert (await client.answer()).status == 400
    assert await client.rest() == b""
    assert pod.outcomes() == {"client_error": 1, "rejected": 1}


@pytest.mark.parametrize(
    "request_",
    [
        f"GET / HTTP/1.0\r\nHost: m\r\n{OFFER}\r\n",
        f"POST / HTTP/1.1\r\nHost: m\r\n{OFFER}Content-Length: 3\r\n\r\nabc",
        f"POST / HTTP/1.1\r\nHost: m\r\n{OFFER}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: m\r\nConnection: close, upgrade\r\nUpgrade: echo/1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: m\r\nUpgrade: echo/1\r\n\r\n",
    ],
    ids=["HTTP/1.0", "body", "chunks", "close", "not named in Connection"],
)
async def test_offers_that_are_passed_over(model, start_pod, request_):
    pod = await start_pod(model.port, ALONE)
    reply = await pod.ask(request_.encode())
    assert reply.status == 200
    (seen,) = model.requests
    assert (seen.header("upgrade"), seen.header("connection")) == (None, None)
    assert seen.body == (b"abc" if seen.method == "POST" else b"")


async def test_only_the_offers_that_are_not_http_2_are_passed_on(model, start_pod):
    pod = await start_pod(model.port, ALONE)
    await pod.ask(get(headers="Connection: upgrade\r\nUpgrade: h2c, websocket\r\nUpgrade: foo/2\r\n"))
    assert model.requests[0].header("upgrade") == "websocket, foo/2"


async def test_several_offers_of_h2c_in_one_piece(model, start_pod):
    pod = await start_pod(model.port, ALONE)
    client = await Client.connect(pod.ingress)
    offer = "Connection: upgrade\r\nUpgrade: h2c\r\n"
    await client.send(b"".join(get(f"/{i}", offer) for i in range(40)))
    assert [(await client.answer()).status for _ in range(40)] == [200] * 40
    assert [r.target for r in model.requests] == [f"/{i}" for i in range(40)]
    await client.close()


async def test_a_101_that_nobody_asked_for_or_that_upgrades_nothing(model, start_pod):
    pod = await start_pod(model.port, ALONE)
    model.handle = says(TAKEN + b"bytes")
    assert (await pod.ask(get())).status == 502
    model.handle = says(b"HTTP/1.1 101 Fine\r\n\r\nbytes")
    assert (await pod.ask(get(headers=OFFER))).status == 502
    assert pod.outcomes() == {"model_error": 2}


async def test_another_revision_takes_an_upgrade(model, start_pod):
    async with websockets(echo) as port, aiohttp.ClientSession() as session:
        model.handle = reset
        document = routing(revision("a", 100), revision("b", 0, port), fallback={"chain": ["b"]})
        pod = await start_pod(model.port, document)
        async with session.ws_connect(f"ws://127.0.0.1:{pod.ingress}/ws") as socket:
            await socket.send_str("hello")
            assert await socket.receive_str() == "hello"
        await eventually(lambda: pod.outcomes("b") == {"ok": 1})
        assert pod.telemetry.fallbacks["a", "b"]["reset"] == 1
        assert pod.telemetry.epoch("a").errors == 1


async def test_nobody_takes_an_upgrade(start_pod):
    pod = await start_pod(free_port(), ALONE)
    client = await Client.connect(pod.ingress)
    reply = await client.ask(get(headers=OFFER))
    assert (reply.status, reply.header("connection")) == (502, "close")
    assert await client.rest() == b""


async def test_a_model_that_breaks_a_tunnel_breaks_it_for_the_client(start_pod):
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"half a mess")
        await reader.readexactly(1)
        reset_connection(writer)

    pod, client, _, _ = await tunnel_to(break_off, start_pod)
    assert await client.reader.readexactly(11) == b"half a mess"
    await client.send(b"x")
    with pytest.raises(ConnectionResetError):
        await client.reader.read(1)
    await eventually(lambda: pod.outcomes() == {"model_error": 1})
    assert pod.telemetry.epoch("a").errors == 1


async def test_a_client_that_breaks_a_tunnel_breaks_it_for_the_model(start_pod):
    end = asyncio.get_running_loop().create_future()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            end.set_result(await reader.read(-1))
        except ConnectionError as error:
            end.set_result(error)

    pod, client, _, _ = await tunnel_to(listen, start_pod)
    reset_connection(client.writer)
    assert isinstance(await asyncio.wait_for(end, 5), ConnectionResetError)
    await eventually(lambda: pod.outcomes() == {"cancelled": 1})
    assert pod.telemetry.epoch("a").errors == 0


async def test_a_silent_tunnel_ends(start_pod):
    document = routing(revision("a", 100), timeouts={"idle": 0.3})
    pod, client, _, _ = await tunnel_to(shout, start_pod, document)
    for _ in range(8):
        await asyncio.sleep(0.08)
        await client.send(b"a")
        assert await client.reader.readexactly(1) == b"A"
    assert len(tunnels(pod)) == 1
    assert await asyncio.wait_for(client.rest(), 5) == b""
    await eventually(lambda: not tunnels(pod))
    assert pod.outcomes() == {"ok": 1}


@pytest.mark.parametrize("who", ["client", "model"])
async def test_who_does_not_read_holds_back_the_other_side(start_pod, who):
    sent = 0
    go = asyncio.Event()

    async def flood(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while sent < 64 << 20:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536
        writer.write_eof()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if who == "client":
            await flood(writer)
            await reader.read(-1)
        else:
            await go.wait()
            left = 64 << 20
            while left:
                left -= len(await reader.read(1 << 20))
            writer.write(b"all")
            writer.close()

    pod, client, _, _ = await tunnel_to(handle, start_pod)
    task = asyncio.create_task(flood(client.writer)) if who == "model" else None
    await settled(lambda: sent)
    assert sent < 32 << 20, "it was not held back"
    go.set()
    if task is not None:
        assert await client.rest() == b"all"
        await task
    else:
        left = 64 << 20
        while left:
            left -= len(await client.reader.read(1 << 20))
        client.writer.write_eof()
    await eventually(lambda: pod.outcomes() == {"ok": 1})
    await client.close()


async def test_a_drain_leaves_tunnels_to_those_who_talk_and_an_end_cuts_them_off(start_pod):
    pod, client, _, _ = await tunnel_to(shout, start_pod)
    front = pod.relay.ingress
    front.drain()
    await asyncio.sleep(0.1)
    await client.send(b"abc")
    assert await client.reader.readexactly(3) == b"ABC"
    assert (len(front.connections), front.busy) == (1, 1)
    front.abort()
    assert await client.rest() == b""
    await eventually(lambda: pod.outcomes() == {"cancelled": 1})
    assert front.connections == set()


async def test_tunnels_are_among_the_connections_that_have_a_limit(start_pod):
    async with websockets(echo) as port, aiohttp.ClientSession() as session:
        pod = await start_pod(port, ALONE, max_connections=2)
        url = f"ws://127.0.0.1:{pod.ingress}/ws"
        sockets = [await session.ws_connect(url) for _ in range(2)]
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(url)
        assert refused.value.status == 503
        for socket in sockets:
            await socket.close()
        await eventually(lambda: not tunnels(pod))
        async with session.ws_connect(url) as socket:
            await socket.send_str("room again")
            assert await socket.receive_str() == "room again"


def reset_connection(writer: asyncio.StreamWriter) -> None:
    reset_transport(writer.transport)


async def settled(figure, seconds: float = 10.0) -> None:
    """Until a figure has not changed for a while."""
    before = -1
    for _ in range(int(seconds / 0.25)):
        if figure() == before:
            return
        before = figure()
        await asyncio.sleep(0.25)
    raise AssertionError("it did not settle")


async def test_an_upstream_that_only_speaks_after_a_while_sees_the_client_leave(start_pod):
    left = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.read(1)
        left.set()

    pod = await start_pod(await listen_raw(slow), ALONE)
    client = await Client.connect(pod.ingress)
    await client.send(get(headers=OFFER) + b"ahead")
    await eventually(lambda: pod.series().in_flight)
    await client.close()
    await asyncio.wait_for(left.wait(), 5)
    await eventually(lambda: pod.outcomes() == {"cancelled": 1})

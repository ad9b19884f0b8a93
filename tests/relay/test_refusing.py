"""Requests that are not relayed: malformed ones, too long ones, too slow ones, too many."""

from __future__ import annotations

import asyncio

import pytest
from tests.relay.harness import Client, answer, eventually, get, post, revision, routing

HEAD = "POST / HTTP/1.1\r\nHost: m\r\n"
SMALL = routing(
    revision("a", 100), limits={"headBytes": 1024, "bodyBytes": 5000, "replayBytes": 1000}, timeouts={"idle": 0.2}
)


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (400, HEAD + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc"),
        (400, HEAD + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"),
        (400, HEAD + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        (400, HEAD + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
        (400, HEAD + "Content-Length: 3, 3\r\n\r\nabc"),
        (400, HEAD + "Content-Length: +3\r\n\r\nabc"),
        (400, HEAD + "Content-Length: \r\n\r\n"),
        (400, HEAD + "Content-Length : 3\r\n\r\nabc"),
        (400, HEAD + "Content-Length: 99999999999999999999\r\n\r\n"),
        (400, HEAD + "X: a\r\n folded\r\n\r\n"),
        (400, HEAD + "X: a\0b\r\n\r\n"),
        (400, HEAD + "X y: a\r\n\r\n"),
        (501, HEAD + "Transfer-Encoding: identity\r\n\r\n"),
        (400, HEAD + "Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
        (400, HEAD + "Transfer-Encoding: chunked\r\n\r\n-1\r\n"),
        (501, HEAD + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        (501, HEAD + "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (400, "GET / HTTP/1.1\nHost: m\n\n"),
        (400, "GET / HTTP/1.1\r\n\r\n"),
        (400, HEAD + "Host: other\r\n\r\n"),
        (400, "FETCH / HTTP/1.1\r\nHost: m\r\n\r\n"),
        (400, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        (505, "GET / HTTP/2.0\r\nHost: m\r\n\r\n"),
        (417, HEAD + "Expect: miracles\r\nContent-Length: 0\r\n\r\n"),
        (501, "CONNECT m:443 HTTP/1.1\r\nHost: m\r\n\r\n"),
    ],
)
async def test_requests_that_are_refused(model, start_pod, status, request_):
    pod = await start_pod(model.port, SMALL)
    client = await Client.connect(pod.ingress)
    await client.send(request_.encode("latin-1"))
    reply = await client.answer()
    assert (reply.status, reply.header("coalmine-error"), reply.header("connection")) == (status, "sidecar", "close")
    assert reply.error
    assert "\n" not in reply.error
    assert await client.rest() == b"", "nothing may be read after a refusal"
    assert model.requests == []
    assert pod.outcomes() == {"rejected": 1}


@pytest.mark.parametrize("second", ["CONNECT m:1 HTTP/1.1\r\nHost: m\r\n\r\n", "garbage\r\n\r\n"])
async def test_what_came_before_a_refused_request_is_still_answered(model, start_pod, second):
    pod = await start_pod(model.port, SMALL)
    client = await Client.connect(pod.ingress)
    await client.send(get() + second.encode())
    assert (await client.answer()).status == 200
    assert (await client.answer()).status in (400, 501)
    assert await client.rest() == b""


async def test_a_request_smuggled_behind_a_close_is_not_served(model, start_pod):
    pod = await start_pod(model.port, SMALL)
    client = await Client.connect(pod.ingress)
    await client.send(get("/1", "Connection: close\r\n") + get("/2"))
    assert (await client.answer()).status == 200
    assert await client.rest() == b""
    assert [r.target for r in model.requests] == ["/1"]


@pytest.mark.parametrize("at_once", [True, False])
async def test_heads_have_a_limit(model, start_pod, at_once):
    pod = await start_pod(model.port, SMALL)
    assert (await pod.ask(get(headers="X: " + "v" * 800 + "\r\n"))).status == 200
    client = await Client.connect(pod.ingress)
    head = get("/" + "u" * 600, headers="X: " + "v" * 600 + "\r\n")
    if at_once:
        await client.send(head)
    else:
        for i in range(0, 1150, 50):
            await client.send(head[i : i + 50])
            await asyncio.sleep(0.001)
    assert (await client.answer()).status == 431
    assert len(model.requests) == 1


async def test_an_endless_head_is_cut_off(model, start_pod):
    pod = await start_pod(model.port, SMALL)
    client = await Client.connect(pod.ingress)
    await client.send(b"GET / HTTP/1.1\r\nX: " + b"v" * 3000)
    assert (await client.answer()).status == 431


@pytest.mark.parametrize("tail", [b"0\r\nX-T: " + b"v" * 3000, b"1;" + b"x" * 3000])
async def test_endless_trailers_and_chunk_extensions_are_cut_off(model, start_pod, tail):
    pod = await start_pod(model.port, SMALL)
    client = await Client.connect(pod.ingress)
    await client.send(HEAD.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
    await asyncio.sleep(0.01)
    await client.send(tail)
    assert (await client.answer()).status == 431
    assert model.requests == []


async def test_bodies_have_a_limit(model, start_pod):
    pod = await start_pod(model.port, SMALL)
    assert (await pod.ask(post(b"x" * 5000))).status == 200
    client = await Client.connect(pod.ingress)
    await client.send(HEAD.encode() + b"Content-Length: 5001\r\n\r\n")
    reply = await client.answer()
    assert (reply.status, reply.error) == (413, "the body is longer than 5000 bytes")
    client = await Client.connect(pod.ingress)
    await client.send(HEAD.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(6):
        await client.send(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        await asyncio.sleep(0.005)
    assert (await client.answer()).status == 413
    assert await client.rest() == b""
    await eventually(lambda: model.open <= 1)
    # Whoever goes on sending is read for LINGER, and no longer.
    await eventually(lambda: not pod.relay.ingress.connections)
    assert pod.outcomes() == {"ok": 1, "rejected": 2}


@pytest.mark.parametrize(
    "start",
    [b"GET / HT", HEAD.encode() + b"Content-Length: 10\r\n\r\nabc", HEAD.encode() + b"Content-Length: 2000\r\n\r\nabc"],
    ids=["head", "held body", "streamed body"],
)
async def test_slow_requests_are_given_up(model, start_pod, start):
    pod = await start_pod(model.port, SMALL)
    client = await Client.connect(pod.ingress)
    await client.send(start)
    assert (await client.answer()).status == 408
    assert await client.rest() == b""


async def test_a_head_in_drips_does_not_win_time(model, start_pod):
    pod = await start_pod(model.port, SMALL)
    client = await Client.connect(pod.ingress)

    async def drip() -> None:
        await client.send(b"GET / HTTP/1.1\r\nX: ")
        while True:
            await client.send(b"v")
            await asyncio.sleep(0.05)

    task = asyncio.create_task(drip())
    assert (await asyncio.wait_for(client.answer(), 2)).status == 408
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_silent_connections_end(model, start_pod):
    pod = await start_pod(model.port, routing(revision("a", 100), timeouts={"keepalive": 0.2, "idle": 0.2}))
    client = await Client.connect(pod.ingress)
    assert await asyncio.wait_for(client.rest(), 2) == b""
    client = await Client.connect(pod.ingress)
    assert (await client.ask(get())).status == 200
    assert await asyncio.wait_for(client.rest(), 2) == b""
    assert pod.outcomes() == {"ok": 1}
    assert pod.relay.ingress.connections == set()


async def test_connections_have_a_limit(model, start_pod):
    pod = await start_pod(model.port, routing(revision("a", 100)), max_connections=2)
    clients = [await Client.connect(pod.ingress) for _ in range(3)]
    reply = await clients[2].answer()
    assert (reply.status, reply.error) == (503, "too many connections")
    assert await clients[2].rest() == b""
    assert (await clients[0].ask(get())).status == 200
    await clients[0].close()
    await clients[2].close()
    await eventually(lambda: len(pod.relay.ingress.connections) == 1)
    assert (await pod.ask(get())).status == 200


async def test_the_client_that_leaves_frees_the_model(model, start_pod):
    gone = asyncio.Event()

    async def wait_for_end(request, writer) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            gone.set()

    model.handle = wait_for_end
    pod = await start_pod(model.port, routing(revision("a", 100)))
    client = await Client.connect(pod.ingress)
    await client.send(post())
    await eventually(lambda: len(model.requests) == 1)
    (upstream,) = [e for e in pod.endpoints() if e.outstanding]
    await client.close()
    await eventually(lambda: pod.outcomes() == {"cancelled": 1})
    assert upstream.outstanding == 0
    assert upstream.idle == []
    assert pod.telemetry.epoch("a").requests == 0


async def test_the_client_that_leaves_in_the_middle_of_an_answer(model, start_pod):
    stopped = asyncio.Event()

    async def endless(_, writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"1\r\nx\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)
        finally:
            stopped.set()

    model.handle = endless
    pod = await start_pod(model.port, routing(revision("a", 100)))
    client = await Client.connect(pod.ingress)
    await client.send(get())
    await client.reader.readuntil(b"x\r\n")
    await client.close()
    await asyncio.wait_for(stopped.wait(), 5)
    assert pod.outcomes() == {"cancelled": 1}


async def test_a_client_that_takes_no_answers_is_not_asked_for_more(model, start_pod):
    async def big(_, writer) -> None:
        writer.write(answer(b"x" * 500_000))

    model.handle = big
    pod = await start_pod(model.port, routing(revision("a", 100)))
    client = await Client.connect(pod.ingress)
    client.reader._limit = 1  # type: ignore[attr-defined] # the stream stops reading at once
    await client.send(get() * 60)
    await asyncio.sleep(0.3)
    before = len(model.requests)
    await asyncio.sleep(0.2)
    assert len(model.requests) == before < 40


async def test_a_client_that_stops_reading_is_no_fault_of_the_model(model, start_pod):
    async def big(_, writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 30000000\r\n\r\n")
        for _ in range(300):
            writer.write(b"x" * 100_000)
            await writer.drain()

    model.handle = big
    pod = await start_pod(model.port, routing(revision("a", 100), timeouts={"idle": 0.3}))
    client = await Client.connect(pod.ingress)
    client.reader._limit = 1  # type: ignore[attr-defined] # the stream stops reading at once
    await client.send(get())
    await eventually(lambda: pod.outcomes() == {"cancelled": 1})
    assert pod.telemetry.epoch("a").requests == 0

"""What arrives at the model is what the client sent, and the other way round: framing, headers, connections."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from tests.relay.harness import (
    V2,
    Client,
    Request,
    answer,
    chunked,
    eventually,
    get,
    listen_raw,
    post,
    revision,
    routing,
    says,
)

ALONE = routing(revision("a", 100))


async def test_a_request_passes_and_its_answer_names_the_revision(model, start_pod):
    pod = await start_pod(model.port, ALONE)
    reply = await pod.ask(post(b'{"inputs":[]}', headers="X-One: 1\r\nx-two: 2\r\nX-One: 3\r\n"))
    assert (reply.status, reply.body, reply.revision) == (200, V2, "a")
    (seen,) = model.requests
    assert (seen.method, seen.target, seen.body) == ("POST", "/v2/models/m/infer", b'{"inputs":[]}')
    assert seen.headers == [("Host", "m"), ("Content-Length", "13"), ("X-One", "1"), ("x-two", "2"), ("X-One", "3")]
    assert pod.outcomes() == {"ok": 1}


async def test_the_local_role_serves_the_model_and_does_not_sign(model, start_pod):
    pod = await start_pod(model.port, ALONE)
    reply = await pod.ask(post(), pod.local)
    assert (reply.status, reply.revision) == (200, None)
    assert pod.outcomes("a", "local") == {"ok": 1}
    assert pod.outcomes() == {}


async def test_the_local_role_serves_before_there_is_a_routing_file(model, start_pod):
    pod = await start_pod(model.port)
    assert (await pod.ask(post(), pod.local)).status == 200
    reply = await pod.ask(post())
    assert (reply.status, reply.header("coalmine-error")) == (503, "sidecar")
    assert "routing file" in reply.error


async def test_hop_by_hop_headers_stay_on_their_hop(model, start_pod):
    pod = await start_pod(model.port, ALONE)
    hop = "Connection: x-mine, keep-alive\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\n"
    model.handle = says(
        b"HTTP/1.1 200 OK\r\nConnection: x-hers\r\nX-Hers: 1\r\nKeep-Alive: timeout=5\r\nX-Kept: 1\r\n"
        b"coalmine-revision: forged\r\nContent-Length: 2\r\n\r\nhi"
    )
    reply = await pod.ask(get(headers=hop + "X-Kept: 1\r\n"))
    assert model.requests[0].names() == ["Host", "X-Kept"]
    assert reply.headers == [("X-Kept", "1"), ("Content-Length", "2"), ("coalmine-revision", "a")]


async def test_a_connection_header_may_not_take_host_or_length_away(model, start_pod):
    pod = await start_pod(model.port, ALONE)
    await pod.ask(post(b"abc", headers="Connection: host, content-length\r\n"))
    assert model.requests[0].body == b"abc"
    assert model.requests[0].header("host") == "m"


async def test_connections_are_kept_on_both_sides(model, start_pod):
    pod = await start_pod(model.port, ALONE)
    client = await Client.connect(pod.ingress)
    for _ in range(5):
        assert (await client.ask(post())).status == 200
    await client.close()
    assert model.connections == 1


async def test_concurrent_requests_have_connections_of_their_own_and_leave_them_for_later(model, start_pod):
    async def slow(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)
        writer.write(answer())

    model.handle = slow
    pod = await start_pod(model.port, ALONE)
    assert {r.status for r in await asyncio.gather(*(pod.ask(post()) for _ in range(8)))} == {200}
    assert model.connections == 8
    assert {r.status for r in await asyncio.gather(*(pod.ask(post()) for _ in range(8)))} == {200}
    assert model.connections == 8


async def test_idle_upstream_connections_end_before_the_server_ends_them(model, start_pod):
    pod = await start_pod(model.port, routing(revision("a", 100), timeouts={"upstreamKeepalive": 0.1}))
    await pod.ask(post())
    assert model.open == 1
    await eventually(lambda: model.open == 0)
    assert (await pod.ask(post())).status == 200


async def test_a_connection_the_server_ended_while_idle_is_not_used(model, start_pod):
    async def once(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(answer())
        await writer.drain()
        writer.close()

    model.handle = once
    pod = await start_pod(model.port, ALONE)
    for number in range(1, 4):
        assert (await pod.ask(post())).status == 200
        await eventually(lambda number=number: model.connections == number and model.open == 0)
    assert pod.telemetry.revisions["a"].connection_errors["stale"] == 0


async def test_connection_close_of_the_answer_is_heeded(model, start_pod):
    model.handle = says(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi")
    pod = await start_pod(model.port, ALONE)
    client = await Client.connect(pod.ingress)
    assert (await client.ask(get())).body == b"hi"
    assert (await client.ask(get())).body == b"hi"
    await client.close()
    assert model.connections == 2


async def test_connection_close_of_the_client_is_heeded(model, start_pod):
    pod = await start_pod(model.port, ALONE)
    client = await Client.connect(pod.ingress)
    reply = await client.ask(get(headers="Connection: close\r\n"))
    assert reply.header("connection") == "close"
    assert await client.rest() == b""
    await client.close()


async def test_pipelined_requests_are_answered_in_order(model, start_pod):
    async def by_path(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.02 if request.target == "/0" else 0)
        writer.write(answer(request.target.encode()))

    model.handle = by_path
    pod = await start_pod(model.port, ALONE)
    client = await Client.connect(pod.ingress)
    await client.send(get("/0") + post(b"x" * 10, "/1") + chunked(b"abc", path="/2") + get("/3"))
    assert [(await client.answer()).body for _ in range(4)] == [b"/0", b"/1", b"/2", b"/3"]
    await client.close()
    assert [r.body for r in model.requests] == [b"", b"x" * 10, b"abc", b""]


async def test_too_many_pipelined_requests_are_refused_after_the_first_ones(model, start_pod):
    pod = await start_pod(model.port, ALONE)
    client = await Client.connect(pod.ingress)
    await client.send(get() * 100)
    statuses = [(await client.answer()).status for _ in range(65)]
    assert statuses == [200] * 64 + [503]
    assert await client.rest() == b""
    await client.close()


async def test_a_request_in_single_bytes(model, start_pod):
    pod = await start_pod(model.port, ALONE)
    client = await Client.connect(pod.ingress)
    for byte in post(b"abc", headers="X-Long: " + "v" * 50 + "\r\n"):
        await client.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await client.answer()).status == 200
    await client.close()
    assert model.requests[0].body == b"abc"
    assert model.requests[0].target == "/v2/models/m/infer"


async def test_an_answer_in_single_bytes(model, start_pod):
    async def drip(_: Request, writer: asyncio.StreamWriter) -> None:
        for byte in answer():
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)

    model.handle = drip
    pod = await start_pod(model.port, ALONE)
    assert (await pod.ask(post())).body == V2


@pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
async def test_bodies_of_any_size_both_ways(model, start_pod, size):
    async def echo(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(request.body))
        await writer.drain()

    model.handle = echo
    pod = await start_pod(model.port, ALONE)
    body = bytes(i % 251 for i in range(1000)) * (size // 1000) + b"z" * (size % 1000)
    assert (await pod.ask(post(body))).body == body
    assert (await pod.ask(chunked(*(body[i : i + 70_000] for i in range(0, size, 70_000))))).body == body


async def test_a_held_chunked_body_arrives_with_a_length_a_streamed_one_in_chunks(model, start_pod):
    pod = await start_pod(model.port, routing(revision("a", 100), limits={"replayBytes": 1000}))
    await pod.ask(chunked(b"a" * 400, b"b" * 400))
    await pod.ask(chunked(b"a" * 800, b"b" * 800))
    held, streamed = model.requests
    assert (held.header("content-length"), held.body) == ("800", b"a" * 400 + b"b" * 400)
    assert (streamed.header("transfer-encoding"), streamed.body) == ("chunked", b"a" * 800 + b"b" * 800)


async def test_chunk_extensions_end_here(model, start_pod):
    pod = await start_pod(model.port, ALONE)
    client = await Client.connect(pod.ingress)
    head = b"POST / HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n"
    await client.send(head + b"3;x=y\r\nabc\r\n0;z\r\n\r\n" + get("/next"))
    assert [(await client.answer()).status, (await client.answer()).status] == [200, 200]
    await client.close()
    first, second = model.requests
    assert (first.body, first.header("content-length")) == (b"abc", "3")
    assert (second.target, second.names()) == ("/next", ["Host"])


async def test_a_chunked_answer(model, start_pod):
    model.handle = says(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;e=1\r\ndefg\r\n0\r\nX-Trailer: 5\r\n\r\n"
    )
    pod = await start_pod(model.port, ALONE)
    client = await Client.connect(pod.ingress)
    for _ in range(2):
        reply = await client.ask(get())
        assert (reply.body, reply.header("transfer-encoding")) == (b"abcdefg", "chunked")
    await client.close()
    assert model.connections == 1


async def test_an_answer_that_ends_with_its_connection(model, start_pod):
    async def to_eof(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nabc")
        await writer.drain()
        writer.write(b"def")
        writer.close()

    model.handle = to_eof
    pod = await start_pod(model.port, ALONE)
    client = await Client.connect(pod.ingress)
    assert (await client.ask(get())).body == b"abcdef"
    assert (await client.ask(get())).body == b"abcdef"
    await client.close()


async def test_http_1_0_clients(model, start_pod):
    pod = await start_pod(model.port, ALONE)
    client = await Client.connect(pod.ingress)
    reply = await client.ask(b"GET /old HTTP/1.0\r\n\r\n")
    assert (reply.status, reply.header("connection"), await client.rest()) == (200, "close", b"")
    assert model.requests[0].header("host") == f"127.0.0.1:{model.port}"
    client = await Client.connect(pod.ingress)
    reply = await client.ask(b"GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert reply.header("connection") == "keep-alive"
    model.handle = says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    await client.send(b"GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    whole = await client.rest()
    assert whole.endswith(b"\r\n\r\nabc")
    assert b"chunked" not in whole


async def test_head_no_content_and_not_modified_have_no_body(model, start_pod):
    async def by_path(request: Request, writer: asyncio.StreamWriter) -> None:
        status = {"/head": "200 OK", "/204": "204 No Content", "/304": "304 Not Modified"}[request.target]
        length = "" if request.target == "/204" else "Content-Length: 1234\r\n"
        writer.write(f"HTTP/1.1 {status}\r\n{length}\r\n".encode())

    model.handle = by_path
    pod = await start_pod(model.port, ALONE)
    client = await Client.connect(pod.ingress)
    for _ in range(2):
        reply = await client.ask(b"HEAD /head HTTP/1.1\r\nHost: m\r\n\r\n")
        assert (reply.status, reply.header("content-length")) == (200, "1234")
        assert (await client.ask(get("/204"))).status == 204
        assert (await client.ask(get("/304"))).header("content-length") == "1234"
    await client.close()
    assert model.connections == 1


async def test_a_body_sent_after_head_does_not_become_the_next_answer(model, start_pod):
    async def rude(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"body of a HEAD" if request.method == "HEAD" else b"right"))

    model.handle = rude
    pod = await start_pod(model.port, ALONE)
    client = await Client.connect(pod.ingress)
    assert (await client.ask(b"HEAD / HTTP/1.1\r\nHost: m\r\n\r\n")).status == 200
    assert (await client.ask(get())).body == b"right"
    await client.close()


async def test_an_answer_too_many_is_given_to_nobody(model, start_pod):
    async def twice(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(request.target.encode()) + answer(b"unasked"))

    model.handle = twice
    pod = await start_pod(model.port, ALONE)
    client = await Client.connect(pod.ingress)
    assert (await client.ask(get("/1"))).body == b"/1"
    assert (await client.ask(get("/2"))).body == b"/2"
    await client.close()


async def test_expect_100_continue_is_answered_when_a_body_is_to_be_read(model, start_pod):
    pod = await start_pod(model.port, routing(revision("a", 100), limits={"replayBytes": 100}))
    for size in (50, 5000):
        client = await Client.connect(pod.ingress)
        await client.send(
            f"POST / HTTP/1.1\r\nHost: m\r\nExpect: 100-continue\r\nContent-Length: {size}\r\n\r\n".encode()
        )
        assert (await client.answer()).status == 100
        await client.send(b"x" * size)
        assert (await client.answer()).status == 200
        await client.close()
        assert (model.requests[-1].header("expect"), len(model.requests[-1].body)) == (None, size)


async def test_no_100_continue_for_a_body_that_is_already_here_or_unwanted(model, start_pod):
    pod = await start_pod(model.port, routing(revision("a", 100), limits={"bodyBytes": 100}))
    assert (await pod.ask(post(b"abc", headers="Expect: 100-continue\r\n"))).status == 200
    head = b"POST / HTTP/1.1\r\nHost: m\r\nExpect: 100-continue\r\nContent-Length: 500\r\n\r\n"
    assert (await pod.ask(head)).status == 413


async def test_java_offers_h2c_and_gets_http_1_1(model, start_pod):
    offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQBAAAAAAIAAAAA\r\n"
    pod = await start_pod(model.port, ALONE)
    client = await Client.connect(pod.ingress)
    assert (await client.ask(post(b"with a body", headers=offer))).status == 200
    assert (await client.ask(get("/without", headers=offer))).status == 200
    head = f"POST /chunked HTTP/1.1\r\nHost: m\r\n{offer}Transfer-Encoding: chunked\r\n\r\n".encode()
    await client.send(head)
    await client.send(b"3\r\nabc\r\n0\r\n\r\n" + get("/next"))
    assert [(await client.answer()).status, (await client.answer()).status] == [200, 200]
    await client.close()
    assert [r.body for r in model.requests] == [b"with a body", b"", b"abc", b""]
    assert {name.lower() for r in model.requests for name in r.names()} == {"host", "content-length"}


async def test_streaming_reaches_the_client_piece_by_piece(model, start_pod):
    gate = asyncio.Event()

    async def stream(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n")
        writer.write(b"9\r\ndata: 1\n\n\r\n")
        await gate.wait()
        writer.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    model.handle = stream
    pod = await start_pod(model.port, ALONE)
    client = await Client.connect(pod.ingress)
    await client.send(get())
    head = await client.reader.readuntil(b"data: 1\n\n\r\n")
    assert b"event-stream" in head
    gate.set()
    assert (await client.reader.readuntil(b"0\r\n\r\n")).startswith(b"9\r\ndata: 2")
    await client.close()


async def test_an_upload_streams_to_the_model_before_it_is_whole(start_pod):
    first = asyncio.Event()

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(5000)
        first.set()
        await reader.readexactly(5000)
        writer.write(answer(b"got it"))
        await writer.drain()

    port = await listen_raw(read)
    pod = await start_pod(port, routing(revision("a", 100), limits={"replayBytes": 1000}))
    client = await Client.connect(pod.ingress)
    await client.send(b"POST / HTTP/1.1\r\nHost: m\r\nContent-Length: 10000\r\n\r\n" + b"x" * 5000)
    await asyncio.wait_for(first.wait(), 5)
    await client.send(b"y" * 5000)
    assert (await client.answer()).body == b"got it"
    await client.close()


async def test_a_slow_reader_holds_back_the_model_and_no_memory(model, start_pod):
    size, written = 64 << 20, 0
    block = bytes(range(256)) * 256

    async def flood(_: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while written < size:
            writer.write(block)
            await writer.drain()
            written += len(block)

    model.handle = flood
    pod = await start_pod(model.port, ALONE)
    client = await Client.connect(pod.ingress)
    await client.send(get())
    await client.reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(0.3)
    before = written
    await asyncio.sleep(0.2)
    assert written == before < 32 << 20, "the model was not held back"
    digest = hashlib.blake2b()
    left = size
    while left:
        piece = await client.reader.read(min(left, 1 << 20))
        digest.update(piece)
        left -= len(piece)
    assert digest.digest() == hashlib.blake2b(block * (size // len(block))).digest()
    await client.close()


async def test_a_slow_model_holds_back_the_uploading_client(start_pod):
    go = asyncio.Event()

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await go.wait()
        await reader.readexactly(30 << 20)
        writer.write(answer(b"got it"))
        await writer.drain()

    port = await listen_raw(read)
    pod = await start_pod(port, ALONE)
    client = await Client.connect(pod.ingress)
    sent = 0

    async def upload() -> None:
        nonlocal sent
        await client.send(b"POST / HTTP/1.1\r\nHost: m\r\nContent-Length: %d\r\n\r\n" % (30 << 20))
        for _ in range(30 * 16):
            await client.send(b"x" * 65536)
            sent += 65536

    task = asyncio.create_task(upload())
    await asyncio.sleep(0.3)
    before = sent
    await asyncio.sleep(0.2)
    assert sent == before < 25 << 20, "the client was not held back"
    go.set()
    await task
    assert (await client.answer()).body == b"got it"
    await client.close()


async def test_an_early_answer_ends_the_upload(start_pod):
    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(b"no thanks", status="413 Too Much"))
        await writer.drain()

    port = await listen_raw(hasty)
    pod = await start_pod(port, routing(revision("a", 100), limits={"replayBytes": 1000}))
    client = await Client.connect(pod.ingress)
    await client.send(b"POST / HTTP/1.1\r\nHost: m\r\nContent-Length: 100000\r\n\r\n" + b"x" * 2000)
    reply = await client.answer()
    assert (reply.status, reply.body, reply.header("connection")) == (413, b"no thanks", "close")
    await client.close()
    assert pod.outcomes() == {"client_error": 1}


async def test_answers_with_status_200_are_observed_on_the_ingress_only(model, start_pod):
    pod = await start_pod(model.port, ALONE)
    await pod.ask(post())
    await pod.ask(post(), pod.local)
    await eventually(lambda: pod.series().predictions == 1)
    assert sum(pod.series().outputs.by_name["score"].bins) == 1
    assert pod.series("a", "local").predictions == 0
    model.handle = says(answer(headers="content-type: application/json\r\ncontent-encoding: gzip\r\n"))
    await pod.ask(post())
    assert pod.series().skipped["encoding"] == 1
    model.handle = says(answer(b"x" * 2_000_000))
    await pod.ask(post())
    assert pod.series().skipped["size"] == 1
    assert pod.series().predictions == 1

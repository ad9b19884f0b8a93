"""TLS towards the model: certificates of a test's own authority, real sockets."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import grpc
import pytest
from aiohttp import WSMsgType, web
from tests.relay.authority import Authority, Files, serving
from tests.relay.grpc_client import one, unary
from tests.relay.grpc_model import Model
from tests.relay.harness import (
    V2,
    Client,
    Request,
    Upstream,
    chunked,
    eventually,
    get,
    listen_raw,
    post,
    revision,
    routing,
)

from coalmine_sidecar.relay.tls import Tls
from coalmine_sidecar.tlsflags import TlsFiles

ALONE = routing(revision("a", 100))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "own")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "stranger")


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    made = Upstream()
    yield made
    await made.stop()


def towards(files: Files | None = None, *, shows: bool = False, name: str = "localhost", verify: bool = True) -> Tls:
    return Tls(
        TlsFiles(
            flag="model",
            ca=files.ca if files else None,
            cert=files.cert if files and shows else None,
            key=files.key if files and shows else None,
            server_name=name,
            verify=verify,
        )
    )


async def test_requests_of_all_kinds(authority: Authority, upstream: Upstream, start_pod) -> None:
    files = authority.issue("localhost")
    await upstream.start(tls=serving(files))
    pod = await start_pod(upstream.port, ALONE, model_tls=towards(files))
    client = await Client.connect(pod.ingress)
    for number in range(3):
        reply = await client.ask(post(b"%d" % number))
        assert (reply.status, reply.body, reply.revision) == (200, V2, "a")
    assert (await client.ask(chunked(b"a" * 70_000, b"b" * 2_000_000))).status == 200
    assert upstream.connections == 1, "kept alive"
    assert [len(request.body) for request in upstream.requests] == [1, 1, 1, 2_070_000]

    async def stream(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        for number in range(5):
            writer.write(b"data: %d\n\n" % number)
            await writer.drain()
            await asyncio.sleep(0.01)
        writer.close()

    upstream.handle = stream
    assert (await client.ask(get())).body.count(b"data: ") == 5, "an answer that ends with its connection"
    assert pod.outcomes() == {"ok": 5}


async def test_a_large_answer_to_a_slow_client(authority: Authority, upstream: Upstream, start_pod) -> None:
    files = authority.issue("localhost")
    size = 20_000_000
    sent = 0

    async def large(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(size // 100_000):
            writer.write(b"x" * 100_000)
            await writer.drain()
            sent += 100_000

    upstream.handle = large
    await upstream.start(tls=serving(files))
    pod = await start_pod(upstream.port, ALONE, model_tls=towards(files))
    client = await Client.connect(pod.ingress)
    client.writer.transport.pause_reading()
    await client.send(get())
    await asyncio.sleep(0.7)
    held = sent
    assert held < size, "backpressure reaches the model"
    client.writer.transport.resume_reading()
    assert len((await client.answer()).body) == size


@pytest.mark.parametrize("case", ["authority", "name", "expired", "system"])
async def test_a_wrong_certificate_is_refused_and_counted(
    authority: Authority,
    stranger: Authority,
    upstream: Upstream,
    start_pod,
    caplog: pytest.LogCaptureFixture,
    case: str,
) -> None:
    files = authority.issue("localhost", days=-1 if case == "expired" else 30)
    await upstream.start(tls=serving(files))
    trusted = {"authority": stranger.issue("localhost"), "system": None}.get(case, files)
    pod = await start_pod(
        upstream.port, ALONE, model_tls=towards(trusted, name="other" if case == "name" else "localhost")
    )
    for _ in range(3):
        reply = await pod.ask(post())
        assert (reply.status, reply.header("coalmine-error")) == (502, "upstream")
    assert upstream.requests == []
    assert pod.telemetry.revisions["a"].connection_errors["connect"] == 3
    (line,) = (record.getMessage() for record in caplog.records if "TLS with" in record.getMessage())
    words = {
        "authority": "self-signed certificate in certificate chain",
        "system": "self-signed certificate in certificate chain",
        "name": "Hostname mismatch, certificate is not valid for 'other'.",
        "expired": "certificate has expired",
    }
    assert line.startswith(f"model: TLS with 127.0.0.1:{upstream.port} failed: the certificate is refused: ")
    assert words[case] in line


async def test_insecure_takes_any_certificate(authority: Authority, upstream: Upstream, start_pod) -> None:
    await upstream.start(tls=serving(authority.issue("whatever", days=-1)))
    pod = await start_pod(upstream.port, ALONE, model_tls=towards(verify=False))
    assert (await pod.ask(post())).status == 200


@pytest.mark.parametrize("shows", [False, True])
async def test_a_client_certificate(authority: Authority, upstream: Upstream, start_pod, shows: bool) -> None:
    files = authority.issue("localhost")
    await upstream.start(tls=serving(files, clients=True))
    pod = await start_pod(upstream.port, ALONE, model_tls=towards(files, shows=shows))
    assert (await pod.ask(post())).status == (200 if shows else 502)
    assert len(upstream.requests) == shows
    assert sum(pod.telemetry.revisions["a"].connection_errors.values()) == (0 if shows else 1)


async def test_a_model_that_speaks_no_tls(authority: Authority, start_pod) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    pod = await start_pod(await listen_raw(refuse), ALONE, model_tls=towards(authority.issue("localhost")))
    assert (await pod.ask(post())).status == 502
    assert pod.telemetry.revisions["a"].connection_errors["connect"] == 1


async def test_a_handshake_that_hangs_has_an_end(authority: Authority, start_pod) -> None:
    closed = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            pass
        closed.set()

    port = await listen_raw(silent)
    document = routing(revision("a", 100), timeouts={"connect": 0.2})
    pod = await start_pod(port, document, model_tls=towards(authority.issue("localhost")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coalmine_sidecar.relay.detour.PATIENCE", 0.3)
        assert (await asyncio.wait_for(pod.ask(post()), 5)).status == 504
    assert pod.telemetry.revisions["a"].connection_errors["connect"] >= 1
    await asyncio.wait_for(closed.wait(), 5)


async def test_grpc(authority: Authority, start_pod, dial) -> None:
    files = authority.issue("localhost")
    model = Model("m")
    pair = (files.key.read_bytes(), files.cert.read_bytes())
    await model.start(tls=grpc.ssl_server_credentials([pair], files.ca.read_bytes(), require_client_auth=True))
    pod = await start_pod(model.port, one(), model_tls=towards(files, shows=True))
    channel = dial(pod.ingress)
    assert await unary(channel)(b"hello") == b"hello"
    numbers = [answer async for answer in channel.unary_stream("/any.Service/Count")(b"100")]
    assert numbers == [b"%d" % number for number in range(100)]
    await eventually(lambda: pod.outcomes() == {"ok": 2})
    await model.stop()


async def test_grpc_to_an_unknown_authority(authority: Authority, stranger: Authority, start_pod, dial) -> None:
    files = authority.issue("localhost")
    model = Model("m")
    await model.start(tls=grpc.ssl_server_credentials([(files.key.read_bytes(), files.cert.read_bytes())]))
    pod = await start_pod(model.port, one(), model_tls=towards(stranger.issue("localhost")))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await unary(dial(pod.ingress))(b"hello")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert pod.telemetry.revisions["a"].connection_errors["connect"] == 1
    await model.stop()


async def test_a_websocket_ends_in_order(authority: Authority, start_pod, caplog: pytest.LogCaptureFixture) -> None:
    over = asyncio.Event()

    async def echo(request: web.Request) -> web.WebSocketResponse:
        opened = web.WebSocketResponse()
        await opened.prepare(request)
        async for message in opened:
            await opened.send_str(message.data[::-1])
        over.set()
        return opened

    files = authority.issue("localhost")
    app = web.Application()
    app.router.add_get("/ws", echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=serving(files)).start()
    pod = await start_pod(runner.addresses[0][1], ALONE, model_tls=towards(files))
    async with aiohttp.ClientSession() as session, session.ws_connect(f"http://127.0.0.1:{pod.ingress}/ws") as opened:
        for text in ("abc", "x" * 300_000):
            await opened.send_str(text)
            message = await opened.receive(5)
            assert (message.type, message.data) == (WSMsgType.TEXT, text[::-1])
    await asyncio.wait_for(over.wait(), 5)
    await eventually(lambda: pod.outcomes() == {"ok": 1})
    await runner.cleanup()
    assert "eof_received" not in caplog.text


async def test_a_client_of_a_tunnel_that_leaves_ends_it(authority: Authority, start_pod, tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        while data := await reader.read(100):
            writer.write(data.upper())
        ended.set()
        writer.close()

    files = authority.issue("localhost")
    server = await asyncio.start_server(take, "127.0.0.1", 0, ssl=serving(files))
    pod = await start_pod(server.sockets[0].getsockname()[1], ALONE, model_tls=towards(files))
    client = await Client.connect(pod.ingress)
    await client.send(get(headers="Connection: upgrade\r\nUpgrade: echo\r\n"))
    assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    await client.send(b"hello")
    assert await client.reader.readexactly(5) == b"HELLO"
    client.writer.write_eof()
    await asyncio.wait_for(ended.wait(), 5)
    assert await asyncio.wait_for(client.rest(), 5) == b""
    await eventually(lambda: pod.series().in_flight == 0)
    server.close()


async def test_rotation_under_load_fails_no_request(
    authority: Authority, stranger: Authority, upstream: Upstream, start_pod
) -> None:
    """The model gets a certificate of another authority, after the sidecar was told to trust both."""
    files = authority.issue("localhost")
    context = serving(files)
    await upstream.start(tls=context)
    tls = towards(files)
    pod = await start_pod(upstream.port, ALONE, model_tls=tls)
    statuses: list[int] = []
    stopping = False

    async def load() -> None:
        while not stopping:
            statuses.append((await pod.ask(post())).status)
            # New handshakes all the while.
            for endpoint in pod.endpoints():
                endpoint.retire()
                endpoint.retired = False

    clients = [asyncio.create_task(load()) for _ in range(4)]
    await eventually(lambda: len(statuses) > 20)
    new = stranger.issue("localhost")
    files.ca.write_bytes(files.ca.read_bytes() + new.ca.read_bytes())
    tls.poll()
    before = len(statuses)
    await eventually(lambda: len(statuses) > before + 20)
    context.load_cert_chain(new.cert, new.key)
    before = len(statuses)
    await eventually(lambda: len(statuses) > before + 20)
    files.ca.write_bytes(new.ca.read_bytes())
    tls.poll()
    before = len(statuses)
    await eventually(lambda: len(statuses) > before + 20)
    stopping = True
    await asyncio.gather(*clients)
    assert set(statuses) == {200}
    assert tls.generation == 3
    context.load_cert_chain(files.cert, files.key)
    for endpoint in pod.endpoints():
        endpoint.retire()
    assert (await pod.ask(post())).status == 502, "the old authority is forgotten"


def test_old_protocols_are_not_spoken(authority: Authority) -> None:
    tls = towards(authority.issue("localhost"))
    tls.poll()
    context = tls.client()
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2

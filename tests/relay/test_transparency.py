"""What a neighbour must not be noticed by: the smaller print of HTTP/1.1 (linkerd2-proxy's `transparency` tests)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tests.relay.harness import (
    V2,
    Client,
    Request,
    answer,
    eventually,
    get,
    listen_raw,
    post,
    reset,
    revision,
    routing,
    says,
    without_identity,
)

from coalmine_sidecar.relay.tunnel import reset as reset_transport

ALONE = routing(revision("a", 100))
CHUNKED = "POST /p HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n"
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def hears(*ends: bytes, answers: bytes = answer()) -> tuple[int, list[bytes]]:
    """A model that notes the bytes of each request, up to and with its end; its port, and what it heard."""
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for end in ends:
            heard.append(without_identity(await reader.readuntil(end)))
            writer.write(answers)

    return await listen_raw(listen), heard


# Heads


async def test_headers_keep_their_case_their_order_and_their_repetitions(start_pod):
    request = (
        b"GET /x HTTP/1.1\r\nhOsT: M\r\nX-B: 2\r\nx-a:1\r\nX-b:  3\r\nCookie: a=1\r\nCookie: b=2\r\nX-Empty:\r\n"
        b"X-Latin: \xe9\r\nAccept: */*\r\n\r\n"
    )
    sent = (
        b"HTTP/1.1 200 OK\r\nZ: 1\r\nSet-Cookie: a=1; Path=/\r\ncontent-LENGTH: 2\r\nset-cookie: b=2, c\r\n"
        b"a:  2\r\nZ: 3\r\nSet-Cookie: a=1; Path=/\r\n\r\nhi"
    )
    port, heard = await hears(b"\r\n\r\n", answers=sent)
    pod = await start_pod(port, ALONE)
    client = await Client.connect(pod.ingress)
    await client.send(request)
    got = without_identity(await client.reader.readuntil(b"\r\n\r\nhi"))
    assert heard == [request.replace(b"x-a:1", b"x-a: 1").replace(b":  3", b": 3").replace(b"Empty:", b"Empty: ")]
    assert got == sent.replace(b"a:  2", b"a: 2").replace(b"\r\n\r\nhi", b"\r\ncoalmine-revision: a\r\n\r\nhi")


async def test_who_forwarded_it_before_is_neither_touched_nor_added_to(model, start_pod):
    pod = await start_pod(model.port, ALONE)
    chain = (
        "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nForwarded: for=1.2.3.4;proto=https\r\nVia: 1.1 e\r\n"
    )
    await pod.ask(get(headers=chain))
    await pod.ask(get())
    with_chain, without = model.requests
    assert "".join(f"{name}: {value}\r\n" for name, value in with_chain.headers) == "Host: m\r\n" + chain
    assert without.names() == ["Host"]


@pytest.mark.parametrize("host", ["fraud.example:8008", "[::1]:80", "", "xn--nxasmq6b"])
async def test_host_is_kept(model, start_pod, host):
    pod = await start_pod(model.port, ALONE)
    assert (await pod.ask(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())).status == 200
    assert model.requests[0].header("host") == host


@pytest.mark.parametrize(
    "target", ["/", "//x", "/a/../b", "/%2e%2E/%00", "/?", "/?a=b&c=%20;d#e", "/~a|b{}", "/v2/models/m:predict"]
)
async def test_targets_are_kept(model, start_pod, target):
    pod = await start_pod(model.port, ALONE)
    assert (await pod.ask(get(target))).status == 200
    assert model.requests[0].target == target


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("http://m/a?b", "m"),
        ("http://m", "m"),
        ("http://other:81/a", "other:81"),
        ("HTTPS://Other/", "Other"),
        ("http://[::1]:8/x", "[::1]:8"),
    ],
)
async def test_of_a_targets_host_and_a_header_the_target_counts(model, start_pod, target, host):
    """RFC 9112 3.2.2; the target itself stays absolute."""
    pod = await start_pod(model.port, ALONE)
    assert (await pod.ask(get(target, "X-A: 1\r\n"))).status == 200
    (seen,) = model.requests
    assert (seen.target, seen.headers) == (target, [("Host", host), ("X-A", "1")])


async def test_options_of_the_server(model, start_pod):
    pod = await start_pod(model.port, ALONE)
    assert (await pod.ask(b"OPTIONS * HTTP/1.1\r\nHost: m\r\n\r\n")).status == 200
    assert model.requests[0].target == "*"


@pytest.mark.parametrize(
    ("sent", "line"),
    [
        (b"200 OK", b"200 OK"),
        (b"200 Fine, thanks", b"200 Fine, thanks"),
        (b"404 Nicht gefunden", b"404 Nicht gefunden"),
        (b"200 Tr\xc3\xa8s bien", b"200 Tr\xc3\xa8s bien"),
        (b"418 I'm a teapot", b"418 I'm a teapot"),
        (b"299 Own", b"299 Own"),
        (b"700 Beyond", b"700 Beyond"),
        (b"200 ", b"200 OK"),
        (b"200", b"200 OK"),
        (b"299", b"299 Unknown"),
    ],
)
async def test_reason_phrases_are_kept(model, start_pod, sent, line):
    model.handle = says(b"HTTP/1.1 " + sent + b"\r\nContent-Length: 0\r\n\r\n")
    pod = await start_pod(model.port, ALONE)
    client = await Client.connect(pod.ingress)
    for _ in range(2):
        await client.send(get())
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 " + line + b"\r\n")
    await client.close()


async def test_a_reason_phrase_in_pieces(start_pod):
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for byte in b"HTTP/1.1 200 All is well\r\nContent-Length: 0\r\n\r\n":
            writer.write(bytes([byte]))
            await asyncio.sleep(0)

    pod = await start_pod(await listen_raw(drip), ALONE)
    client = await Client.connect(pod.ingress)
    await client.send(get())
    assert (await client.reader.readuntil(b"\r\n")) == b"HTTP/1.1 200 All is well\r\n"


# Lengths


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "GET"])
async def test_a_length_of_nothing_is_a_length(model, start_pod, method):
    model.handle = says(answer(b""))
    pod = await start_pod(model.port, ALONE)
    reply = await pod.ask(f"{method} / HTTP/1.1\r\nHost: m\r\nContent-Length: 0\r\n\r\n".encode())
    assert (reply.header("content-length"), reply.header("transfer-encoding")) == ("0", None)
    assert model.requests[0].headers == [("Host", "m"), ("Content-Length", "0")]


async def test_a_request_without_a_length_gets_none(model, start_pod):
    pod = await start_pod(model.port, ALONE)
    await pod.ask(b"POST / HTTP/1.1\r\nHost: m\r\n\r\n")
    await pod.ask(b"DELETE / HTTP/1.1\r\nHost: m\r\n\r\n")
    assert [r.names() for r in model.requests] == [["Host"], ["Host"]]


async def test_an_empty_chunked_answer_and_a_chunked_answer_to_head(model, start_pod):
    async def by_method(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        if request.method != "HEAD":
            writer.write(b"0\r\n\r\n")

    model.handle = by_method
    pod = await start_pod(model.port, ALONE)
    client = await Client.connect(pod.ingress)
    for _ in range(2):
        assert (await client.ask(b"HEAD / HTTP/1.1\r\nHost: m\r\n\r\n")).status == 200
        assert (await client.ask(get())).body == b""
    await client.close()
    assert model.connections == 1


# Trailers


async def test_a_requests_trailers_arrive(start_pod):
    port, heard = await hears(b"A-Sum: 5\r\n\r\n", b"0\r\n\r\n", b"{}", b"0\r\na-sum: 6\r\n\r\n")
    pod = await start_pod(port, routing(revision("a", 100), limits={"replayBytes": 1000}))
    client = await Client.connect(pod.ingress)
    await client.ask(f"{CHUNKED}Trailer: A-Sum\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\nA-Sum: 5\r\n\r\n".encode())
    await client.ask(f"{CHUNKED}\r\n7d0\r\n{'x' * 2000}\r\n0\r\nHost: evil\r\n\r\n".encode())
    await client.ask(post())
    await client.ask(f"{CHUNKED}\r\n7d0\r\n{'x' * 2000}\r\n0\r\na-sum: 6\r\n\r\n".encode())
    await client.close()
    head = b"POST /p HTTP/1.1\r\nHost: m\r\nTrailer: A-Sum\r\ntransfer-encoding: chunked\r\n\r\n"
    assert heard[0] == head + b"5\r\nabcde\r\n0\r\nA-Sum: 5\r\n\r\n"
    assert heard[1].endswith(b"x\r\n0\r\n\r\n")
    assert heard[3].endswith(b"x\r\n0\r\na-sum: 6\r\n\r\n")


async def test_trailers_of_an_empty_body_arrive(start_pod):
    port, heard = await hears(b"A-Sum: 0\r\n\r\n")
    pod = await start_pod(port, ALONE)
    await pod.ask(f"{CHUNKED}\r\n0\r\nA-Sum: 0\r\n\r\n".encode())
    assert heard[0].endswith(b"chunked\r\n\r\n0\r\nA-Sum: 0\r\n\r\n")


async def test_trailers_are_sent_again_with_their_body(model, start_pod):
    port, heard = await hears(b"A-Sum: 5\r\n\r\n")
    model.handle = reset
    document = routing(revision("a", 100), revision("b", 0, port), fallback={"chain": ["b"]})
    pod = await start_pod(model.port, document)
    reply = await pod.ask(f"{CHUNKED}\r\n3\r\nabc\r\n0\r\nA-Sum: 5\r\n\r\n".encode())
    assert reply.revision == "b"
    assert heard[0].endswith(b"\r\n\r\n3\r\nabc\r\n0\r\nA-Sum: 5\r\n\r\n")


@pytest.mark.parametrize(
    "name",
    [
        "Host", "Connection", "Upgrade", "TE", "Trailer", "Expect", "Authorization",
        "Cookie", "Set-Cookie", "Content-Type", "Content-Encoding", "Content-Range", "X-Forwarded-For", "Forwarded",
        "Proxy-Authorization", "coalmine-revision", "coalmine-reason", "Inference-Header-Content-Length",
    ],
)  # fmt: skip
async def test_what_frames_routes_or_authenticates_does_not_come_late(start_pod, name):
    trailers = f"0\r\nX-Good: 1\r\n{name}: 1\r\n\r\n"
    framing = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"
    port, heard = await hears(b"X-Good: 1\r\n\r\n", answers=framing + trailers.encode())
    pod = await start_pod(port, ALONE)
    client = await Client.connect(pod.ingress)
    await client.send(f"{CHUNKED}\r\n3\r\nabc\r\n{trailers}".encode())
    assert (await client.reader.readuntil(b"0\r\nX-Good: 1\r\n\r\n")).count(b"X-Good") == 1
    assert heard[0].endswith(b"3\r\nabc\r\n0\r\nX-Good: 1\r\n\r\n")
    await client.close()


async def test_an_answers_trailers_arrive(model, start_pod):
    model.handle = says(
        b"HTTP/1.1 200 OK\r\nTrailer: Server-Timing\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
        b"Server-Timing: gpu;dur=5\r\ngrpc-status: 0\r\n\r\n"
    )
    pod = await start_pod(model.port, ALONE)
    client = await Client.connect(pod.ingress)
    for _ in range(2):
        await client.send(get(headers="TE: trailers\r\nConnection: TE\r\n"))
        whole = await client.reader.readuntil(b"grpc-status: 0\r\n\r\n")
        assert b"\r\nTrailer: Server-Timing\r\n" in whole
        assert whole.endswith(b"\r\n\r\n3\r\nabc\r\n0\r\nServer-Timing: gpu;dur=5\r\ngrpc-status: 0\r\n\r\n")
    assert model.requests[0].headers == [("Host", "m"), ("te", "trailers"), ("connection", "te")]
    assert model.connections == 1
    await client.send(b"GET / HTTP/1.0\r\n\r\n")
    assert (await client.rest()).endswith(b"\r\n\r\nabc"), "HTTP/1.0 has no place for them"


async def test_te_is_for_the_last_hop_unless_it_says_that_it_takes_trailers(model, start_pod):
    pod = await start_pod(model.port, ALONE)
    await pod.ask(get(headers="TE: gzip\r\nConnection: TE\r\n"))
    await pod.ask(get(headers="TE: trailers\r\n"))
    assert [r.names() for r in model.requests] == [["Host"], ["Host"]]


async def test_trailers_have_a_limit(model, start_pod):
    short = {"limits": {"headBytes": 1024}, "timeouts": {"keepalive": 0.2}}
    pod = await start_pod(model.port, routing(revision("a", 100), **short))
    reply = await pod.ask(f"{CHUNKED}\r\n3\r\nabc\r\n0\r\nX-T: {'v' * 2000}\r\n\r\n".encode())
    assert reply.status == 431
    assert model.requests == []
    long = b"X-T: " + b"v" * 70_000
    model.handle = says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + long + b"\r\n\r\n")
    client = await Client.connect(pod.ingress)
    await client.send(get())
    assert not (await client.rest()).endswith(b"0\r\n\r\n")
    assert pod.outcomes() == {"rejected": 1, "model_error": 1}


# Interim answers


HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nConnection: x-mine\r\nX-Mine: 1\r\n\r\n"
HINT_SEEN = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"


async def test_early_hints_arrive_early(model, start_pod):
    gate = asyncio.Event()

    async def hint(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(HINT + b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        await gate.wait()
        writer.write(answer(b"real"))

    model.handle = hint
    pod = await start_pod(model.port, ALONE)
    client = await Client.connect(pod.ingress)
    await client.send(get())
    assert await client.reader.readuntil(b"102 Processing\r\n\r\n") == HINT_SEEN + b"HTTP/1.1 102 Processing\r\n\r\n"
    gate.set()
    reply = await client.answer()
    assert (reply.status, reply.body, reply.header("link")) == (200, b"real", None)
    assert pod.outcomes() == {"ok": 1}
    await client.close()


async def test_http_1_0_clients_get_no_hints(model, start_pod):
    model.handle = says(HINT + answer(b"real"))
    pod = await start_pod(model.port, ALONE)
    reply = await pod.ask(b"GET / HTTP/1.0\r\n\r\n")
    assert (reply.status, reply.body) == (200, b"real")


async def test_a_hint_is_no_answer_that_would_bar_another_revision(model, other, start_pod):
    async def hint_and_break(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(HINT)
        await writer.drain()
        writer.close()

    model.handle = hint_and_break
    document = routing(revision("a", 100), revision("b", 0, other.port), fallback={"chain": ["b"]})
    pod = await start_pod(model.port, document)
    client = await Client.connect(pod.ingress)
    await client.send(post())
    assert await client.reader.readuntil(b"\r\n\r\n") == HINT_SEEN
    reply = await client.answer()
    assert (reply.status, reply.body, reply.revision) == (200, V2, "b")
    assert pod.telemetry.fallbacks["a", "b"]["reset"] == 1
    await client.close()


async def test_hints_without_end_are_cut_off(model, start_pod):
    async def hint(_: Request, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(HINT)
            await writer.drain()

    model.handle = hint
    pod = await start_pod(model.port, ALONE)
    client = await Client.connect(pod.ingress)
    await client.send(get())
    seen = b""
    while b"HTTP/1.1 502" not in seen:
        seen += await client.reader.read(65536)
    assert len(seen) < 500_000
    await client.close()


# Both ways at once


async def test_an_answer_that_begins_before_the_upload_ends(start_pod):
    """An echo in full duplex (knative/serving#12387)."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while size := int(await reader.readline(), 16):
            writer.write(b"%x\r\n%b" % (size, await reader.readexactly(size + 2)))
        await reader.readline()
        writer.write(b"0\r\n\r\n")

    pod = await start_pod(await listen_raw(echo), routing(revision("a", 100), limits={"replayBytes": 10}))
    client = await Client.connect(pod.ingress)
    await client.send(f"{CHUNKED}\r\n14\r\n{'x' * 20}\r\n".encode())
    await client.reader.readuntil(b"14\r\n" + b"x" * 20 + b"\r\n")
    for letter in b"abc":
        await client.send(b"5\r\n" + bytes([letter]) * 5 + b"\r\n")
        await asyncio.wait_for(client.reader.readuntil(b"5\r\n" + bytes([letter]) * 5 + b"\r\n"), 5)
    await client.send(b"0\r\n\r\n")
    assert await client.rest() == b"0\r\n\r\n"
    assert pod.outcomes() == {"ok": 1}


# Ends


async def test_a_reset_inside_an_answer_that_only_its_end_frames_is_a_reset(start_pod):
    """For an HTTP/1.0 client an orderly end would be a whole answer."""
    go = asyncio.Event()

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await go.wait()
        reset_transport(writer.transport)

    pod = await start_pod(await listen_raw(break_off), ALONE)
    client = await Client.connect(pod.ingress)
    await client.send(b"GET / HTTP/1.0\r\n\r\n")
    await client.reader.readuntil(b"half")
    go.set()
    with pytest.raises(ConnectionResetError):
        await client.reader.read(1)
    assert pod.outcomes() == {"model_error": 1}


@pytest.mark.parametrize("end", [asyncio.StreamWriter.close, lambda writer: reset_transport(writer.transport)])
@pytest.mark.parametrize(
    "framing", ["Content-Length: 100\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"]
)
async def test_an_answer_cut_short_is_never_whole(start_pod, end, framing):
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\n{framing}".encode())
        await writer.drain()
        await asyncio.sleep(0.05)
        end(writer)

    pod = await start_pod(await listen_raw(break_off), ALONE)
    client = await Client.connect(pod.ingress)
    await client.send(get())
    with pytest.raises(asyncio.IncompleteReadError):
        await client.answer()
    assert pod.outcomes() == {"model_error": 1}
    assert pod.telemetry.epoch("a").errors == 1


@pytest.mark.parametrize("held", [True, False])
async def test_a_client_that_breaks_while_uploading_breaks_the_upload(start_pod, held):
    ended = asyncio.get_running_loop().create_future()

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            ended.set_result(await reader.read(-1))
        except ConnectionError as error:
            ended.set_result(error)

    limits = {"replayBytes": 1 << 20 if held else 10}
    pod = await start_pod(await listen_raw(read), routing(revision("a", 100), limits=limits))
    client = await Client.connect(pod.ingress)
    await client.send(b"POST / HTTP/1.1\r\nHost: m\r\nContent-Length: 1000\r\n\r\n" + b"x" * 500)
    await asyncio.sleep(0.1)
    reset_transport(client.writer.transport)
    await eventually(lambda: not pod.relay.ingress.connections)
    if held:
        assert not ended.done(), "a request that never was whole reaches no model"
        assert pod.outcomes() == {}
    else:
        got = await asyncio.wait_for(ended, 5)
        assert isinstance(got, ConnectionError) or got.endswith(b"\r\n\r\n" + b"x" * 500)
        assert pod.outcomes() == {"cancelled": 1}


# Idle connections


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_server_that_ends_idle_connections_in_a_race_with_requests_costs_no_answer(start_pod, method):
    """The server ends the connection just as the next request comes: before, while and after it is sent."""
    served = 0

    async def once_then_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        await reader.readuntil(b"\r\n\r\n" if method == "GET" else b"{}")
        served += 1
        writer.write(answer())
        await writer.drain()
        await asyncio.sleep(0.002 * (served % 5))
        if served % 2:
            writer.close()
        else:
            reset_transport(writer.transport)

    pod = await start_pod(await listen_raw(once_then_end), ALONE)
    client = await Client.connect(pod.ingress)
    request = get() if method == "GET" else post()
    for number in range(60):
        assert (await client.ask(request)).status == 200
        await asyncio.sleep(0.002 * (number % 4))
    assert pod.outcomes() == {"ok": 60}
    assert pod.telemetry.epoch("a").errors == 0
    await client.close()

"""gRPC's part of invariant 7: no error a client need not see, no answer twice, nothing without a bound."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import grpc
import pytest
from tests.relay.grpc_client import REQUEST, Raw, answered_by, one, request, unary
from tests.relay.grpc_model import INFER
from tests.relay.harness import Upstream, eventually, free_port, listen_raw, revision, routing

from coalmine_sidecar.relay.h2 import frames
from coalmine_sidecar.relay.h2.client import MAX_RESETS, MAX_STREAMS
from coalmine_sidecar.relay.h2.link import CHATTER


def armed(port: int, **more):
    """Everything is for `a` (the pod's own model); `b` is its fallback, on another pod."""
    options = {"fallback": {"chain": ["b"]}, "timeouts": {"response": 0.3}} | more
    return routing(revision("a", 100), revision("b", 0, port, track="fallback"), **options)


async def failure(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value


# Who answers


async def test_a_model_that_is_not_there(start_model, start_pod, dial):
    other = await start_model("b")
    pod = await start_pod(free_port(), armed(other.port))
    channel = dial(pod.ingress)
    for size in (1, 3_000_000):
        call = unary(channel)(b"x" * size)
        assert await call == b"x" * size
        assert await answered_by(call) == "b"
    reasons = pod.telemetry.fallbacks["a", "b"]
    assert reasons["refused"] + reasons["no_endpoint"] == 2
    assert pod.telemetry.epoch("a").errors == 2
    assert pod.relay._model.failures == 0, "what gRPC meets is not held against HTTP/1.1"


async def test_a_model_out_of_service(start_model, start_pod, dial):
    model, other = await start_model("a"), await start_model("b")
    model.failing = (14, "loading")
    pod = await start_pod(model.port, armed(other.port))
    call = unary(dial(pod.ingress))(b"hello")
    assert (await call, await answered_by(call)) == (b"hello", "b")
    assert pod.telemetry.fallbacks["a", "b"]["status"] == 1
    await other.stop()
    error = await failure(unary(dial(pod.ingress))(b"hello"))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "loading"), "the model's own words"
    assert dict(error.trailing_metadata())["why"] == "loading"


async def test_errors_of_the_request_are_the_clients(start_model, start_pod, dial):
    model, other = await start_model("a"), await start_model("b")
    pod = await start_pod(model.port, armed(other.port))
    channel = dial(pod.ingress)
    for code, outcome in ((3, "client_error"), (5, "client_error"), (13, "model_error")):
        model.failing = (code, "no")
        assert (await failure(unary(channel)(b""))).code().value[0] == code
        await eventually(lambda wanted=outcome: wanted in pod.outcomes("a"))
    assert (await failure(unary(channel, "/any.Service/Missing")(b""))).code() is grpc.StatusCode.UNIMPLEMENTED
    await eventually(lambda: pod.outcomes("a") == {"client_error": 3, "model_error": 1})
    cell = pod.telemetry.epoch("a")
    assert (cell.requests, cell.client_errors, cell.errors) == (4, 3, 1)
    assert other.paths == []


async def test_a_model_that_is_silent(start_model, start_pod, dial):
    model, other = await start_model("a"), await start_model("b")
    other.hang = other.echo
    pod = await start_pod(model.port, armed(other.port))
    call = unary(dial(pod.ingress), "/any.Service/Hang")(b"x", timeout=20)
    assert (await call, await answered_by(call)) == (b"x", "b")
    assert pod.telemetry.fallbacks["a", "b"]["timeout"] == 1
    await eventually(lambda: model.cancelled == 1)


async def test_a_call_that_may_not_be_served_twice(start_model, start_pod, dial):
    model, other = await start_model("a"), await start_model("b")
    pod = await start_pod(model.port, armed(other.port, idempotent=False))
    error = await failure(unary(dial(pod.ingress), "/any.Service/Hang")(b"x"))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (
        dict(error.initial_metadata() or ()).get("coalmine-error")
        or dict(error.trailing_metadata())["coalmine-error"] == "upstream"
    )
    assert other.paths == []


async def test_a_model_that_speaks_http_only(start_model, start_pod, dial):
    http, other = Upstream(), await start_model("b")
    await http.start()
    pod = await start_pod(http.port, armed(other.port))
    call = unary(dial(pod.ingress))(b"x")
    assert (await call, await answered_by(call)) == (b"x", "b")
    await http.stop()


async def test_nobody_is_there(start_pod, dial):
    pod = await start_pod(free_port(), one())
    error = await failure(unary(dial(pod.ingress))(b"x"))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "a: the model refused the connection")
    assert dict(error.trailing_metadata())["coalmine-error"] == "upstream"
    assert pod.outcomes() == {"model_error": 1}


async def test_two_hops(start_model, start_pod, dial):
    """The ingress of one pod asks the local port of another; that one's model is away, so a third answers."""
    away = await start_pod(free_port(), routing(revision("b", 100)), revision="b")
    there = await start_model("c")
    third = await start_pod(there.port, routing(revision("c", 100)), revision="c")
    chain = routing(
        revision("b", 100, away.local), revision("c", 0, third.local, track="fallback"), fallback={"chain": ["c"]}
    )
    pod = await start_pod(free_port(), chain, revision="a")
    call = unary(dial(pod.ingress))(b"x")
    assert (await call, await answered_by(call)) == (b"x", "c")
    assert pod.telemetry.fallbacks["b", "c"]["refused"] == 1
    await eventually(lambda: third.outcomes("c", "local") == {"ok": 1})


# Deadlines and cancelling


async def test_a_deadline_reaches_the_model(start_model, start_pod, dial):
    model = await start_model()
    pod = await start_pod(model.port, one())
    error = await failure(unary(dial(pod.ingress), "/any.Service/Hang")(b"x", timeout=0.3))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: model.cancelled == 1)
    await eventually(lambda: sum(pod.outcomes().values()) == 1)
    assert set(pod.outcomes()) <= {"timeout", "cancelled"}, "whoever looked at the clock first"


async def test_a_client_that_cancels(start_model, start_pod, dial):
    model = await start_model()
    pod = await start_pod(model.port, one())
    call = dial(pod.ingress).unary_stream("/any.Service/Count")(b"100000000")
    assert await call.read() == b"0"
    call.cancel()
    await eventually(lambda: model.cancelled == 1)
    await eventually(lambda: pod.outcomes() == {"cancelled": 1})


async def test_a_client_that_vanishes(start_model, start_pod, dial):
    model = await start_model()
    pod = await start_pod(model.port, one())
    client = await Raw.connect(pod.ingress)
    client.call(1, request("/any.Service/Hang"))
    await eventually(lambda: model.paths == ["/any.Service/Hang"])
    client.client.writer.transport.abort()
    await eventually(lambda: model.cancelled == 1)
    await eventually(lambda: pod.outcomes() == {"cancelled": 1})


# Size


async def test_large_messages(start_model, start_pod, dial):
    model = await start_model()
    pod = await start_pod(model.port, one())
    body = bytes(range(256)) * 40_000  # 10 MB
    assert await unary(dial(pod.ingress))(body) == body
    await eventually(lambda: pod.outcomes() == {"ok": 1})
    assert pod.series().request_bytes.total == len(body) + 5


async def test_a_message_that_is_too_long_is_refused_and_a_long_stream_is_not(start_model, start_pod, dial):
    model = await start_model()
    pod = await start_pod(model.port, one(limits={"bodyBytes": 1000}))
    channel = dial(pod.ingress)
    error = await failure(unary(channel)(b"x" * 1001))
    assert (error.code(), error.details()) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "a message is longer than 1000 bytes",
    )
    assert pod.outcomes() == {"rejected": 1}
    pieces = [b"x" * 1000] * 100
    assert await channel.stream_unary("/any.Service/Collect")(iter(pieces)) == b"".join(pieces)


async def test_a_client_that_does_not_read_holds_up_its_model_and_nothing_else(start_model, start_pod, dial):
    model = await start_model(answer=b"x" * 10_000_000)
    pod = await start_pod(model.port, one())
    client = await Raw.connect(pod.ingress)
    client.call(1, request(INFER))
    got = 0
    while got < 65535:  # the window that a client begins with
        kind, _, _, payload = await client.frame()
        got += len(payload) if kind == frames.DATA else 0
    assert await unary(dial(pod.ingress))(b"other") == b"other"
    stuck = [stream for link in pod.relay._model.twin.links for stream in link.streams.values()]
    assert len(stuck) == 1
    assert sum(map(len, stuck[0].call._down._pending)) <= 262_144
    client.client.writer.transport.abort()
    await eventually(lambda: pod.outcomes().get("cancelled") == 1)


# The wire


def bomb() -> bytes:
    """One large field in the table, then named over and over: 4 KB that stand for 16 MB."""
    first = b"\x40\x01x\x7f\xa1\x1e" + b"v" * 4000
    return first + b"\xbe" * 4000


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frames.headers(bomb(), 0, 1, 16384), frames.ENHANCE_YOUR_CALM),
        (frames.frame(frames.HEADERS, 0, 1, b"\x82") + frames.frame(frames.CONTINUATION, 0, 1), 0xB),
        (frames.frame(frames.HEADERS, 0, 1, b"\x82") + frames.frame(frames.CONTINUATION, 0, 1, b"\0" * 16000) * 5, 0xB),
        (frames.frame(frames.HEADERS, 0, 1, b"\x82") + frames.ping(bytes(8)), frames.PROTOCOL_ERROR),
        (frames.headers(b"\xff\xff\xff\xff\xff\xff", 1, 1, 16384), frames.COMPRESSION_ERROR),
        (frames.headers(b"\x82", 1, 2, 16384), frames.PROTOCOL_ERROR),
        (frames.frame(frames.DATA, 0, 5, b"x"), frames.PROTOCOL_ERROR),
        (frames.frame(frames.PUSH_PROMISE, 4, 1, bytes(8)), frames.PROTOCOL_ERROR),
        (frames.frame(frames.DATA, 0, 1, b"x" * 16385), frames.FRAME_SIZE_ERROR),
        (frames.window_update(0, frames.LARGEST), frames.FLOW_CONTROL_ERROR),
        (frames.settings({frames.INITIAL_WINDOW_SIZE: 1 << 31}), frames.FLOW_CONTROL_ERROR),
        (frames.ping(bytes(8)) * (CHATTER + 1), frames.ENHANCE_YOUR_CALM),
        (frames.settings({}) * (CHATTER + 1), frames.ENHANCE_YOUR_CALM),
        (frames.frame(frames.PRIORITY, 0, 1, bytes(5)) * (CHATTER + 1), frames.ENHANCE_YOUR_CALM),
    ],
)
async def test_abuse_ends_the_connection(start_model, start_pod, sent, code):
    model = await start_model()
    pod = await start_pod(model.port, one())
    client = await Raw.connect(pod.ingress)
    client.send(sent)
    assert await client.goodbye() == code
    assert await client.client.rest() is not None
    assert pod.outcomes() == {"rejected": 1}
    assert model.paths == []


async def test_streams_opened_and_reset_in_a_row(start_model, start_pod):
    model = await start_model()
    pod = await start_pod(model.port, one())
    client = await Raw.connect(pod.ingress)
    for number in range(MAX_RESETS + 2):
        client.open(2 * number + 1)
        client.send(frames.rst_stream(2 * number + 1, frames.CANCEL))
    assert await client.goodbye() == frames.ENHANCE_YOUR_CALM


async def test_more_streams_than_allowed_are_turned_away_unread(start_model, start_pod):
    model = await start_model()
    pod = await start_pod(model.port, one())
    client = await Raw.connect(pod.ingress)
    for number in range(MAX_STREAMS + 1):
        client.open(2 * number + 1)
    _, payload = await client.until(frames.RST_STREAM)
    assert int.from_bytes(payload, "big") == frames.REFUSED_STREAM


@pytest.mark.parametrize(
    "fields",
    [
        REQUEST[1:],
        [*REQUEST, ("connection", "close")],
        [*REQUEST, ("Upper", "case")],
        [*REQUEST, (":path", "/twice")],
        [*REQUEST, ("x", "a\r\nb: c")],
        [*REQUEST, ("transfer-encoding", "chunked")],
    ],
)
async def test_malformed_heads(start_model, start_pod, fields):
    model = await start_model()
    pod = await start_pod(model.port, one())
    client = await Raw.connect(pod.ingress)
    client.open(1, fields)
    _, payload = await client.until(frames.RST_STREAM)
    assert int.from_bytes(payload, "big") == frames.PROTOCOL_ERROR
    assert model.paths == []
    client.call(3)
    await client.until(frames.HEADERS)


@pytest.mark.parametrize("cut", [3, 16, 24, 30])
async def test_a_preface_in_pieces(start_model, start_pod, cut):
    model = await start_model()
    pod = await start_pod(model.port, one())
    whole = frames.PREFACE + frames.settings({})
    client = await Raw.connect(pod.ingress, whole[:cut])
    await asyncio.sleep(0.02)
    client.send(whole[cut:])
    client.call(1)
    await client.until(frames.HEADERS)


async def test_draining_lets_calls_end_and_takes_no_new_connection_back(start_model, start_pod, dial):
    model = await start_model()
    pod = await start_pod(model.port, one())
    chat = dial(pod.ingress).stream_stream("/any.Service/Chat")()
    await chat.write(b"one")
    assert await chat.read() == b"re: one"
    idle = await Raw.connect(pod.ingress)
    await eventually(lambda: len(pod.relay.ingress.connections) == 2)
    pod.relay.ingress.drain()
    assert await idle.goodbye() == frames.NO_ERROR
    await idle.client.rest()
    await chat.write(b"two")
    assert await chat.read() == b"re: two"
    await chat.done_writing()
    assert await chat.code() is grpc.StatusCode.OK
    await eventually(lambda: not pod.relay.ingress.connections)


async def test_a_connection_made_while_draining_is_served_before_it_ends(start_model, start_pod, dial):
    model = await start_model()
    pod = await start_pod(model.port, one())
    pod.relay.ingress.drain()
    client = await Raw.connect(pod.ingress)
    client.call(1)
    await client.until(frames.DATA)
    assert await client.goodbye() == frames.NO_ERROR
    await client.client.rest()


async def turns_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that says GOAWAY to each first call, having read nothing of it."""
    await reader.readexactly(len(frames.PREFACE))
    writer.write(frames.settings({}))
    with suppress(asyncio.IncompleteReadError):
        while True:
            high, low, kind, *_ = frames.HEAD.unpack(await reader.readexactly(frames.HEAD_SIZE))
            await reader.readexactly(high << 16 | low)
            if kind == frames.HEADERS:
                writer.write(frames.goaway(0, frames.NO_ERROR))


async def test_a_model_that_turns_calls_away_unread(start_model, start_pod, dial):
    """Asked once more on a fresh connection, whatever the call is; after that the fallback's rules hold."""
    other = await start_model("b")
    pod = await start_pod(await listen_raw(turns_away), armed(other.port))
    call = unary(dial(pod.ingress))(b"x")
    assert (await call, await answered_by(call)) == (b"x", "b")
    assert pod.telemetry.revisions["a"].retries["stale"] == 1
    assert pod.telemetry.fallbacks["a", "b"]["reset"] == 1

"""gRPC on the ingress and local ports: real clients and servers of grpcio, real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import grpc
import grpc.aio
import pytest
from tests.relay.grpc_model import LARGE, Model
from tests.relay.harness import eventually, revision, routing


@pytest.fixture
async def start_model() -> AsyncIterator[Callable[..., Model]]:
    models: list[Model] = []

    async def start(name: str = "m", **options: bytes) -> Model:
        model = Model(name, **options)
        await model.start()
        models.append(model)
        return model

    yield start
    for model in models:
        await model.stop()


@pytest.fixture
async def dial() -> AsyncIterator[Callable[[int], grpc.aio.Channel]]:
    channels: list[grpc.aio.Channel] = []

    def open_channel(port: int) -> grpc.aio.Channel:
        options = [*LARGE, ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        channels.append(grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options))
        return channels[-1]

    yield open_channel
    for channel in channels:
        await channel.close()


def one(*ports: int, **more):
    return routing(revision("a", 100, *ports), **more)


def unary(channel: grpc.aio.Channel, method: str = "/any.Service/Echo"):
    return channel.unary_unary(method)


async def answered_by(call) -> str:
    return dict(await call.initial_metadata())["coalmine-revision"]


async def test_unary(start_model, start_pod, dial):
    model = await start_model()
    pod = await start_pod(model.port, one())
    call = unary(dial(pod.ingress))(b"hello", metadata=(("x-id", "1"), ("x-bytes-bin", b"\x00\x01\xfe")))
    assert await call == b"hello"
    assert await answered_by(call) == "a"
    assert dict(await call.trailing_metadata()) == {"name": "m", "end-bin": b"\x00\xff"}
    assert model.paths == ["/any.Service/Echo"]
    assert (model.seen[0]["x-id"], model.seen[0]["x-bytes-bin"]) == ("1", b"\x00\x01\xfe")
    await eventually(lambda: pod.outcomes() == {"ok": 1})
    assert pod.telemetry.epoch("a").counts().answered == 1
    series = pod.series()
    assert (series.requests[0, 200], sum(series.upstream.counts)) == (1, 1)


async def test_streams_of_all_kinds(start_model, start_pod, dial):
    model = await start_model()
    pod = await start_pod(model.port, one())
    channel = dial(pod.ingress)
    assert await channel.stream_unary("/any.Service/Collect")(iter([b"a", b"b", b"c"])) == b"abc"
    numbers = [answer async for answer in channel.unary_stream("/any.Service/Count")(b"300")]
    assert numbers == [b"%d" % number for number in range(300)]
    chat = channel.stream_stream("/any.Service/Chat")()
    for text in (b"one", b"two", b"three"):
        await chat.write(text)
        assert await chat.read() == b"re: " + text, "an answer comes before the next request"
    await chat.done_writing()
    assert await chat.read() is grpc.aio.EOF
    assert await chat.code() is grpc.StatusCode.OK
    await eventually(lambda: pod.outcomes() == {"ok": 3})

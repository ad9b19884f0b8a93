"""gRPC on the ingress and local ports: real clients and servers of grpcio, real sockets."""

from __future__ import annotations

import grpc
import grpc.aio
from tests.relay.grpc_client import answered_by, one, unary
from tests.relay.harness import eventually


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

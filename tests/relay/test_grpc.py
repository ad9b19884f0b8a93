"""gRPC on the ingress and local ports: real clients and servers of grpcio, real sockets."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter

import grpc
import grpc.aio
from tests.relay.grpc_client import answered_by, one, unary
from tests.relay.grpc_model import INFER
from tests.relay.harness import Upstream, eventually, post, revision, routing


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


async def test_each_call_of_a_connection_is_routed_by_itself_and_shares_are_exact(start_model, start_pod, dial):
    model, other = await start_model("a"), await start_model("b")
    pod = await start_pod(model.port, routing(revision("a", 75), revision("b", 25, other.port, track="canary")))
    echo = unary(dial(pod.ingress))
    answered: Counter[str] = Counter()

    async def client() -> None:
        for _ in range(50):
            call = echo(b"x")
            await call
            answered[await answered_by(call)] += 1

    await asyncio.gather(*(client() for _ in range(20)))
    assert answered == {"a": 750, "b": 250}
    assert len(pod.relay.ingress.connections) == 1
    await eventually(lambda: (pod.outcomes("a"), pod.outcomes("b")) == ({"ok": 750}, {"ok": 250}))
    assert pod.telemetry.epoch("b").requests == 250


async def test_header_match_and_affinity(start_model, start_pod, dial):
    model, other = await start_model("a"), await start_model("b")
    document = routing(
        revision("a", 100),
        revision("b", 0, other.port, track="canary"),
        match=[{"revision": "b", "headers": [{"name": "X-Team", "value": "us"}]}],
        affinity={"header": "x-user", "salt": "s"},
    )
    pod = await start_pod(model.port, document)
    echo = unary(dial(pod.ingress))
    for metadata, revised in (((("x-team", "us"),), "b"), ((("x-user", "7"),), "a"), ((), "a")):
        call = echo(b"x", metadata=metadata)
        await call
        assert await answered_by(call) == revised
    decisions = {name: counters.decisions for name, counters in pod.telemetry.revisions.items()}
    assert decisions == {"a": [1, 1, 0, 0], "b": [0, 0, 1, 0]}


async def test_outputs_of_an_inference_are_counted(start_model, start_pod, dial):
    model = await start_model()
    pod = await start_pod(model.port, one(observe={"outputs": {"score": [0.2, 0.5]}}))
    for _ in range(3):
        await unary(dial(pod.ingress), INFER)(b"")
    await eventually(lambda: pod.series().predictions == 3)
    assert pod.series().outputs.by_name["score"].bins == [0, 3, 0]
    assert pod.telemetry.epoch("a").counts().outputs["score"].bins == [0, 3, 0]
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{pod.ingress}", compression=grpc.Compression.Gzip)
    async with channel:
        await unary(channel, INFER)(b"x" * 1000)
    await eventually(lambda: pod.series().predictions + pod.series().skipped["encoding"] == 4)


async def test_grpc_on_a_port_of_its_own_beside_http(start_model, start_pod, dial):
    """As Triton and MLServer have it; clients use one port for both."""
    http = Upstream()
    await http.start()
    model = await start_model()
    pod = await start_pod(http.port, one(), model_grpc=("127.0.0.1", model.port))
    assert await unary(dial(pod.ingress))(b"x") == b"x"
    assert (await pod.ask(post())).status == 200
    await model.stop()
    assert (await pod.ask(post())).status == 200
    await http.stop()


async def test_a_new_routing_file_holds_for_the_next_call(start_model, start_pod, dial):
    model, other = await start_model("a"), await start_model("b")
    pod = await start_pod(model.port, routing(revision("a", 100), revision("b", 0, other.port)))
    channel = dial(pod.ingress)
    chat = channel.stream_stream("/any.Service/Chat")()
    await chat.write(b"1")
    await chat.read()
    pod.relay.use(routing(revision("a", 0), revision("b", 100, other.port), generation=2))
    call = unary(channel)(b"x")
    await call
    assert await answered_by(call) == "b"
    pod.relay.use(routing(revision("a", 100), generation=3))
    await chat.write(b"2")
    assert await chat.read() == b"re: 2"
    await chat.done_writing()
    assert await chat.code() is grpc.StatusCode.OK


async def test_a_killed_stable_is_replaced_by_its_fallback_under_load(start_model, start_pod, dial):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.relay.grpc_model", "a", "0", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    other = await start_model("b")
    chain = routing(revision("a", 100), revision("b", 0, other.port, track="fallback"), fallback={"chain": ["b"]})
    pod = await start_pod(port, chain)
    echo = unary(dial(pod.ingress))
    answered: Counter[str] = Counter()
    stopping = asyncio.Event()

    async def client() -> None:
        while not stopping.is_set():
            call = echo(b"x" * 1000)
            assert await call == b"x" * 1000
            answered[await answered_by(call)] += 1

    clients = [asyncio.create_task(client()) for _ in range(8)]
    await eventually(lambda: answered["a"] > 50, 20)
    process.kill()
    await eventually(lambda: answered["b"] > 50, 20)
    stopping.set()
    await asyncio.gather(*clients)
    await process.wait()
    await eventually(lambda: pod.outcomes("a") == {"ok": answered["a"]})
    assert pod.outcomes("b") == {"ok": answered["b"]}

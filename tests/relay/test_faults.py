"""The matrix of faults: whatever goes wrong on either side, what the client gets, and the counters that tell of it."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import pytest
from tests.relay.harness import (
    V2,
    Client,
    Handler,
    Pod,
    Upstream,
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
    silent,
)

from coalmine_sidecar.contract import OUTCOMES

MODEL_ERROR = OUTCOMES.index("model_error")
TIMEOUTS = {"response": 0.3, "idle": 0.3}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
IN_CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def then_end(data: bytes) -> Handler:
    async def handle(_, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()

    return handle


def then_silence(data: bytes) -> Handler:
    async def handle(_, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await asyncio.sleep(60)

    return handle


async def dripping_head(_, writer: asyncio.StreamWriter) -> None:
    for byte in answer(b"x" * 10, headers="x: " + "y" * 1000 + "\r\n"):
        writer.write(bytes([byte]))
        await asyncio.sleep(0.02)


async def dripping_chunk_sizes(_, writer: asyncio.StreamWriter) -> None:
    """No more bytes of the body, and no end of what is beside it."""
    writer.write(IN_CHUNKS + b"1\r\nx\r\n")
    await asyncio.sleep(0.1)
    writer.write(b"1;")
    while not writer.is_closing():
        writer.write(b"x" * 16384)
        await writer.drain()


class Fault(NamedTuple):
    name: str
    #: None: nobody listens.
    handle: Handler | None
    #: What the client gets where nobody else can answer; cut: after a head of 200.
    status: int
    outcome: str
    cut: bool = False
    #: The kind of connection error, and the reason of the fallback; "" where there is none.
    kind: str = ""
    fallback: str = ""


FAULTS = [
    Fault("refuses", None, 502, "model_error", kind="connect", fallback="refused"),
    Fault("says nothing", silent, 504, "timeout", kind="timeout", fallback="timeout"),
    Fault("resets before the head", reset, 502, "model_error", kind="reset", fallback="reset"),
    Fault("ends before the head", then_end(b""), 502, "model_error", kind="reset", fallback="reset"),
    Fault(
        "ends inside the head", then_end(b"HTTP/1.1 200 OK\r\nX"), 502, "model_error", kind="reset", fallback="reset"
    ),
    Fault(
        "silent inside the head", then_silence(b"HTTP/1.1 200 O"), 504, "timeout", kind="timeout", fallback="timeout"
    ),
    Fault("drips its head", dripping_head, 504, "timeout", kind="timeout", fallback="timeout"),
    Fault("no HTTP", then_silence(b"SSH-2.0-OpenSSH\r\n"), 502, "model_error", kind="reset", fallback="reset"),
    Fault("503", says(answer(b"x", status="503 Busy")), 503, "model_error", fallback="status"),
    Fault("ends inside the body", then_end(HEAD + b"half"), 200, "model_error", cut=True),
    Fault("ends inside the chunks", then_end(IN_CHUNKS + b"4\r\nhalf\r\n"), 200, "model_error", cut=True),
    Fault("ends without the last chunk", then_end(IN_CHUNKS + b"4\r\nhalf\r\n0\r\n"), 200, "model_error", cut=True),
    Fault("silent inside the body", then_silence(HEAD + b"half"), 200, "timeout", cut=True),
    Fault("silent inside the chunks", then_silence(IN_CHUNKS + b"4\r\nhalf\r\n"), 200, "timeout", cut=True),
    Fault("drips beside the body", dripping_chunk_sizes, 200, "model_error", cut=True),
    Fault("says less than it says", then_end(HEAD + b"x" * 99), 200, "model_error", cut=True),
]
NAMES = [fault.name for fault in FAULTS]


@pytest.mark.parametrize("fault", FAULTS, ids=NAMES)
async def test_a_fault_of_the_model_where_nobody_else_answers(model: Upstream, start_pod, fault: Fault):
    if fault.handle is not None:
        model.handle = fault.handle
    port = model.port if fault.handle is not None else free_port()
    pod: Pod = await start_pod(port, routing(revision("a", 100), timeouts=TIMEOUTS))
    client = await Client.connect(pod.ingress)
    await client.send(post())
    if fault.cut:
        with pytest.raises((asyncio.IncompleteReadError, ValueError)):
            await asyncio.wait_for(client.answer(), 10)
    else:
        reply = await asyncio.wait_for(client.answer(), 10)
        assert reply.status == fault.status
        assert (reply.header("coalmine-error") == "upstream") is (reply.status != 503), "503 is the model's own"
    await eventually(lambda: pod.outcomes())
    assert pod.outcomes() == {fault.outcome: 1}
    assert {code for (_, code), count in pod.series().requests.items() if count} == {fault.status}
    counters = pod.telemetry.revisions["a"]
    assert {kind: count for kind, count in counters.connection_errors.items() if count} == (
        {fault.kind: 1} if fault.kind else {}
    )
    cell = pod.telemetry.epoch("a")
    assert (cell.requests, cell.errors) == (1, 1)


@pytest.mark.parametrize("fault", [f for f in FAULTS if f.fallback], ids=[f.name for f in FAULTS if f.fallback])
async def test_a_fault_of_the_model_that_another_revision_makes_good(model, other, start_pod, fault: Fault):
    if fault.handle is not None:
        model.handle = fault.handle
    port = model.port if fault.handle is not None else free_port()
    document = routing(revision("a", 100), revision("b", 0, other.port), fallback={"chain": ["b"]}, timeouts=TIMEOUTS)
    pod: Pod = await start_pod(port, document)
    reply = await asyncio.wait_for(pod.ask(post()), 10)
    assert (reply.status, reply.body, reply.revision) == (200, V2, "b")
    assert (pod.outcomes("a"), pod.outcomes("b")) == ({}, {"ok": 1})
    assert {reason: n for reason, n in pod.telemetry.fallbacks["a", "b"].items() if n} == {fault.fallback: 1}
    assert (pod.telemetry.epoch("a").errors, pod.telemetry.epoch("b").requests) == (1, 0)


async def test_both_versions_down(start_pod):
    document = routing(revision("a", 100), revision("b", 0, free_port()), fallback={"chain": ["b"]})
    pod: Pod = await start_pod(free_port(), document)
    client = await Client.connect(pod.ingress)
    for number in range(1, 6):
        reply = await client.ask(post())
        assert (reply.status, reply.header("coalmine-error"), reply.revision) == (502, "upstream", None)
        assert reply.error == "a: the model refused the connection"
        assert (pod.outcomes("a"), pod.outcomes("b")) == ({"model_error": number}, {})
        assert pod.telemetry.epoch("a").errors == number
    assert pod.telemetry.epoch("b").requests == 0
    assert pod.telemetry.fallbacks == {}
    assert pod.telemetry.revisions["b"].connection_errors["connect"] >= 1
    await client.close()


async def test_both_versions_broken_in_their_own_ways(model, other, start_pod):
    model.handle, other.handle = reset, silent
    document = routing(revision("a", 100), revision("b", 0, other.port), fallback={"chain": ["b"]}, timeouts=TIMEOUTS)
    pod: Pod = await start_pod(model.port, document)
    assert (await pod.ask(post())).status == 504
    assert (pod.outcomes("a"), pod.outcomes("b")) == ({"timeout": 1}, {})
    assert pod.telemetry.revisions["a"].connection_errors["reset"] == 1
    assert pod.telemetry.revisions["b"].connection_errors["timeout"] == 1


async def test_an_error_inside_a_stream_that_began_well_is_the_models_word(model, start_pod):
    """No status tells of it, and nothing of it is ours to change."""
    events = b'data: {"token": 1}\n\n', b'data: {"error": {"message": "out of memory"}}\n\n'

    async def stream(_, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for event in events:
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await asyncio.sleep(0.02)
        writer.write(b"0\r\n\r\n")

    model.handle = stream
    pod: Pod = await start_pod(model.port, routing(revision("a", 100)))
    reply = await pod.ask(post())
    assert (reply.status, reply.body) == (200, b"".join(events))
    assert pod.outcomes() == {"ok": 1}


async def test_a_stream_that_goes_on_for_longer_than_any_silence_may_last(model, start_pod):
    async def stream(_, writer: asyncio.StreamWriter) -> None:
        writer.write(IN_CHUNKS)
        for _ in range(12):
            writer.write(b"1\r\nx\r\n")
            await asyncio.sleep(0.1)
        writer.write(b"0\r\n\r\n")

    model.handle = stream
    pod: Pod = await start_pod(model.port, routing(revision("a", 100), timeouts=TIMEOUTS | {"idle": 1}))
    assert (await pod.ask(post())).body == b"x" * 12
    assert pod.outcomes() == {"ok": 1}


# Clients

LENGTH = b"POST / HTTP/1.1\r\nHost: m\r\nContent-Length: 5000\r\n\r\n"


@pytest.mark.parametrize("replay", [10_000, 1000, 0], ids=["held", "held, then streamed", "streamed"])
@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_a_body_that_drips_has_a_bound(start_pod, replay, framing):
    """Each byte comes in time; together they would keep the model's worker for as long as the client likes."""
    heard = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        heard.set()

    document = routing(revision("a", 100), timeouts={"idle": 0.4}, limits={"replayBytes": replay})
    pod: Pod = await start_pod(await listen_raw(listen), document)
    client = await Client.connect(pod.ingress)
    if framing == "length":
        await client.send(LENGTH)
    else:
        await client.send(b"POST / HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n")

    async def drip() -> None:
        while True:
            await client.send(b"x" if framing == "length" else b"1\r\nx\r\n")
            await asyncio.sleep(0.05)

    task = asyncio.create_task(drip())
    assert (await asyncio.wait_for(client.answer(), 20)).status == 408
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await eventually(lambda: pod.outcomes() == {"rejected": 1})
    assert pod.telemetry.epoch("a").errors == 0, "no fault of the model"
    if replay == 0 and framing == "length":
        await asyncio.wait_for(heard.wait(), 5)


@pytest.mark.parametrize("replay", [100_000, 0], ids=["held", "streamed"])
async def test_a_body_that_comes_slowly_yet_steadily_is_waited_for(model, start_pod, replay):
    document = routing(revision("a", 100), timeouts={"idle": 0.5}, limits={"replayBytes": replay})
    pod: Pod = await start_pod(model.port, document)
    client = await Client.connect(pod.ingress)
    await client.send(LENGTH)
    for _ in range(10):
        await client.send(b"x" * 500)
        await asyncio.sleep(0.1)
    assert (await client.answer()).status == 200
    assert model.requests[0].body == b"x" * 5000
    assert pod.outcomes() == {"ok": 1}
    await client.close()


async def test_a_conversation_goes_at_its_own_pace(start_pod):
    """The model answers as the body comes; nobody is kept waiting by it."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(IN_CHUNKS)
        while (size := int(await reader.readline(), 16)) > 0:
            writer.write(b"%x\r\n%b" % (size, await reader.readexactly(size + 2)))
        await reader.readline()
        writer.write(b"0\r\n\r\n")

    document = routing(revision("a", 100), timeouts={"idle": 0.5}, limits={"replayBytes": 0})
    pod: Pod = await start_pod(await listen_raw(talk), document)
    client = await Client.connect(pod.ingress)
    await client.send(b"POST / HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(12):
        await client.send(b"1\r\nx\r\n")
        await client.reader.readuntil(b"1\r\nx\r\n")
        await asyncio.sleep(0.1)
    await client.send(b"0\r\n\r\n")
    assert await client.rest() == b"0\r\n\r\n"
    assert pod.outcomes() == {"ok": 1}


async def test_a_client_that_leaves_while_its_next_requests_wait(model, start_pod):
    model.handle = silent
    pod: Pod = await start_pod(model.port, routing(revision("a", 100)))
    client = await Client.connect(pod.ingress)
    await client.send(post() + get("/2") + get("/3"))
    await eventually(lambda: model.requests)
    client.writer.transport.abort()
    await eventually(lambda: not pod.relay.ingress.connections)
    await asyncio.sleep(0.1)
    assert len(model.requests) == 1, "what waits for a client that left is not asked"
    assert pod.outcomes() == {"cancelled": 1}
    assert pod.telemetry.epoch("a").requests == 0


@pytest.mark.parametrize(
    "ahead", [get("/2") + get("/3"), b"abc", b"POST / HTTP/1.1\r\nHost: m\r\nContent-Length: 9\r\n\r\nabc"]
)
async def test_a_client_that_leaves_after_it_sent_ahead(ahead, model, start_pod):
    """What comes while an answer is under way must not hide that nobody waits for it any longer."""
    model.handle = silent
    pod: Pod = await start_pod(model.port, routing(revision("a", 100)))
    client = await Client.connect(pod.ingress)
    await client.send(post())
    await eventually(lambda: model.requests)
    await client.send(ahead)
    await asyncio.sleep(0.05)
    client.writer.transport.abort()
    await eventually(lambda: not pod.relay.ingress.connections)
    assert len(model.requests) == 1
    assert pod.outcomes()["cancelled"] == 1


async def test_many_clients_that_do_not_read_cost_little_memory_each(model, start_pod):
    """Eight answers of 32 MB that nobody takes."""
    written = 0

    async def flood(_, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (32 << 20))
        for _ in range(512):
            writer.write(b"x" * 65536)
            await writer.drain()
            written += 65536

    model.handle = flood
    pod: Pod = await start_pod(model.port, routing(revision("a", 100)))
    clients = [await Client.connect(pod.ingress) for _ in range(8)]
    for client in clients:
        client.reader._limit = 1  # type: ignore[attr-defined] # the stream stops reading at once
        await client.send(get())
    before = -1
    while written != before:
        before = written
        await asyncio.sleep(0.4)
    buffers = [c.transport.get_write_buffer_size() for c in pod.relay.ingress.connections]
    assert len(buffers) == 8
    assert max(buffers) < 1 << 20, "of what the model said more is kept than its reader and the kernel will take"
    for client in clients:
        client.writer.transport.abort()
    await eventually(lambda: pod.outcomes() == {"cancelled": 8})


async def test_a_routing_file_that_flips_while_a_body_streams_up_and_an_answer_down(model, other, start_pod):
    gate = asyncio.Event()

    async def slow(request, writer: asyncio.StreamWriter) -> None:
        writer.write(IN_CHUNKS + b"3\r\nold\r\n")
        await gate.wait()
        writer.write(b"0\r\n\r\n")

    model.handle = slow
    document = {"limits": {"replayBytes": 100}}
    pod: Pod = await start_pod(model.port, routing(revision("a", 100), **document))
    up, down = await Client.connect(pod.ingress), await Client.connect(pod.ingress)
    await down.send(get())
    await down.reader.readuntil(b"old\r\n")
    await up.send(LENGTH + b"x" * 2500)
    await eventually(lambda: model.connections == 2)
    for generation in range(2, 12):
        pod.relay.use(routing(revision("b", 100, other.port), generation=generation, **document))
        assert (await pod.ask(post())).revision == "b"
    await up.send(b"x" * 2500)
    await eventually(lambda: len(model.requests) == 2)
    gate.set()
    assert (await up.answer()).body == b"old"
    assert await down.reader.readuntil(b"0\r\n\r\n") == b"0\r\n\r\n"
    assert pod.telemetry.revisions["b"].series["ingress"].outcomes() == {"ok": 10}
    await up.close()
    await down.close()


@pytest.mark.parametrize("length", [True, False])
async def test_an_error_inside_a_stream_that_began_with_200(model, other, start_pod, length):
    """It is out, so nobody else answers; and it is the model's failure all the same."""
    event = b'data: {"error":{"message":"out of memory","code":500}}\n\ndata: [DONE]\n\n'
    stream = "content-type: text/event-stream\r\n"
    in_chunks = f"HTTP/1.1 200 OK\r\n{stream}transfer-encoding: chunked\r\n\r\n".encode()
    model.handle = says(
        answer(event, headers=stream) if length else in_chunks + b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event)
    )
    document = routing(revision("a", 100), revision("b", 0, other.port, track="fallback"), fallback={"chain": ["b"]})
    pod: Pod = await start_pod(model.port, document)
    reply = await pod.ask(post(path="/v1/chat/completions"))
    assert (reply.status, reply.body, reply.revision, reply.header("coalmine-error")) == (200, event, "a", None)
    await eventually(lambda: pod.outcomes())
    assert {key: count for key, count in pod.series().requests.items() if count} == {(MODEL_ERROR, 200): 1}
    cell = pod.telemetry.epoch("a")
    assert (cell.requests, cell.errors, cell.whole) == (1, 1, 0)
    assert pod.series().generations["chat"].errors == 1
    assert (other.requests, pod.telemetry.fallbacks) == ([], {})

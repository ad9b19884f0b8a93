"""The matrix of faults before a model with a queue and a breaker: no place is lost, and the breaker hears of each."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from tests.relay.harness import (
    Client,
    Pod,
    Request,
    Upstream,
    eventually,
    free_port,
    get,
    listen_raw,
    post,
    revision,
    routing,
    well,
)
from tests.relay.test_faults import FAULTS, NAMES, TIMEOUTS, Fault

ONE_AT_A_TIME = {"limit": 1, "queueDepth": 5}


def guarded(**more):
    options = {"concurrency": ONE_AT_A_TIME, "timeouts": TIMEOUTS} | more
    return routing(revision("a", 100), **options)


def gate(pod: Pod):
    found = pod.relay._model.gate
    assert found is not None
    return found


async def ask_anyhow(client: Client) -> int:
    """The status, or 0 where the answer was cut off."""
    with suppress(asyncio.IncompleteReadError, ConnectionError, ValueError):
        return (await asyncio.wait_for(client.answer(), 10)).status
    return 0


@pytest.mark.parametrize("fault", FAULTS, ids=NAMES)
async def test_who_waits_behind_a_fault_gets_its_turn(model: Upstream, start_pod, fault: Fault):
    async def once(request: Request, writer: asyncio.StreamWriter) -> None:
        if len(model.requests) == 1 and fault.handle is not None:
            await fault.handle(request, writer)
        else:
            await well(request, writer)

    model.handle = once
    port = model.port if fault.handle is not None else free_port()
    # The one behind waits for as long as the fault takes.
    pod: Pod = await start_pod(port, guarded(timeouts=TIMEOUTS | {"idle": 0.3}))
    first, second = await Client.connect(pod.ingress), await Client.connect(pod.ingress)
    await first.send(get("/first"))
    await eventually(lambda: gate(pod).running == 1 or pod.outcomes())
    await second.send(get("/second"))
    assert await ask_anyhow(first) == (0 if fault.cut else fault.status)
    status = await ask_anyhow(second)
    if fault.handle is None:
        assert status == 502
    elif status != 200:
        # It waited for as long as an answer may take, which is as long as the model was silent.
        assert (status, pod.telemetry.queue.turned_away["timeout"]) == (503, 1)
        assert (await pod.ask(post())).status == 200
    await eventually(lambda: sum(pod.outcomes().values()) >= 2)
    assert (gate(pod).load, pod.telemetry.queue.depth) == (0, 0)
    assert pod.outcomes()[fault.outcome] >= 1
    assert sum(pod.telemetry.queue.wait.counts) == sum(pod.outcomes().values())


@pytest.mark.parametrize("fault", FAULTS, ids=NAMES)
async def test_each_fault_is_one_failure_to_the_breaker(model: Upstream, start_pod, fault: Fault):
    if fault.handle is not None:
        model.handle = fault.handle
    port = model.port if fault.handle is not None else free_port()
    pod: Pod = await start_pod(port, guarded(circuitBreaker={"consecutiveFailures": 2, "minBackoff": 60}))
    breaker = pod.telemetry.revisions["a"].breaker
    for number in (1, 2):
        client = await Client.connect(pod.ingress)
        await client.send(post())
        assert await ask_anyhow(client) == (0 if fault.cut else fault.status)
        await eventually(lambda number=number: pod.outcomes() == {fault.outcome: number})
        assert breaker.state == ("closed" if number == 1 else "open")
    reply = await pod.ask(post())
    assert (reply.status, reply.header("coalmine-reason")) == (503, "breaker")
    assert pod.telemetry.epoch("a").errors == 3


@pytest.mark.parametrize("when", ["uploading", "before the answer", "inside the answer"])
async def test_a_client_that_leaves_gives_its_place_back(model: Upstream, start_pod, when: str):
    async def handle(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.target != "/leaves":
            await well(request, writer)
            return
        if when == "inside the answer":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await asyncio.sleep(60)

    model.handle = handle
    pod: Pod = await start_pod(model.port, guarded(timeouts={}, limits={"replayBytes": 10}))
    client = await Client.connect(pod.ingress)
    body = 1000 if when == "uploading" else 0
    await client.send(f"POST /leaves HTTP/1.1\r\nHost: m\r\nContent-Length: {body}\r\n\r\n".encode())
    if when == "uploading":
        await client.send(b"x" * 500)
    await eventually(lambda: gate(pod).running == 1 and (model.requests or when == "uploading"))
    if when == "inside the answer":
        assert b"half" in await client.reader.readuntil(b"half")
    behind = asyncio.create_task(pod.ask(get("/behind")))
    await eventually(lambda: pod.telemetry.queue.depth == 1)
    await client.close()
    assert (await asyncio.wait_for(behind, 5)).status == 200
    assert pod.outcomes() == {"cancelled": 1, "ok": 1}
    (code,) = (code for (outcome, code), n in pod.series().requests.items() if outcome == 5 and n)
    assert code == 499
    assert gate(pod).load == 0


async def test_a_tunnel_has_a_place_for_as_long_as_it_lasts(start_pod):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"upgrade" in head.lower():
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
            await reader.read(-1)
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    pod: Pod = await start_pod(await listen_raw(serve), guarded(timeouts={}))
    client = await Client.connect(pod.ingress)
    await client.send(get("/", "Upgrade: x\r\nConnection: upgrade\r\n"))
    assert (await client.answer()).status == 101
    behind = asyncio.create_task(pod.ask(get()))
    await eventually(lambda: pod.telemetry.queue.depth == 1)
    await client.close()
    assert (await asyncio.wait_for(behind, 5)).status == 200
    assert gate(pod).load == 0


async def test_those_in_the_queue_are_served_in_a_drain(model: Upstream, start_pod):
    go = asyncio.Event()

    async def wait(request: Request, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        await well(request, writer)

    model.handle = wait
    pod: Pod = await start_pod(model.port, guarded(timeouts={}))
    tasks = [asyncio.create_task(pod.ask(get())) for _ in range(4)]
    await eventually(lambda: pod.telemetry.queue.depth == 3)
    pod.relay.ingress.drain()
    go.set()
    replies = await asyncio.gather(*tasks)
    assert {(reply.status, reply.header("connection")) for reply in replies} == {(200, "close")}
    await eventually(lambda: not pod.relay.ingress.connections)


async def test_both_versions_full_or_down(model: Upstream, start_pod):
    """One is busy, the other one gone: the client learns that it may come again."""
    go = asyncio.Event()

    async def wait(request: Request, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        await well(request, writer)

    model.handle = wait
    document = routing(
        revision("a", 100),
        revision("b", 0, free_port()),
        fallback={"chain": ["b"]},
        concurrency={"limit": 1, "queueDepth": 0},
        circuitBreaker={"consecutiveFailures": 1, "minBackoff": 60},
    )
    pod: Pod = await start_pod(model.port, document)
    held = asyncio.create_task(pod.ask(get()))
    await eventually(lambda: model.requests)
    assert (await pod.ask(post())).status == 502, "b was asked last, and refused"
    assert pod.telemetry.revisions["b"].breaker.state == "open"
    reply = await pod.ask(post())
    assert (reply.status, reply.header("retry-after")) == (503, "1")
    assert pod.outcomes() == {"model_error": 1, "rejected": 1}
    assert pod.telemetry.queue.turned_away["full"] == 2
    assert pod.telemetry.revisions["b"].connection_errors["connect"] == 1
    assert pod.telemetry.epoch("a").errors == 2
    go.set()
    assert (await held).status == 200

"""Invariant 7: a client sees no error that somebody else could have answered, and no answer twice."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest
from tests.relay.harness import (
    V2,
    Client,
    Upstream,
    answer,
    chunked,
    eventually,
    free_port,
    get,
    post,
    reset,
    revision,
    routing,
    says,
    silent,
)

from coalmine_sidecar.relay import detour


def canary(model: Upstream, other: Upstream, **more):
    """Everything is for `a` (the pod's own model); `b` is its fallback, on another pod."""
    options = {"fallback": {"chain": ["b"]}, "timeouts": {"response": 0.2, "idle": 0.2}} | more
    return routing(revision("a", 100), revision("b", 0, other.port, track="fallback"), **options)


async def half(_, writer) -> None:
    writer.write(b"HTTP/1.1 200 O")
    await writer.drain()
    writer.close()


@pytest.mark.parametrize(
    ("handle", "reason"),
    [
        (reset, "reset"),
        (half, "reset"),
        (silent, "timeout"),
        (says(b"not http\r\n\r\n"), "reset"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"), "reset"),
        (says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"), "reset"),
        (says(b"HTTP/1.1 200 OK\r\nX: " + b"v" * 100_000), "reset"),
        (says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), "reset"),
        (says(answer(b"down", status="503 Service Unavailable")), "status"),
        (says(b"HTTP/1.1 502 Bad Gateway\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"), "status"),
    ],
)
async def test_another_revision_answers(model, other, start_pod, handle, reason):
    model.handle = handle
    pod = await start_pod(model.port, canary(model, other))
    reply = await pod.ask(post(b"body"))
    assert [r.body for r in model.requests] == [b"body"]
    assert (reply.status, reply.body, reply.revision) == (200, V2, "b")
    assert [r.body for r in other.requests] == [b"body"]
    assert pod.telemetry.fallbacks["a", "b"][reason] == 1
    assert (pod.outcomes("a"), pod.outcomes("b")) == ({}, {"ok": 1})
    cell = pod.telemetry.epoch("a")
    assert (cell.requests, cell.errors) == (1, 1)
    assert pod.telemetry.epoch("b").requests == 0
    await eventually(lambda: pod.series("b").predictions == 1)
    assert cell.outputs.by_name == {}


async def test_a_refused_connection(other, start_pod):
    pod = await start_pod(free_port(), canary(other, other))
    for body in (post(b"x" * 10), chunked(b"x" * 10), get(), post(b"x" * 2_000_000)):
        assert (await pod.ask(body)).revision == "b"
    refused, no_endpoint = (pod.telemetry.fallbacks["a", "b"][reason] for reason in ("refused", "no_endpoint"))
    assert refused + no_endpoint == 4
    assert refused >= 1
    assert pod.telemetry.epoch("a").errors == 4
    assert len(other.requests[3].body) == 2_000_000


async def test_a_long_body_streamed_to_a_model_that_breaks_is_not_sent_again(model, other, start_pod):
    model.handle = reset
    pod = await start_pod(model.port, canary(model, other, limits={"replayBytes": 1000}))
    reply = await pod.ask(post(b"x" * 5000))
    assert (reply.status, reply.header("coalmine-error")) == (502, "both")
    assert other.requests == []
    assert pod.outcomes("a") == {"model_error": 1}


@pytest.mark.parametrize(("handle", "status"), [(reset, 502), (silent, 504)])
async def test_a_request_that_may_not_be_served_twice(model, other, start_pod, handle, status):
    model.handle = handle
    pod = await start_pod(model.port, canary(model, other, idempotent=False))
    assert (await pod.ask(post())).status == status
    assert other.requests == []
    assert (await pod.ask(get())).revision == "b"
    model.handle = says(answer(b"", status="503 Service Unavailable"))
    assert (await pod.ask(post())).revision == "b", "a model that says it is out of service did not serve"


async def test_an_answer_under_way_is_never_taken_back(model, other, start_pod):
    async def break_off(_, writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    model.handle = break_off
    pod = await start_pod(model.port, canary(model, other))
    client = await Client.connect(pod.ingress)
    await client.send(post())
    whole = await client.rest()
    assert whole.startswith(b"HTTP/1.1 200")
    assert whole.endswith(b"half")
    assert other.requests == []
    assert pod.outcomes("a") == {"model_error": 1}
    assert pod.telemetry.epoch("a").errors == 1


@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
async def test_an_answer_that_falls_silent(model, start_pod, framing):
    async def stop(_, writer) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n4\r\nhalf\r\n".encode())
        await asyncio.sleep(30)

    model.handle = stop
    pod = await start_pod(model.port, routing(revision("a", 100), timeouts={"idle": 0.2}))
    client = await Client.connect(pod.ingress)
    await client.send(post())
    whole = await asyncio.wait_for(client.rest(), 3)
    assert b"half" in whole
    assert not whole.endswith(b"0\r\n\r\n")
    assert pod.outcomes() == {"timeout": 1}


async def test_status_codes_not_named_pass(model, other, start_pod):
    model.handle = says(answer(b"bug", status="500 Internal Server Error"))
    pod = await start_pod(model.port, canary(model, other))
    reply = await pod.ask(post())
    assert (reply.status, reply.body, reply.revision) == (500, b"bug", "a")
    assert pod.outcomes("a") == {"model_error": 1}
    assert pod.telemetry.epoch("a").errors == 1


async def test_what_a_sidecar_turned_away_unread_is_no_answer_whatever_the_status_codes(other, start_pod):
    gone = await start_pod(free_port(), routing(revision("a", 100)))
    document = routing(
        revision("a", 100, gone.local),
        revision("b", 0, other.port),
        revision("z", 0),
        fallback={"chain": ["b"], "statusCodes": []},
    )
    pod = await start_pod(free_port(), document, revision="z")
    assert (await pod.ask(post())).revision == "b"
    assert pod.telemetry.fallbacks["a", "b"]["refused"] == 1


async def test_the_models_own_error_passes_where_nobody_is_left(model, other, start_pod):
    model.handle = says(answer(b"overloaded", status="503 Service Unavailable"))
    other.handle = reset
    pod = await start_pod(model.port, canary(model, other))
    client = await Client.connect(pod.ingress)
    reply = await client.ask(post())
    assert (reply.status, reply.body, reply.revision) == (503, b"overloaded", "a")
    assert (await client.ask(post())).body == b"overloaded"
    assert pod.outcomes("a") == {"model_error": 2}


@pytest.mark.parametrize(("handle", "status"), [(reset, 502), (silent, 504)])
async def test_an_error_of_our_own_where_nobody_answered(model, start_pod, handle, status):
    model.handle = handle
    pod = await start_pod(model.port, routing(revision("a", 100), timeouts={"response": 0.2}))
    client = await Client.connect(pod.ingress)
    reply = await client.ask(post())
    assert (reply.status, reply.header("coalmine-error")) == (status, "upstream")
    assert reply.error.startswith("a: the model")
    model.handle = says(answer(b"again"))
    assert (await client.ask(post())).body == b"again", "the client's connection goes on"


async def test_the_chain_is_gone_along_once(model, other, start_pod):
    model.handle = other.handle = reset
    third = Upstream(says(answer(b"third")))
    await third.start()
    chain = routing(
        revision("a", 100),
        revision("b", 0, other.port),
        revision("c", 0),
        revision("d", 0, third.port),
        fallback={"chain": ["a", "b", "c", "d"]},
    )
    pod = await start_pod(model.port, chain)
    reply = await pod.ask(post())
    assert (reply.body, reply.revision) == (b"third", "d")
    assert (len(model.requests), len(other.requests)) == (1, 1)
    assert pod.telemetry.fallbacks["a", "d"]["reset"] == 1
    await third.stop()


async def test_a_canary_is_not_blamed_for_a_name_that_has_not_come_yet(start_pod, model, other):
    def document(generation: int, *ports: int):
        canary, stable = revision("b", 50, *ports, track="canary"), revision("a", 50)
        return routing(canary, stable, fallback={"chain": ["a"]}, generation=generation)

    pod = await start_pod(model.port, document(1))
    for _ in range(20):
        assert (await pod.ask(post())).revision == "a"
    assert pod.telemetry.fallbacks["b", "a"]["no_endpoint"] > 0
    assert (pod.telemetry.epoch("b").requests, pod.telemetry.epoch("b").errors) == (0, 0)
    pod.relay.use(document(2, other.port))
    assert {(await pod.ask(post())).revision for _ in range(20)} == {"a", "b"}
    pod.relay.use(document(3))
    for _ in range(20):
        assert (await pod.ask(post())).revision == "a"
    assert pod.telemetry.epoch("b").errors > 0, "its pods were known, and went"


async def test_no_endpoint_at_all(start_pod, model):
    document = routing(revision("b", 100, track="canary"), revision("a", 0), fallback={"chain": ["a"]})
    pod = await start_pod(model.port, document)
    reply = await pod.ask(post())
    assert reply.revision == "a"
    assert pod.telemetry.fallbacks["b", "a"]["no_endpoint"] == 1
    pod.relay.use(routing(revision("b", 100, track="canary"), generation=2))
    reply = await pod.ask(post())
    assert (reply.status, reply.error) == (503, "b: no endpoint")


async def test_another_pod_of_the_revision_before_another_revision(other, start_pod):
    pods = routing(revision("a", 100, free_port(), other.port), revision("b", 0, other.port), fallback={"chain": ["b"]})
    pod = await start_pod(free_port(), pods)
    for _ in range(5):
        assert (await pod.ask(post())).revision == "a"
    assert pod.telemetry.fallbacks == {}
    assert sum(pod.telemetry.revisions["a"].retries.values()) >= 1
    assert pod.telemetry.epoch("a").errors == 0


async def test_a_pod_whose_model_is_gone_says_so_and_is_left_out(other, start_pod):
    """Two sidecars: the local role of one answers for a dead model; the ingress of the other asks somebody else."""
    broken = await start_pod(free_port(), routing(revision("a", 100)))
    document = routing(revision("a", 100, broken.local, other.port), revision("z", 0), idempotent=False)
    pod = await start_pod(free_port(), document, revision="z")
    for _ in range(10):
        assert (await pod.ask(post())).status == 200
    assert broken.outcomes("a", "local").get("model_error", 0) <= 5, "it was asked again and again"
    reply = await pod.ask(post(), broken.local)
    assert (reply.status, reply.header("coalmine-error"), reply.header("coalmine-reason")) == (
        502,
        "upstream",
        "refused",
    )


async def test_an_endpoint_that_refused_is_asked_again_later(start_pod, other):
    port = free_port()
    pod = await start_pod(port, routing(revision("a", 100), revision("b", 0, other.port), fallback={"chain": ["b"]}))
    assert (await pod.ask(post())).revision == "b"
    back = Upstream()
    await back.start(port)
    for _ in range(100):
        if (await pod.ask(post())).revision == "a":
            break
        await asyncio.sleep(0.02)
    else:
        pytest.fail("the model never got a request again")
    assert (await pod.ask(post())).revision == "a"
    await back.stop()


async def test_a_lone_model_that_refused_is_asked_all_the_same(start_pod):
    port = free_port()
    pod = await start_pod(port, routing(revision("a", 100)))
    for _ in range(3):
        assert (await pod.ask(post())).status == 502
    back = Upstream()
    await back.start(port)
    assert (await pod.ask(post())).status == 200
    await back.stop()


async def test_a_connection_that_turns_out_to_be_stale_costs_nothing(model, start_pod):
    calls = 0

    async def second_time_dead(_, writer) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            writer.transport.abort()
        else:
            writer.write(answer())

    model.handle = second_time_dead
    pod = await start_pod(model.port, routing(revision("a", 100)))
    assert (await pod.ask(post())).status == 200
    assert (await pod.ask(post())).status == 200
    assert pod.telemetry.revisions["a"].retries["stale"] == 1
    assert pod.telemetry.revisions["a"].connection_errors["stale"] == 1
    assert pod.telemetry.epoch("a").errors == 0


async def test_a_stale_connection_with_a_request_that_may_not_be_served_twice(model, start_pod):
    pod = await start_pod(model.port, routing(revision("a", 100), idempotent=False))
    assert (await pod.ask(post())).status == 200
    model.handle = reset
    assert (await pod.ask(post())).status == 502
    assert len(model.requests) == 2


@pytest.fixture
def busy() -> Iterator[socket.socket]:
    """A listening socket whose queue is full: the kernel answers no further SYN until somebody accepts."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listening.getsockname())
        yield listening


async def test_connecting_has_a_limit(other, start_pod, busy, monkeypatch):
    monkeypatch.setattr(detour, "PATIENCE", 0.5)
    port = busy.getsockname()[1]
    pod = await start_pod(port, canary(other, other, timeouts={"connect": 0.2}))
    reply = await pod.ask(post())
    assert reply.revision == "b"
    assert pod.telemetry.fallbacks["a", "b"]["timeout"] == 1
    alone = await start_pod(port, routing(revision("a", 100), timeouts={"connect": 0.2}))
    assert (await alone.ask(post())).status == 504


@pytest.mark.parametrize("hops", [1, 2])
async def test_a_full_queue_is_waited_in_where_nobody_else_can_answer(start_pod, busy, hops):
    """Of the pod's own model, and of a model behind another pod's sidecar."""
    document = routing(revision("a", 100), timeouts={"connect": 0.1})
    pod = asked = await start_pod(busy.getsockname()[1], document)
    if hops == 2:
        document = routing(revision("a", 100, pod.local), revision("z", 0), timeouts={"connect": 0.1})
        asked = await start_pod(free_port(), document, revision="z")
    asking = asyncio.create_task(asked.ask(post()))
    await eventually(lambda: asked.telemetry.revisions["a"].retries["timeout"] >= 2)
    model = Upstream()
    await model.start(sock=busy)
    assert (await asking).status == 200
    assert len(model.requests) == 1
    await model.stop()


async def test_the_client_that_leaves_while_a_connection_opens(other, start_pod):
    pod = await start_pod(free_port(), canary(other, other))
    client = await Client.connect(pod.ingress)
    client.writer.write(post())
    await client.writer.drain()
    client.writer.transport.abort()
    await eventually(lambda: not pod.relay.ingress.connections)
    assert sum(s.in_flight for s in (pod.series("a"), pod.series("b"))) == 0


async def test_a_connection_goes_on_after_a_streamed_body_found_nobody(start_pod):
    port = free_port()
    pod = await start_pod(port, routing(revision("a", 100), limits={"replayBytes": 10}))
    client = await Client.connect(pod.ingress)
    reply = await client.ask(post(b"x" * 50))
    assert (reply.status, reply.header("connection")) == (502, None)
    back = Upstream()
    await back.start(port)
    assert (await client.ask(post(b"x" * 50))).status == 200
    assert (await client.ask(get())).status == 200
    await back.stop()

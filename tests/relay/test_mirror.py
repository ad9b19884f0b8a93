"""Mirroring: copies go out after the primary is served and harm nobody, whatever becomes of them."""

from __future__ import annotations

import asyncio
import itertools
import json
import random

import pytest
from tests.relay.grpc_client import unary
from tests.relay.grpc_model import INFER
from tests.relay.harness import (
    V2,
    Client,
    Pod,
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

from coalmine_sidecar.relay.mirror import MAX_BYTES, MAX_IN_FLIGHT, Copying

PREDICT = "/v1/models/m:predict"


def mirrored(other: Upstream | Pod | int, percent: int = 100, **more):
    """All requests are for `a` (the pod's own model); `b` gets copies of them, at weight 0."""
    port = other.local if isinstance(other, Pod) else other.port if isinstance(other, Upstream) else other
    mirror = {"source": "a", "target": "b", "percent": percent} | more.pop("mirror", {})
    options = {"timeouts": {"response": 0.3, "idle": 0.3}} | more
    return routing(revision("a", 100), revision("b", 0, port, track="canary"), mirror=mirror, **options)


def score(value: float, name: str = "score") -> bytes:
    output = {"name": name, "shape": [1], "datatype": "FP64", "data": [value]}
    return json.dumps({"model_name": "m", "outputs": [output]}).encode()


def predicts(*values: object):
    return says(answer(json.dumps({"predictions": values}).encode()))


async def to_the_end(_, writer) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n" + V2)
    await writer.drain()
    writer.close()


def shadow(pod: Pod):
    return pod.telemetry.shadow("b")


async def compared(pod: Pod, count: int = 1) -> str:
    """Wait for so many comparisons; the way in which the last one that disagreed did so, or nothing."""
    await eventually(lambda: shadow(pod).compared == count)
    assert shadow(pod).requests == count
    return next((reason for reason, n in shadow(pod).disagreements.items() if n), "")


async def nothing_copied(pod: Pod, other: Upstream) -> None:
    await asyncio.sleep(0.05)
    assert other.requests == []
    assert shadow(pod).requests == 0


async def test_a_copy_is_the_request_with_a_mark(model, other, start_pod):
    pod = await start_pod(model.port, mirrored(other))
    headers = "Authorization: Bearer t\r\nCookie: a=b\r\nX-Twice: 1\r\nX-Twice: 2\r\nContent-Type: application/json\r\n"
    reply = await pod.ask(post(b'{"inputs": []}', headers=headers))
    assert (reply.status, reply.body, reply.revision) == (200, V2, "a")
    assert await compared(pod) == ""
    (request,), (copy,) = model.requests, other.requests
    assert (copy.method, copy.target, copy.body) == (request.method, request.target, request.body)
    assert copy.headers == [*request.headers, ("coalmine-shadow", "true")]
    assert copy.header("host") == "m"


async def test_copies_are_nobodys_traffic(model, other, start_pod):
    pod = await start_pod(model.port, mirrored(other))
    for _ in range(3):
        await pod.ask(post())
    await compared(pod, 3)
    assert pod.outcomes("a") == {"ok": 3}
    assert pod.outcomes("b") == {}
    assert pod.outcomes("b", "shadow") == {"ok": 3}
    assert sum(pod.series("b", "shadow").duration.counts) == 3
    cell = pod.telemetry.epoch("b")
    assert (cell.compared, cell.disagreed, cell.requests, cell.errors) == (3, 0, 0, 0)
    assert pod.telemetry.epoch("a").requests == 3
    assert pod.telemetry.revisions["b"].decisions == [0, 0, 0, 0]
    await eventually(lambda: pod.series("a").predictions == 3)
    assert pod.series("b").predictions == 0


@pytest.mark.parametrize(
    ("handle", "found"),
    [
        (says(answer(score(0.26))), ""),
        (says(answer(score(0.9))), "value"),
        (says(answer(score(0.25, name="other"))), "outputs"),
        (says(answer(b"no JSON")), "outputs"),
        (says(answer(V2, status="503 Service Unavailable")), "status"),
        (says(answer(b'{"error": "no"}', status="400 Bad Request")), "status"),
        (to_the_end, ""),
        (reset, "failed"),
        (silent, "failed"),
        (says(b"not http\r\n\r\n"), "failed"),
        (says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), "failed"),
        (says(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf"), "failed"),
    ],
)
async def test_what_the_canary_makes_of_it(model, other, start_pod, handle, found):
    other.handle = handle
    pod = await start_pod(model.port, mirrored(other))
    reply = await pod.ask(post())
    assert (reply.status, reply.body, reply.revision) == (200, V2, "a")
    assert await compared(pod) == found
    cell = pod.telemetry.epoch("b")
    assert (cell.compared, cell.disagreed) == (1, int(bool(found)))
    assert pod.outcomes("a") == {"ok": 1}


@pytest.mark.parametrize(
    ("ours", "theirs", "found"),
    [(("cat",), ("cat",), ""), (("cat",), ("dog",), "class"), ((3,), (4,), "class"), ((1.0,), (None,), "missing")],
)
async def test_labels_are_compared_as_such(model, other, start_pod, ours, theirs, found):
    model.handle, other.handle = predicts(*ours), predicts(*theirs)
    pod = await start_pod(model.port, mirrored(other))
    await pod.ask(post(path=PREDICT))
    assert await compared(pod) == found


async def test_tolerance_and_output_are_the_routing_files(model, other, start_pod):
    other.handle = says(answer(score(0.9)))
    pod = await start_pod(model.port, mirrored(other, mirror={"tolerance": 0.7}))
    await pod.ask(post())
    assert await compared(pod) == ""
    pod.relay.use(mirrored(other, mirror={"output": "label"}))
    await pod.ask(post())
    await eventually(lambda: shadow(pod).dropped["unreadable"] == 1)


async def test_a_canary_that_hangs_delays_nobody(model, other, start_pod):
    """The primaries are all served while every copy hangs, and the copies' number is bounded."""
    other.handle = silent
    pod = await start_pod(model.port, mirrored(other, timeouts={"response": 30}))
    client = await Client.connect(pod.ingress)
    for _ in range(3 * MAX_IN_FLIGHT):
        assert (await client.ask(post())).revision == "a"
    assert pod.outcomes("a") == {"ok": 3 * MAX_IN_FLIGHT}
    assert shadow(pod).dropped["in_flight"] == 2 * MAX_IN_FLIGHT
    await eventually(lambda: shadow(pod).requests == MAX_IN_FLIGHT)
    assert pod.outcomes("b", "shadow") == {}
    assert shadow(pod).compared == 0
    await eventually(lambda: other.open == MAX_IN_FLIGHT)


async def test_what_they_hold_is_bounded(model, other, start_pod):
    other.handle = silent
    pod = await start_pod(model.port, mirrored(other, timeouts={"response": 30}))
    client = await Client.connect(pod.ingress)
    for _ in range(20):
        assert (await client.ask(post(b"x" * 1_000_000))).revision == "a"
    dropped = shadow(pod).dropped["bytes"]
    assert dropped == 20 - MAX_BYTES // 1_000_200
    assert pod.relay.copying.bytes <= MAX_BYTES


async def test_copies_have_a_share_of_the_cpu_and_no_more(model, other, start_pod):
    pod = await start_pod(model.port)
    seconds = itertools.count()
    pod.relay.copying = Copying(
        pod.relay._sweeper, pod.relay.outbox, rng=random.Random(1), clock=lambda: float(next(seconds))
    )
    pod.relay.use(mirrored(other))
    for _ in range(3):
        assert (await pod.ask(post())).revision == "a"
    # The first one took a second, by that clock: a share of 0.2 pays for it in five.
    await eventually(lambda: sum(shadow(pod).dropped.values()) == 3)
    assert shadow(pod).dropped["budget"] == 3
    assert (shadow(pod).requests, shadow(pod).compared) == (1, 0)
    assert (pod.relay.copying.bytes, pod.relay.copying.shadows) == (0, set())


async def test_bodies_beyond_the_replay_limit_are_not_copied(model, other, start_pod):
    pod = await start_pod(model.port, mirrored(other, limits={"replayBytes": 1000}))
    assert (await pod.ask(post(b"x" * 1001))).revision == "a"
    assert shadow(pod).dropped["size"] == 1
    await nothing_copied(pod, other)
    await pod.ask(post(b"x" * 1000))
    await compared(pod)


async def test_answers_too_long_to_be_kept_are_not_compared(model, other, start_pod):
    long = answer(b'{"predictions": [' + b"1.0, " * 5000 + b"1.0]}")
    other.handle = says(long)
    pod = await start_pod(model.port, mirrored(other, limits={"observeBytes": 10_000}))
    await pod.ask(post())
    await eventually(lambda: shadow(pod).dropped["size"] == 1)
    assert (shadow(pod).requests, shadow(pod).compared) == (1, 0)
    await eventually(lambda: other.open == 0)
    model.handle = says(long)
    await pod.ask(post())
    assert shadow(pod).dropped["size"] == 2
    assert shadow(pod).requests == 1


@pytest.mark.parametrize(
    ("request_", "handle"),
    [
        (get("/v2/models/m"), says(answer(V2))),
        (post(path="/v2/repository/models/m/load"), says(answer(b"{}"))),
        (post(path="/v1/models/m/metadata"), says(answer(b'{"name": "m"}'))),
        (
            post(path="/v1/chat/completions"),
            says(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                b'10\r\ndata: {"a": 1}\n\n\r\n0\r\n\r\n'
            ),
        ),
        (post(), says(answer(b'{"error": "no"}', status="400 Bad Request"))),
        (post(), says(answer(b'{"error": "no"}', status="500 Internal Server Error"))),
    ],
)
async def test_only_predictions_are_copied(model, other, start_pod, request_, handle):
    model.handle = handle
    pod = await start_pod(model.port, mirrored(other))
    await pod.ask(request_)
    await nothing_copied(pod, other)


async def test_an_answer_that_cannot_be_read_is_counted(model, other, start_pod):
    model.handle = says(answer(b"[1, 2]"))
    pod = await start_pod(model.port, mirrored(other))
    await pod.ask(post())
    await eventually(lambda: shadow(pod).dropped["unreadable"] == 1)
    model.handle = says(answer(b"\x1f\x8b..", headers="content-type: application/json\r\ncontent-encoding: gzip\r\n"))
    await pod.ask(post())
    await eventually(lambda: shadow(pod).dropped["encoding"] == 1)
    await nothing_copied(pod, other)


async def test_calls_of_grpc_are_counted_not_copied(start_model, other, start_pod, dial):
    model = await start_model()
    pod = await start_pod(model.port, mirrored(other, mirror={"source": "a", "target": "b"}))
    channel = dial(pod.ingress)
    await unary(channel)(b"x", metadata=(("coalmine-shadow", "true"),))
    assert "coalmine-shadow" not in model.seen[0]
    await unary(channel, INFER)(b"")
    await eventually(lambda: shadow(pod).dropped["grpc"] == 1)
    assert shadow(pod).requests == 0


async def test_a_model_that_is_not_idempotent_gets_no_copies(model, other, start_pod):
    pod = await start_pod(model.port, mirrored(other, idempotent=False))
    await pod.ask(post())
    await nothing_copied(pod, other)


async def test_an_offer_to_change_the_protocol_is_not_copied(model, other, start_pod):
    pod = await start_pod(model.port, mirrored(other))
    reply = await pod.ask(
        b"POST /v2/models/m/infer HTTP/1.1\r\nHost: m\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 0\r\n\r\n"
    )
    assert reply.status == 200
    await nothing_copied(pod, other)


async def test_who_asks_for_the_canary_by_name_is_not_copied(model, other, start_pod):
    match = [{"revision": "b", "headers": [{"name": "x-canary", "value": "always"}]}]
    pod = await start_pod(model.port, mirrored(other, match=match))
    assert (await pod.ask(post(headers="X-Canary: always\r\n"))).revision == "b"
    assert len(other.requests) == 1
    assert other.requests[0].header("coalmine-shadow") is None
    assert shadow(pod).requests == 0


async def test_what_the_fallback_answered_is_not_compared(model, other, start_pod):
    model.handle = reset
    pod = await start_pod(model.port, mirrored(other, fallback={"chain": ["b"]}))
    assert (await pod.ask(post())).revision == "b"
    await asyncio.sleep(0.05)
    assert shadow(pod).requests == 0


async def test_the_canarys_own_requests_are_not_copied(model, other, start_pod):
    mirror = {"source": "a", "target": "b", "percent": 100}
    both = routing(revision("a", 50), revision("b", 50, other.port, track="canary"), mirror=mirror)
    pod = await start_pod(model.port, both)
    for _ in range(100):
        await pod.ask(post())
    await compared(pod, 50)
    assert pod.outcomes("b") == {"ok": 50}
    assert len(other.requests) == 100


async def test_a_share_of_the_requests(model, other, start_pod):
    pod = await start_pod(model.port, mirrored(other, 25), rng=random.Random(7))
    client = await Client.connect(pod.ingress)
    for _ in range(400):
        await client.ask(post())
    await eventually(lambda: shadow(pod).compared == shadow(pod).requests > 0)
    assert 60 < shadow(pod).requests < 140
    assert not sum(shadow(pod).dropped.values())


async def test_a_chunked_request(model, other, start_pod):
    pod = await start_pod(model.port, mirrored(other))
    await pod.ask(chunked(b"ab", b"cd"))
    await compared(pod)
    assert (other.requests[0].body, other.requests[0].header("content-length")) == (b"abcd", "4")


async def test_clients_cannot_mark_their_own(model, other, start_pod):
    pod = await start_pod(model.port, mirrored(other))
    client = await Client.connect(pod.ingress)
    for count in (1, 2, 3):
        await client.ask(post(headers="Coalmine-Shadow: true\r\n"))
        await compared(pod, count)
    assert [request.header("coalmine-shadow") for request in model.requests] == [None] * 3
    assert [value for name, value in other.requests[0].headers if name == "coalmine-shadow"] == ["true"]


async def test_by_way_of_the_sidecar_of_another_pod(model, other, start_pod):
    theirs = await start_pod(other.port, revision="b")
    pod = await start_pod(model.port, mirrored(theirs))
    client = await Client.connect(pod.ingress)
    for count in (1, 2, 3):  # of the same head, which a sidecar may know by then
        await client.ask(post())
        assert await compared(pod, count) == ""
    assert [request.header("coalmine-shadow") for request in other.requests] == ["true"] * 3
    assert theirs.outcomes("b", "local") == {"ok": 3}
    assert theirs.outcomes("b") == {}


async def test_to_the_pods_own_model(model, other, start_pod):
    pod = await start_pod(
        other.port,
        routing(
            revision("a", 100, model.port),
            revision("b", track="canary"),
            mirror={"source": "a", "target": "b", "percent": 100},
        ),
        revision="b",
    )
    assert (await pod.ask(post())).revision == "a"
    assert await compared(pod) == ""
    assert other.requests[0].header("coalmine-shadow") == "true"


async def test_a_model_that_takes_no_more_gets_no_copies(model, other, start_pod):
    other.handle = silent
    document = routing(
        revision("a", 100, model.port),
        revision("b", track="canary"),
        mirror={"source": "a", "target": "b", "percent": 100},
        concurrency={"limit": 1, "queueDepth": 5},
        timeouts={"response": 30},
    )
    pod = await start_pod(other.port, document, revision="b")
    await pod.ask(post())
    await eventually(lambda: other.requests)
    await pod.ask(post())
    await eventually(lambda: shadow(pod).dropped["busy"] == 1)
    assert len(other.requests) == 1


async def test_a_queue_that_is_full_is_no_disagreement(model, other, start_pod):
    other.handle = silent
    full = routing(revision("b", 100), concurrency={"limit": 1, "queueDepth": 0}, timeouts={"response": 30})
    theirs = await start_pod(other.port, full, revision="b")
    pod = await start_pod(model.port, mirrored(theirs, timeouts={"response": 30}))
    await pod.ask(post())
    await eventually(lambda: other.requests)
    await pod.ask(post())
    await eventually(lambda: shadow(pod).dropped["busy"] == 1)
    assert (shadow(pod).requests, shadow(pod).compared) == (2, 0)


async def test_nobody_there(model, start_pod):
    pod = await start_pod(model.port, mirrored(free_port()))
    await pod.ask(post())
    assert await compared(pod) == "failed"
    assert pod.outcomes("b", "shadow") == {"model_error": 1}
    # Left out for a while, as it would be for requests: the pauses grow, so that some request falls into one.
    for _ in range(100):
        await pod.ask(post())
        if shadow(pod).dropped["no_endpoint"]:
            break
    assert shadow(pod).dropped["no_endpoint"]
    assert pod.telemetry.revisions["b"].connection_errors["connect"] == 0


async def test_a_connection_that_was_idle_for_too_long_is_not_the_models_fault(model, other, start_pod):
    pod = await start_pod(model.port, mirrored(other, timeouts={"response": 5, "upstreamKeepalive": 60}))
    await pod.ask(post())
    await compared(pod)

    first = True

    async def stale_at_first(_, writer):
        nonlocal first
        if first:
            first = False
            writer.transport.abort()
        else:
            writer.write(answer())

    other.handle = stale_at_first
    await pod.ask(post())
    assert await compared(pod, 2) == ""


async def test_a_sidecar_that_ends_does_not_wait_for_copies(model, other, start_pod):
    other.handle = silent
    pod = await start_pod(model.port, mirrored(other, timeouts={"response": 30}))
    await pod.ask(post())
    await eventually(lambda: other.requests)
    await pod.stop()
    assert shadow(pod).dropped["cancelled"] == 1
    assert pod.outcomes("b", "shadow") == {"cancelled": 1}


async def test_the_end_of_a_mirror_lets_its_copies_end_in_peace(model, other, start_pod):
    release = asyncio.Event()

    async def later(_, writer):
        await release.wait()
        writer.write(answer())

    other.handle = later
    pod = await start_pod(model.port, mirrored(other, epoch="1", timeouts={"response": 30}))
    await pod.ask(post())
    await eventually(lambda: other.requests)
    cell = pod.telemetry.epoch("b")
    pod.relay.use(routing(revision("a", 50), revision("b", 50, other.port, track="canary"), generation=2, epoch="2"))
    release.set()
    await eventually(lambda: cell.compared == 1)
    assert pod.telemetry.epoch("b").compared == 0
    assert pod.relay.ingress.table.mirror is None


async def test_off_there_is_nothing_of_it(model, start_pod):
    pod = await start_pod(model.port, routing(revision("a", 100)))
    await pod.ask(post())
    assert pod.relay.ingress.table.mirror is None
    assert pod.relay.local.table.mirror is None
    assert all(counters.shadow is None for counters in pod.telemetry.revisions.values())
    assert all("shadow" not in counters.series for counters in pod.telemetry.revisions.values())

"""What a request is known by: its trace and its id, passed on, made, and given back; exemplars that lead to it."""

from __future__ import annotations

import re

import aiohttp
import pytest
from tests.relay.grpc_client import unary
from tests.relay.harness import Client, answer, eventually, free_port, get, post, revision, routing, says

from coalmine_sidecar.telemetry.exposition import expose

A = routing(revision("a", 100))
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
GIVEN = f"00-{TRACE}-00f067aa0ba902b7-01"
MADE = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-03")
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def fields(identity: list[tuple[str, str]]) -> dict[str, str]:
    assert len(dict(identity)) == len(identity), "each once"
    return dict(identity)


async def test_a_request_without_a_trace_gets_one_and_an_id(model, start_pod):
    pod = await start_pod(model.port, A)
    replies = [await pod.ask(post()) for _ in range(300)]
    seen = [fields(request.identity) for request in model.requests]
    traces = [MADE.fullmatch(one["traceparent"])[1] for one in seen]
    assert len(set(traces)) == 300
    assert [one["x-request-id"] for one in seen] == traces
    assert [fields(reply.identity) for reply in replies] == [{"x-request-id": trace} for trace in traces]


async def test_what_a_client_says_is_passed_on_as_it_came(model, start_pod):
    pod = await start_pod(model.port, A)
    given = f"Traceparent: {GIVEN}\r\ntracestate: a=1\r\nTraceState: b=2\r\nX-Request-ID: mine\r\n"
    reply = await pod.ask(get(headers=given))
    assert model.requests[0].identity == [
        ("Traceparent", GIVEN), ("tracestate", "a=1"), ("TraceState", "b=2"), ("X-Request-ID", "mine"),
    ]  # fmt: skip
    assert reply.identity == [("x-request-id", "mine")]


async def test_two_requests_of_one_trace_have_ids_of_their_own(model, start_pod):
    pod = await start_pod(model.port, A)
    for _ in range(2):
        await pod.ask(get(headers=f"traceparent: {GIVEN}\r\n"))
    one, other = (fields(request.identity) for request in model.requests)
    assert one["traceparent"] == other["traceparent"] == GIVEN
    assert TRACE != one["x-request-id"] != other["x-request-id"] != TRACE


@pytest.mark.parametrize(
    "given",
    [
        "traceparent: nonsense\r\n",
        "traceparent: \r\n",
        f"traceparent: {GIVEN.upper()}\r\n",
        f"traceparent: ff{GIVEN[2:]}\r\n",
        f"traceparent: {GIVEN}-more\r\n",
        f"traceparent: 00-{'0' * 32}-00f067aa0ba902b7-01\r\n",
        f"traceparent: 00-{TRACE}-{'0' * 16}-01\r\n",
        f"traceparent: {GIVEN}\r\ntraceparent: {GIVEN}\r\n",
        "",
    ],
)
async def test_a_malformed_trace_is_replaced_and_its_state_dropped(model, start_pod, given):
    pod = await start_pod(model.port, A)
    await pod.ask(get(headers=f"{given}tracestate: a=1\r\n"))
    seen = fields(model.requests[0].identity)
    assert MADE.fullmatch(seen["traceparent"])
    assert TRACE not in seen["traceparent"]
    assert "tracestate" not in seen


async def test_a_later_version_passes_with_what_it_adds(model, start_pod):
    pod = await start_pod(model.port, A)
    given = f"cc{GIVEN[2:]}-what-the-future-brings"
    await pod.ask(get(headers=f"traceparent: {given}\r\n"))
    assert fields(model.requests[0].identity)["traceparent"] == given


async def test_one_client_after_the_other_on_a_connection(model, start_pod):
    """Nothing of a request's identity is left for the next one."""
    pod = await start_pod(model.port, A)
    client = await Client.connect(pod.ingress)
    await client.ask(get(headers=f"traceparent: {GIVEN}\r\ntracestate: a=1\r\nx-request-id: mine\r\n"))
    await client.ask(get())
    seen = fields(model.requests[1].identity)
    assert MADE.fullmatch(seen["traceparent"])[1] == seen["x-request-id"] != "mine"
    assert "tracestate" not in seen


@pytest.mark.parametrize(("kind", "ending"), [("unsampled", "-02"), ("none", "")])
async def test_new_traces_as_the_routing_file_wants_them(model, start_pod, kind, ending):
    pod = await start_pod(model.port, routing(revision("a", 100), newTraces=kind))
    await pod.ask(get())
    await pod.ask(get(headers="traceparent: nonsense\r\ntracestate: a=1\r\n"))
    one, other = (fields(request.identity) for request in model.requests)
    assert len(one["x-request-id"]) == 32
    if ending:
        assert one["traceparent"].endswith(ending)
        assert set(other) == {"traceparent", "x-request-id"}
    else:
        assert "traceparent" not in one
        assert (other["traceparent"], other["tracestate"]) == ("nonsense", "a=1"), "hands off"
    assert pod.series().duration.exemplars == [], "nobody keeps the trace"


async def test_the_sidecar_that_a_request_is_handed_to_leaves_it_alone(model, start_pod):
    there = await start_pod(model.port, None, revision="b")
    here = await start_pod(free_port(), routing(revision("b", 100, there.local)))
    reply = await here.ask(get())
    seen = fields(model.requests[0].identity)
    assert fields(reply.identity) == {"x-request-id": seen["x-request-id"]}
    await there.ask(get(), there.local)
    assert model.requests[1].identity == []


async def test_a_model_that_names_the_request_is_not_contradicted(model, start_pod):
    model.handle = says(answer(headers="X-Request-Id: req-7\r\n"))
    pod = await start_pod(model.port, A)
    assert (await pod.ask(get())).identity == [("X-Request-Id", "req-7")]


async def test_a_refusal_has_the_id_too(start_pod):
    pod = await start_pod(free_port(), A)
    reply = await pod.ask(get(headers="x-request-id: mine\r\n"))
    assert (reply.status, reply.identity) == (502, [("x-request-id", "mine")])
    reply = await pod.ask(b"CONNECT m:443 HTTP/1.1\r\nHost: m\r\nx-request-id: mine\r\n\r\n")
    assert (reply.status, reply.identity) == (501, [("x-request-id", "mine")])


async def test_every_attempt_is_the_same_request(model, other, start_pod):
    model.handle = says(answer(b"x", status="503 Busy"))
    document = routing(revision("a", 100), revision("b", 0, other.port, track="fallback"), fallback={"chain": ["b"]})
    pod = await start_pod(model.port, document)
    assert (await pod.ask(post())).revision == "b"
    assert fields(model.requests[0].identity) == fields(other.requests[0].identity)


async def test_grpc(start_model, start_pod, dial):
    served = await start_model()
    pod = await start_pod(served.port, A)
    call = unary(dial(pod.ingress))
    first = call(b"x")
    await first
    given = call(b"x", metadata=(("traceparent", GIVEN), ("tracestate", "a=1"), ("x-request-id", "mine")))
    await given
    broken = call(b"x", metadata=(("traceparent", "nonsense"), ("tracestate", "a=1")))
    await broken
    one, other, third = (dict(metadata) for metadata in served.seen[-3:])
    assert MADE.fullmatch(one["traceparent"])[1] == one["x-request-id"]
    assert dict(await first.initial_metadata())["x-request-id"] == one["x-request-id"]
    assert (other["traceparent"], other["tracestate"], other["x-request-id"]) == (GIVEN, "a=1", "mine")
    assert MADE.fullmatch(third["traceparent"])
    assert "tracestate" not in third
    await eventually(lambda: sum(pod.series().duration.counts) == 3)
    assert {mark[1].decode() for mark in pod.series().duration.exemplars if mark} <= {
        TRACE, one["x-request-id"], third["x-request-id"],
    }  # fmt: skip


async def test_exemplars_lead_to_traces_and_only_openmetrics_has_them(model, start_pod):
    pod = await start_pod(model.port, A)
    await pod.ask(get(headers=f"traceparent: {GIVEN}\r\n"))
    await eventually(lambda: sum(pod.series().duration.counts) == 1)
    content_type, pieces = expose(pod.telemetry, OPENMETRICS)
    text = b"".join(pieces).decode()
    assert content_type.startswith("application/openmetrics-text")
    (line,) = [line for line in text.splitlines() if "trace_id" in line]
    bucket, _, exemplar = line.partition(" # ")
    assert bucket.startswith("coalmine_request_duration_seconds_bucket{")
    assert exemplar.startswith(f'{{trace_id="{TRACE}"}} ')
    content_type, pieces = expose(pod.telemetry, "text/plain")
    assert b"trace_id" not in b"".join(pieces)
    assert content_type.startswith("text/plain")


async def test_unsampled_traces_are_no_exemplars(model, start_pod):
    pod = await start_pod(model.port, A)
    await pod.ask(get(headers=f"traceparent: {GIVEN[:-1]}0\r\n"))
    await eventually(lambda: sum(pod.series().duration.counts) == 1)
    assert pod.series().duration.exemplars == []


async def test_exemplars_are_bounded(model, start_pod):
    pod = await start_pod(model.port, A)
    async with aiohttp.ClientSession() as session:
        for _ in range(50):
            async with session.get(f"http://127.0.0.1:{pod.ingress}/") as reply:
                await reply.read()
    await eventually(lambda: sum(pod.series().duration.counts) == 50)
    assert len(pod.series().duration.exemplars) == len(pod.series().duration.counts)

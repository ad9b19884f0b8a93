"""The circuit breaker of a revision, over real sockets: when it is asked, what its share becomes, what is counted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client.registry import CollectorRegistry
from tests.relay.grpc_client import answered_by, unary
from tests.relay.harness import (
    Client,
    Pod,
    Upstream,
    answer,
    eventually,
    free_port,
    post,
    reset,
    revision,
    routing,
    says,
    silent,
    well,
)

from coalmine_sidecar.telemetry.render import TelemetryCollector

DOWN = says(answer(b"down", status="503 Service Unavailable"))
BUG = says(answer(b"bug", status="500 Internal Server Error"))


def canary(other: Upstream, response: float = 20, **breaker: Any):
    """Everything is for the canary `a` (the pod's own model); `b` is stable, on another pod."""
    return routing(
        revision("a", 100, track="canary"),
        revision("b", 0, other.port),
        fallback={"chain": ["b"]},
        circuitBreaker={"consecutiveFailures": 3, "minBackoff": 60} | breaker,
        timeouts={"response": response},
    )


def sample(pod: Pod, name: str, **labels: str) -> float | None:
    registry = CollectorRegistry()
    registry.register(TelemetryCollector(pod.telemetry))
    return registry.get_sample_value(name, {"model": "m", **labels})


def state(pod: Pod, name: str = "a", track: str = "canary") -> str:
    states = [
        which
        for which in ("closed", "half_open", "open")
        if sample(pod, "coalmine_breaker_state", version=name, track=track, state=which)
    ]
    assert len(states) == 1
    return states[0]


@pytest.mark.parametrize(("handle", "reason"), [(reset, "reset"), (silent, "timeout"), (DOWN, "status")])
async def test_after_so_many_failures_in_a_row_the_share_goes_to_the_fallback(model, other, start_pod, handle, reason):
    model.handle = handle
    pod = await start_pod(model.port, canary(other, response=1.0 if handle is silent else 20))
    for _ in range(8):
        assert (await pod.ask(post())).revision == "b"
    assert len(model.requests) == 3, "open: it is left alone"
    assert {why: n for why, n in pod.telemetry.fallbacks["a", "b"].items() if n} == {reason: 3, "breaker": 5}
    assert (state(pod), state(pod, "b", "stable")) == ("open", "closed")
    assert sample(pod, "coalmine_breaker_opened_total", version="a", track="canary") == 1


async def test_requests_drawn_for_a_canary_whose_breaker_is_open_are_evidence_against_it(model, other, start_pod):
    """The analysis compares what became of the requests that chance gave to each revision, whoever answered in the end.

    Were they left out, a canary could fail a few requests and then stop the trial by being broken; and the requests of
    a stable whose breaker is open are charged in the same way.
    """
    model.handle = reset
    pod = await start_pod(model.port, canary(other))
    for _ in range(10):
        assert (await pod.ask(post())).status == 200
    cell = pod.telemetry.epoch("a")
    assert (cell.requests, cell.errors) == (10, 10)
    assert pod.telemetry.epoch("b").requests == 0


async def test_its_own_errors_count_too_and_a_success_between_starts_anew(model, other, start_pod):
    pod = await start_pod(model.port, canary(other))
    for handle in (BUG, BUG, well, BUG, BUG, well):
        model.handle = handle
        assert (await pod.ask(post())).revision == "a"
    assert state(pod) == "closed"
    model.handle = BUG
    assert [(await pod.ask(post())).revision for _ in range(4)] == ["a", "a", "a", "b"]


async def test_too_small_a_share_of_successes(model, other, start_pod):
    rate = {"consecutiveFailures": 0, "successRate": 60, "minRequests": 10}
    pod = await start_pod(model.port, canary(other, **rate))
    for number in range(10):
        model.handle = well if number % 2 else BUG
        assert (await pod.ask(post())).revision == "a"
    assert state(pod) == "closed", "the tenth was a success; a failure opens"
    model.handle = BUG
    assert [(await pod.ask(post())).revision for _ in range(2)] == ["a", "b"]


async def test_half_open_one_probe_decides(model, other, start_pod):
    model.handle = reset
    pod = await start_pod(model.port, canary(other, minBackoff=0.2, maxBackoff=0.2))
    for _ in range(4):
        assert (await pod.ask(post())).revision == "b"
    await asyncio.sleep(0.25)
    assert (await pod.ask(post())).revision == "b"
    assert (len(model.requests), state(pod)) == (4, "open"), "the probe failed, unseen by its client"
    asked = asyncio.Event()

    async def slowly(request, writer) -> None:
        asked.set()
        await asyncio.sleep(0.1)
        await well(request, writer)

    model.handle = slowly
    await asyncio.sleep(0.25)
    probe = asyncio.create_task(pod.ask(post()))
    await asked.wait()
    assert state(pod) == "half_open"
    assert (await pod.ask(post())).revision == "b", "one at a time"
    assert (await probe).revision == "a"
    assert state(pod) == "closed"
    model.handle = well
    assert (await pod.ask(post())).revision == "a"
    assert sample(pod, "coalmine_breaker_opened_total", version="a", track="canary") == 1


async def test_both_versions_down_with_their_breakers_open(start_pod):
    document = routing(
        revision("a", 100),
        revision("b", 0, free_port()),
        fallback={"chain": ["b"]},
        circuitBreaker={"consecutiveFailures": 2, "minBackoff": 60},
    )
    pod: Pod = await start_pod(free_port(), document)
    client = await Client.connect(pod.ingress)
    for number in range(1, 9):
        reply = await client.ask(post())
        assert (reply.header("coalmine-error"), reply.revision) == ("upstream" if number <= 2 else "both", None)
        assert reply.status == (502 if number <= 2 else 503)
        assert pod.telemetry.epoch("a").errors == number
    assert (reply.error, reply.header("coalmine-reason")) == ("a: its breaker is open", "breaker")
    assert (state(pod, "a", "stable"), state(pod, "b", "stable")) == ("open", "open")
    assert (pod.outcomes("a"), pod.outcomes("b")) == ({"model_error": 8}, {})
    assert pod.series().requests[2, 503] == 6
    assert pod.telemetry.fallbacks == {}
    assert pod.telemetry.revisions["b"].connection_errors["connect"] == 2, "the fallback is not hammered either"
    await client.close()


async def test_a_client_that_leaves_says_nothing_of_the_model(model, other, start_pod):
    document = canary(other, consecutiveFailures=1)
    model.handle = silent
    pod = await start_pod(model.port, document)
    client = await Client.connect(pod.ingress)
    await client.send(post())
    await eventually(lambda: model.requests)
    await client.close()
    await eventually(lambda: pod.outcomes("a") == {"cancelled": 1})
    assert state(pod) == "closed"


async def test_another_pod_that_answers_keeps_it_closed(other, start_pod):
    document = routing(
        revision("a", 100, free_port(), other.port), circuitBreaker={"consecutiveFailures": 1, "minBackoff": 60}
    )
    pod = await start_pod(free_port(), document)
    for _ in range(10):
        assert (await pod.ask(post())).status == 200
    assert pod.telemetry.revisions["a"].connection_errors["connect"] >= 1
    assert state(pod, "a", "stable") == "closed"


async def test_it_outlives_the_routing_file_while_its_settings_do(model, other, start_pod):
    model.handle = reset
    pod = await start_pod(model.port, canary(other))
    for _ in range(3):
        await pod.ask(post())
    assert state(pod) == "open"
    pod.relay.use(canary(other))
    assert state(pod) == "open"
    pod.relay.use(canary(other, minBackoff=30))
    assert state(pod) == "closed"
    pod.relay.use(routing(revision("a", 100, track="canary")))
    assert sample(pod, "coalmine_breaker_state", version="a", track="canary", state="closed") is None


async def test_grpc_and_http_share_it(other, start_pod, start_model, dial):
    model = await start_model("fallback")
    document = routing(
        revision("a", 100, track="canary"),
        revision("b", 0, model.port),
        fallback={"chain": ["b"]},
        circuitBreaker={"consecutiveFailures": 2, "minBackoff": 60},
    )
    pod = await start_pod(free_port(), document)
    channel = dial(pod.ingress)
    reasons: dict[str, int] = {}
    while not reasons.get("breaker"):
        call = unary(channel)(b"hello")
        assert (await call, await answered_by(call)) == (b"hello", "b")
        reasons = pod.telemetry.fallbacks["a", "b"]
        assert reasons["refused"] <= 2
    assert state(pod) == "open"
    assert pod.telemetry.epoch("a").errors == sum(reasons.values())
    refused = pod.telemetry.revisions["a"].connection_errors["connect"]
    assert (await pod.ask(post())).status != 200, "the fallback speaks no HTTP/1.1"
    assert pod.telemetry.revisions["a"].connection_errors["connect"] == refused == 2

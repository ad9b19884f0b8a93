"""The retry budget over real sockets: what it bounds, and what it leaves alone."""

from __future__ import annotations

import socket

import pytest
from tests.relay.grpc_client import answered_by, unary
from tests.relay.harness import Pod, Upstream, get, post, reset, revision, routing

NONE = {"percent": 0, "minPerSecond": 0}


@pytest.fixture
async def broken():
    upstream = Upstream(reset)
    await upstream.start()
    yield upstream
    await upstream.stop()


def retries(pod: Pod, name: str = "a") -> dict[str, int]:
    return {reason: n for reason, n in pod.telemetry.revisions[name].retries.items() if n}


async def test_a_spent_budget_lets_the_error_pass_and_says_so(model, broken, start_pod):
    pod = await start_pod(broken.port, routing(revision("a", 100, model.port), retryBudget=NONE))
    reply = await pod.ask(post())
    assert (reply.status, reply.header("coalmine-error")) == (502, "both")
    assert model.requests == []
    assert (retries(pod), pod.telemetry.revisions["a"].retry_overflow) == ({}, 1)
    assert pod.outcomes() == {"model_error": 1}


async def test_a_share_of_the_requests_and_no_more(model, broken, start_pod):
    """Every first attempt breaks; the other pod would answer each of them."""
    document = routing(revision("a", 100, model.port), retryBudget={"percent": 20, "minPerSecond": 0})
    pod = await start_pod(broken.port, document)
    statuses = [(await pod.ask(post())).status for _ in range(50)]
    assert statuses.count(200) == len(model.requests) == 10
    assert retries(pod) == {"reset": 10}
    assert pod.telemetry.revisions["a"].retry_overflow == 40


async def test_a_request_that_may_not_be_served_twice_costs_nothing(model, broken, start_pod):
    document = routing(revision("a", 100, model.port), idempotent=False, retryBudget={"minPerSecond": 0.1})
    pod = await start_pod(broken.port, document)
    for _ in range(5):
        assert (await pod.ask(post())).status == 502
    assert (retries(pod), pod.telemetry.revisions["a"].retry_overflow) == ({}, 0)
    assert (await pod.ask(get())).status == 200


async def test_the_fallback_is_no_retry(model, broken, start_pod):
    document = routing(
        revision("a", 100, broken.port),
        revision("b", 0, model.port),
        fallback={"chain": ["b"]},
        retryBudget=NONE,
    )
    pod = await start_pod(broken.port, document)
    for _ in range(5):
        assert (await pod.ask(post())).revision == "b"
    assert len(broken.requests) == 5, "once each"
    assert pod.telemetry.fallbacks["a", "b"]["reset"] == pod.telemetry.revisions["a"].retry_overflow == 5


async def test_connections_that_never_opened_are_free(model, start_pod):
    with socket.socket() as one, socket.socket() as other:
        # Bound and not listened on: they refuse, and nobody else gets them meanwhile.
        for dead in (one, other):
            dead.bind(("127.0.0.1", 0))
        ports = [dead.getsockname()[1] for dead in (one, other)]
        pod = await start_pod(ports[0], routing(revision("a", 100, ports[1], model.port), retryBudget=NONE))
        for _ in range(5):
            assert (await pod.ask(post())).status == 200
        assert retries(pod)["refused"] >= 1
        assert pod.telemetry.revisions["a"].retry_overflow == 0


async def test_grpc_draws_from_the_same_budget(model, start_pod, start_model, dial):
    """`model` breaks HTTP/1.1's requests and never heard of gRPC's."""
    model.handle = reset
    other = await start_model("other")
    document = routing(revision("a", 100, other.port), retryBudget={"percent": 0, "minPerSecond": 0.1})
    pod = await start_pod(model.port, document)
    await pod.ask(post())
    assert retries(pod) == {"reset": 1}
    await pod.ask(post())
    assert pod.telemetry.revisions["a"].retry_overflow == 1
    call = unary(dial(pod.ingress))(b"hello")
    assert (await call, await answered_by(call)) == (b"hello", "a"), "a refused connection is free"
    assert pod.telemetry.revisions["a"].retry_overflow == 1

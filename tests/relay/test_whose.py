"""Whose error it was is never a question: who failed, in the protocol's own shape, in a header, and in a counter."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import grpc
import pytest
from tests.relay.grpc_client import unary
from tests.relay.harness import (
    Answer,
    Client,
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

from coalmine_sidecar.relay.h2.fields import write
from coalmine_sidecar.relay.h2.frames import PREFACE
from coalmine_sidecar.telemetry.exposition import expose
from coalmine_sidecar.telemetry.refusals import REFUSALS

SETTINGS = b"\0\0\0\4\0\0\0\0\0"
CHAT = "/v1/chat/completions"
SHORT = {
    "limits": {"headBytes": 1024, "bodyBytes": 5000, "replayBytes": 1000},
    "timeouts": {"idle": 0.2, "response": 0.2, "connect": 0.2},
}
A = routing(revision("a", 100), **SHORT)

#: What the tests of this file have met, with the name of the counter's place.
MET: set[tuple[str, int, str]] = set()


def refusals(pod: Pod, name: str = "a") -> dict[tuple[str, int, str], int]:
    return {key: count for key, count in pod.series(name).refusals.items() if count}


def check(pod: Pod, reply: Answer, who: str, status: int, why: str, name: str = "a") -> None:
    """One refusal, said in OpenAI's shape, and counted once."""
    assert (reply.status, reply.header("coalmine-error")) == (status, who)
    assert refusals(pod, name) == {(who, status, why): 1}
    MET.add((who, status, why))
    error = json.loads(reply.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert "\n" not in error["message"]
    assert (error["type"], error["code"]) == ("invalid_request_error" if status < 500 else "server_error", why)


@pytest.mark.parametrize(
    ("status", "why", "request_"),
    [
        (400, "malformed", f"POST {CHAT} HTTP/1.1\r\nX: a\0b\r\n\r\n"),
        (400, "malformed", f"GET {CHAT} HTTP/1.1\r\n\r\n"),
        (408, "slow_request", f"POST {CHAT} HTTP/1.1\r\nHost: m\r\nContent-Length: 9\r\n\r\nslow"),
        (408, "slow_request", f"POST {CHAT} HTTP/1.1\r\nHost: m\r\n"),
        (413, "body_too_long", f"POST {CHAT} HTTP/1.1\r\nHost: m\r\nContent-Length: 5001\r\n\r\n"),
        (417, "unsupported", f"POST {CHAT} HTTP/1.1\r\nHost: m\r\nExpect: wonders\r\n\r\n"),
        (431, "head_too_long", f"POST {CHAT} HTTP/1.1\r\nHost: m\r\nX: {'x' * 2000}\r\n\r\n"),
        (501, "unsupported", f"POST {CHAT} HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: gzip\r\n\r\n"),
        (505, "unsupported", f"POST {CHAT} HTTP/2.0\r\nHost: m\r\n\r\n"),
    ],
)
async def test_what_the_sidecar_refuses(model, start_pod, status, why, request_):
    document = A
    if "Expect" in request_ or "gzip" in request_ or not request_.endswith("\r\n\r\n"):
        # These come to an end before the whole head was read, and its target may be lost.
        document = routing(revision("a", 100), **SHORT, observe={"protocol": "openai"})
    pod = await start_pod(model.port, document)
    client = await Client.connect(pod.ingress)
    await client.send(request_.encode("latin-1"))
    check(pod, await client.answer(), "sidecar", status, why)
    assert model.requests == []


async def test_before_the_first_routing_file(model, start_pod):
    pod = await start_pod(model.port, None)
    check(pod, await pod.ask(post(path=CHAT)), "sidecar", 503, "no_routing")


async def test_too_many_requests_ahead(model, start_pod):
    model.handle = silent
    pod = await start_pod(model.port, routing(revision("a", 100), observe={"protocol": "openai"}))
    client = await Client.connect(pod.ingress)
    await client.send(get() * 80)
    await eventually(lambda: model.requests)
    model.drop_connections()
    replies = [await client.answer()]
    model.handle = says(answer())
    while replies[-1].header("coalmine-error") != "sidecar":
        replies.append(await client.answer())
    assert replies[-1].status == 503
    assert refusals(pod)["sidecar", 503, "too_far_ahead"] == 1
    MET.add(("sidecar", 503, "too_far_ahead"))


async def test_too_many_connections(model, start_pod):
    document = routing(revision("a", 100), observe={"protocol": "openai"})
    pod = await start_pod(model.port, document, max_connections=1)
    await (await Client.connect(pod.ingress)).ask(get())
    check(pod, await (await Client.connect(pod.ingress)).answer(), "sidecar", 503, "too_many_connections")


async def test_a_full_queue(model, start_pod):
    model.handle = silent
    document = routing(revision("a", 100), concurrency={"limit": 1, "queueDepth": 0})
    pod = await start_pod(model.port, document)
    client = await Client.connect(pod.ingress)
    await client.send(post())
    await eventually(lambda: model.requests)
    check(pod, await pod.ask(post(path=CHAT)), "sidecar", 503, "queue_full")


async def test_a_model_that_refuses(start_pod):
    pod = await start_pod(free_port(), A)
    check(pod, await pod.ask(post(path=CHAT)), "upstream", 502, "refused")


async def test_a_model_that_breaks(model, start_pod):
    model.handle = reset
    pod = await start_pod(model.port, A)
    check(pod, await pod.ask(post(path=CHAT)), "upstream", 502, "reset")


async def test_a_model_that_is_silent(model, start_pod):
    model.handle = silent
    pod = await start_pod(model.port, A)
    check(pod, await pod.ask(post(path=CHAT)), "upstream", 504, "timeout")


async def test_a_revision_without_a_pod(model, start_pod):
    pod = await start_pod(model.port, routing(revision("b", 100)))
    check(pod, await pod.ask(post(path=CHAT)), "upstream", 503, "no_endpoint", "b")


async def test_a_breaker_that_is_open(model, start_pod):
    """The model failed, and the sidecar does not ask it any more."""
    model.handle = says(answer(b"x", status="500 Oh"))
    pod = await start_pod(model.port, routing(revision("a", 100), circuitBreaker={"consecutiveFailures": 2}))
    for _ in range(2):
        assert (await pod.ask(post(path=CHAT))).header("coalmine-error") is None
    check(pod, await pod.ask(post(path=CHAT)), "both", 503, "breaker")


async def test_a_spent_budget_of_retries(model, other, start_pod):
    model.handle = other.handle = reset
    document = routing(revision("b", 100, model.port, other.port), retryBudget={"percent": 0, "minPerSecond": 0})
    pod = await start_pod(free_port(), document)
    reply = await pod.ask(post(path=CHAT))
    check(pod, reply, "both", 502, "reset", "b")
    assert json.loads(reply.body)["error"]["message"].endswith("; the retry budget is spent")


async def test_an_error_without_an_end(model, start_pod):
    """A status of the fallback's, after which nothing comes: nobody else answers either."""

    async def begins(_, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\nhal")
        await asyncio.sleep(60)

    model.handle = begins
    document = routing(
        revision("a", 100), revision("b", 0, free_port(), track="fallback"), fallback={"chain": ["b"]}, **SHORT
    )
    pod = await start_pod(model.port, document)
    reply = await pod.ask(post(path=CHAT))
    assert (reply.status, reply.header("coalmine-error")) == (502, "upstream")
    (place,) = refusals(pod)
    assert place[:2] == ("upstream", 502)
    MET.add(("upstream", 502, "status"))


@pytest.mark.parametrize(("handle", "status", "why"), [(reset, 502, "reset"), (silent, 504, "timeout")])
async def test_both_where_the_request_was_not_kept_for_the_one_that_could_answer(
    model, other, start_pod, handle, status, why
):
    model.handle = handle
    document = routing(
        revision("a", 100), revision("b", 0, other.port, track="fallback"), fallback={"chain": ["b"]}, **SHORT
    )
    pod = await start_pod(model.port, document)
    reply = await pod.ask(post(b"x" * 4000, path=CHAT))
    check(pod, reply, "both", status, why)
    assert json.loads(reply.body)["error"]["message"].endswith("; the request was too long to be kept for another one")
    assert other.requests == []


async def test_a_request_that_must_not_be_sent_twice_is_the_models_failure_alone(model, other, start_pod):
    model.handle = reset
    document = routing(
        revision("a", 100), revision("b", 0, other.port, track="fallback"), fallback={"chain": ["b"]}, idempotent=False
    )
    pod = await start_pod(model.port, document)
    check(pod, await pod.ask(post(path=CHAT)), "upstream", 502, "reset")


async def test_a_models_own_error_is_its_own(model, start_pod):
    model.handle = says(answer(b'{"error":"mine"}', status="500 Oh"))
    pod = await start_pod(model.port, A)
    reply = await pod.ask(post(path=CHAT))
    assert (reply.status, reply.header("coalmine-error"), reply.body) == (500, None, b'{"error":"mine"}')
    assert refusals(pod) == {}


async def test_only_sidecars_say_who_failed(model, start_pod):
    """A model can't pass its error off as the sidecar's; another pod's sidecar can say so of itself."""
    model.handle = says(answer(b"x", status="500 Oh", headers="Coalmine-Error: sidecar\r\n"))
    there = await start_pod(model.port, A, revision="a")
    reply = await there.ask(post(path=CHAT))
    assert (reply.status, reply.header("coalmine-error")) == (500, None)
    gone = await start_pod(free_port(), A, revision="a")
    here = await start_pod(free_port(), routing(revision("a", 100, gone.local)), revision="b")
    assert (await here.ask(post(path=CHAT))).header("coalmine-error") == "upstream"


@pytest.mark.parametrize("path", ["/v2/models/m/infer", "/v1/models/m:predict", "/v1/models", "/", "/invocations"])
async def test_the_shape_of_all_other_protocols(start_pod, path):
    pod = await start_pod(free_port(), A)
    reply = await pod.ask(post(path=path))
    assert json.loads(reply.body) == {"error": "a: the model refused the connection"}


@pytest.mark.parametrize("path", ["/v1/models", "/v1/responses", "/openai/v1/embeddings", "/v1/completions?x"])
async def test_the_shape_follows_the_protocol_where_the_path_is_anybodys(start_pod, path):
    document = routing(revision("a", 100), observe={"protocol": "openai" if path == "/v1/models" else "auto"})
    pod = await start_pod(free_port(), document)
    check(pod, await pod.ask(post(path=path)), "upstream", 502, "refused")


async def test_grpc(start_pod, dial):
    pod = await start_pod(free_port(), A)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await unary(dial(pod.ingress))(b"x")
    fields = Counter(key for key, _ in (*refused.value.initial_metadata(), *refused.value.trailing_metadata()))
    assert fields["coalmine-error"] == 1
    assert refused.value.details() == "a: the model refused the connection"
    assert refusals(pod) == {("upstream", 502, "refused"): 1}


async def test_a_deadline_of_grpc(start_pod):
    """By bytes: real clients and servers heed the deadline as well, and may be the first."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SETTINGS)
        await reader.read(-1)

    pod = await start_pod(await listen_raw(say_nothing), routing(revision("a", 100)))
    fields = {
        ":method": "POST", ":scheme": "http", ":path": "/any.Service/Hang", ":authority": "m", "te": "trailers",
        "content-type": "application/grpc", "grpc-timeout": "200m",
    }  # fmt: skip
    block = write([(name.encode(), value.encode()) for name, value in fields.items()])
    message = b"\0\0\0\0\1x"
    client = await Client.connect(pod.ingress)
    await client.send(PREFACE + SETTINGS)
    await client.send(len(block).to_bytes(3, "big") + b"\1\4\0\0\0\1" + block)
    await client.send(len(message).to_bytes(3, "big") + b"\0\1\0\0\0\1" + message)
    await eventually(lambda: refusals(pod) == {("sidecar", 504, "deadline"): 1})
    MET.add(("sidecar", 504, "deadline"))


async def test_a_malformed_call_of_http2(start_pod, model: Upstream):
    pod = await start_pod(model.port, A)
    client = await Client.connect(pod.ingress)
    await client.send(PREFACE + SETTINGS + b"\0\0\1\1\5\0\0\0\1\x83")
    await eventually(lambda: refusals(pod) == {("sidecar", 400, "malformed"): 1})


async def test_all_places_are_there_from_the_beginning_and_no_others_come(model, start_pod):
    pod = await start_pod(model.port, A)
    series = pod.series()
    for code in range(300, 700):
        series.refused(b"upstream", code, f"reason {code}")
    _, pieces = expose(pod.telemetry, "")
    lines = [line for line in b"".join(pieces).decode().splitlines() if line.startswith("coalmine_refusals_total{")]
    ingress = [line for line in lines if 'role="ingress"' in line and 'version="a"' in line]
    assert len(REFUSALS) < len(ingress) <= len(REFUSALS) + len({code for _, code, _ in REFUSALS}) + 1
    for who, code, why in REFUSALS:
        assert any(
            f'who="{who}"' in line and f'code="{code}"' in line and f'reason="{why}"' in line for line in ingress
        )


def test_every_kind_of_refusal_was_met_above():
    """Runs last, with all of this file."""
    if len(MET) < 10:
        pytest.skip("only a part of this file was run")
    assert set(REFUSALS) == MET

"""containerConcurrency over real sockets: who waits, who is turned away where to, and what is counted."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from tests.relay.grpc_client import unary
from tests.relay.harness import Client, Pod, Request, Upstream, eventually, get, post, revision, routing, well


class Busy(Upstream):
    """Answers when it is told to; remembers how many it had at a time."""

    def __init__(self) -> None:
        super().__init__(self._hold)
        self.running = self.most = 0
        self.places = asyncio.Semaphore(0)

    async def _hold(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.places.acquire()
            await well(request, writer)
        finally:
            self.running -= 1

    def answer(self, count: int = 1) -> None:
        for _ in range(count):
            self.places.release()


@pytest.fixture
async def busy():
    upstream = Busy()
    await upstream.start()
    yield upstream
    await upstream.stop()


def limited(limit: int, depth: int, *ports: int, **more: Any):
    return routing(revision("a", 100, *ports), concurrency={"limit": limit, "queueDepth": depth}, **more)


def queue(pod: Pod) -> tuple[int, int, dict[str, int]]:
    """Its length, how many waits were recorded, and those turned away."""
    counters = pod.telemetry.queue
    assert counters is not None
    return counters.depth, sum(counters.wait.counts), {why: n for why, n in counters.turned_away.items() if n}


def asking(pod: Pod, count: int, port: int = 0, path: str = "/") -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(pod.ask(get(f"{path}{number}"), port)) for number in range(count)]


async def test_so_many_at_a_time_and_the_others_in_their_order(busy, start_pod):
    pod = await start_pod(busy.port, limited(2, 10))
    tasks = []
    for number in range(8):
        tasks += asking(pod, 1, path=f"/{number}-")
        await eventually(
            lambda number=number: queue(pod)[0] == max(0, number - 1) and busy.running == min(number + 1, 2)
        )
    assert (queue(pod), busy.running) == ((6, 2, {}), 2)
    assert pod.series().in_flight == 8
    for _ in range(8):
        busy.answer()
        await asyncio.sleep(0.01)
    assert {reply.status for reply in await asyncio.gather(*tasks)} == {200}
    assert [request.target for request in busy.requests] == [f"/{number}-0" for number in range(8)]
    assert (busy.most, queue(pod)) == (2, (0, 8, {}))
    counters = pod.telemetry.queue
    assert counters.wait.total > 0.01
    assert pod.outcomes() == {"ok": 8}


async def test_both_roles_and_long_bodies_have_one_limit(busy, start_pod):
    pod = await start_pod(busy.port, limited(1, 10, limits={"replayBytes": 1000}))
    tasks = asking(pod, 2) + asking(pod, 2, pod.local) + [asyncio.create_task(pod.ask(post(b"x" * 300_000)))]
    await eventually(lambda: queue(pod)[0] == 4 and busy.running == 1)
    busy.answer(5)
    assert {reply.status for reply in await asyncio.gather(*tasks)} == {200}
    assert (busy.most, queue(pod)) == (1, (0, 5, {}))
    assert (pod.outcomes(), pod.outcomes(role="local")) == ({"ok": 3}, {"ok": 2})


@pytest.mark.parametrize("role", ["ingress", "local"])
async def test_a_full_queue_says_when_to_come_again(busy, start_pod, role):
    pod = await start_pod(busy.port, limited(1, 1))
    tasks = asking(pod, 2, getattr(pod, role))
    await eventually(lambda: queue(pod)[0] == 1)
    client = await Client.connect(getattr(pod, role))
    for number in range(1, 4):
        reply = await client.ask(post())
        assert (reply.status, reply.header("retry-after"), reply.header("coalmine-error")) == (503, "1", "sidecar")
        assert (reply.error, reply.header("coalmine-reason")) == ("a: the queue of its model is full", "queue_full")
        assert queue(pod)[2] == {"full": number}
        assert pod.outcomes(role=role) == {"rejected": number}
    assert pod.series(role=role).requests[4, 503] == 3
    busy.answer(2)
    await asyncio.gather(*tasks)
    busy.answer()
    assert (await client.ask(post())).status == 200, "the client's connection goes on"


async def test_a_client_that_leaves_the_queue(busy, start_pod):
    pod = await start_pod(busy.port, limited(1, 5))
    (first,) = asking(pod, 1)
    await eventually(lambda: busy.running == 1)
    clients = [await Client.connect(pod.ingress) for _ in range(3)]
    for number, client in enumerate(clients):
        await client.send(post(path=f"/{number}"))
        await eventually(lambda number=number: queue(pod)[0] == number + 1)
    await clients[1].close()
    await eventually(lambda: pod.outcomes() == {"cancelled": 1})
    assert pod.series().requests[5, 499] == 1
    assert queue(pod) == (2, 2, {})
    busy.answer(3)
    for client in (clients[0], clients[2]):
        assert (await client.answer()).status == 200
    assert (await first).status == 200
    assert [request.target for request in busy.requests] == ["/0", "/0", "/2"], "the model never saw it"
    assert pod.telemetry.epoch("a").errors == 0, "no evidence against the model"


async def test_nobody_waits_for_ever(model, start_pod):
    done = asyncio.Event()

    async def stream(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha")
        await done.wait()
        writer.write(b"lf")

    model.handle = stream
    pod = await start_pod(model.port, limited(1, 5, timeouts={"response": 0.3}))
    (held,) = asking(pod, 1)
    await eventually(lambda: model.requests)
    reply = await asyncio.wait_for(pod.ask(post()), 5)
    assert (reply.status, reply.header("retry-after")) == (503, "1")
    assert queue(pod) == (0, 2, {"timeout": 1})
    assert pod.telemetry.queue.wait.total >= 0.3
    assert len(model.requests) == 1
    done.set()
    assert (await held).body == b"half"


async def test_a_full_queue_elsewhere_another_pod_answers(busy, model, start_pod):
    """The pods' sidecars turn requests away; the ingress asks somebody else of the revision, within the budget."""
    full = await start_pod(busy.port, limited(1, 0), revision="a")
    (held,) = asking(full, 1, full.local)
    await eventually(lambda: busy.running == 1)
    idle = await start_pod(model.port, limited(1, 0), revision="a")
    document = routing(
        revision("a", 100, full.local, idle.local), revision("z", 0), idempotent=False, retryBudget={"percent": 100}
    )
    pod = await start_pod(0, document, revision="z")
    for _ in range(20):
        assert (await pod.ask(post())).status == 200
    turned_away = queue(full)[2].get("full", 0)
    assert turned_away > 0
    assert {why: n for why, n in pod.telemetry.revisions["a"].retries.items() if n} == {"queue_full": turned_away}
    assert full.outcomes(role="local") == {"rejected": turned_away}
    assert pod.telemetry.epoch("a").errors == 0
    busy.answer()
    await held


async def test_a_full_queue_elsewhere_with_the_budget_spent(busy, start_pod):
    full = [await start_pod(busy.port, limited(1, 0), revision="a") for _ in range(2)]
    held = [task for pod in full for task in asking(pod, 1, pod.local)]
    await eventually(lambda: busy.running == 2)
    document = routing(
        revision("a", 100, *(pod.local for pod in full)),
        revision("z", 0),
        retryBudget={"percent": 0, "minPerSecond": 0.1},
        circuitBreaker={"consecutiveFailures": 1},
    )
    pod = await start_pod(0, document, revision="z")
    for _ in range(3):
        reply = await pod.ask(post())
        assert (reply.status, reply.header("retry-after"), reply.header("coalmine-error")) == (503, "1", "sidecar")
    counters = pod.telemetry.revisions["a"]
    assert (counters.retries["queue_full"], counters.retry_overflow) == (1, 2)
    assert sum(queue(each)[2]["full"] for each in full) == 4
    assert pod.outcomes("a") == {"rejected": 3}
    assert pod.telemetry.epoch("a").errors == 3, "the users of a revision that has no room got no answer from it"
    assert counters.breaker.state == "closed", "to be busy is no reason to be left alone"
    busy.answer(2)
    await asyncio.gather(*held)


async def test_a_full_queue_and_the_fallback(busy, other, start_pod):
    document = routing(
        revision("a", 100),
        revision("b", 0, other.port),
        fallback={"chain": ["b"], "statusCodes": []},
        concurrency={"limit": 1, "queueDepth": 0},
    )
    pod = await start_pod(busy.port, document)
    (held,) = asking(pod, 1)
    await eventually(lambda: busy.running == 1)
    assert (await pod.ask(post())).revision == "b"
    assert {why: n for why, n in pod.telemetry.fallbacks["a", "b"].items() if n} == {"queue_full": 1}
    busy.answer()
    await held


async def test_a_busy_model_of_ones_own_is_passed_over_for_an_idle_pod(busy, model, start_pod):
    """No retry: with room elsewhere nobody needs to wait here."""
    pod = await start_pod(busy.port, limited(1, 5, model.port))
    (held,) = asking(pod, 1)
    await eventually(lambda: busy.running == 1)
    for _ in range(10):
        assert (await pod.ask(post())).status == 200
    assert (len(model.requests), queue(pod)) == (10, (0, 1, {}))
    busy.answer()
    await held


async def test_the_limit_changes_and_goes_with_the_routing_file(busy, start_pod):
    pod = await start_pod(busy.port, limited(1, 10))
    tasks = asking(pod, 6)
    await eventually(lambda: queue(pod)[0] == 5)
    pod.relay.use(limited(3, 10))
    await eventually(lambda: busy.running == 3)
    assert queue(pod)[0] == 3
    pod.relay.use(routing(revision("a", 100)))
    await eventually(lambda: busy.running == 6)
    assert pod.telemetry.queue is None
    busy.answer(6)
    assert {reply.status for reply in await asyncio.gather(*tasks)} == {200}


# gRPC

HANG = "/any.Service/Hang"


async def test_grpc_and_http_have_one_limit(start_model, start_pod, dial):
    model = await start_model("a")
    pod = await start_pod(model.port, limited(1, 1))
    channel = dial(pod.ingress)
    first = unary(channel, HANG)(b"1")
    await eventually(lambda: model.paths)
    second = unary(channel)(b"2")
    await eventually(lambda: queue(pod)[0] == 1)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await unary(channel)(b"3")
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    assert refused.value.details() == "a: the queue of its model is full"
    assert dict(refused.value.trailing_metadata())["grpc-retry-pushback-ms"] == "1000"
    assert (await pod.ask(post())).status == 503
    assert (pod.outcomes(), queue(pod)[2]) == ({"rejected": 2}, {"full": 2})
    first.cancel()
    assert await second == b"2"
    assert queue(pod)[:2] == (0, 2)
    assert model.paths == [HANG, "/any.Service/Echo"]


async def test_a_call_that_is_cancelled_in_the_queue_or_whose_deadline_passes_there(start_model, start_pod, dial):
    model = await start_model("a")
    pod = await start_pod(model.port, limited(1, 5))
    channel = dial(pod.ingress)
    first = unary(channel, HANG)(b"1")
    await eventually(lambda: model.paths)
    second = unary(channel)(b"2")
    await eventually(lambda: queue(pod)[0] == 1)
    second.cancel()
    await eventually(lambda: pod.outcomes() == {"cancelled": 1})
    assert (queue(pod)[0], pod.series().requests[5, 499]) == (0, 1)
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await unary(channel)(b"3", timeout=0.2)
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: queue(pod)[0] == 0)
    first.cancel()
    assert await unary(channel)(b"4") == b"4"
    assert model.paths == [HANG, "/any.Service/Echo"], "the model saw none of those that left"


async def test_a_call_waits_no_longer_than_an_answer_may_take(start_model, start_pod, dial):
    model = await start_model("a")
    pod = await start_pod(model.port, limited(1, 5, timeouts={"response": 0.4}))
    stream = dial(pod.ingress).stream_stream("/any.Service/Chat")()
    await stream.write(b"hello")
    assert await stream.read() == b"re: hello"
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await unary(dial(pod.ingress))(b"3")
    assert late.value.code() == grpc.StatusCode.UNAVAILABLE
    assert queue(pod)[2] == {"timeout": 1}
    await stream.done_writing()
    assert await stream.read() == grpc.aio.EOF


async def test_grpc_full_queue_elsewhere(start_model, start_pod, dial):
    full_model, model = await start_model("full"), await start_model("well")
    full = await start_pod(full_model.port, limited(1, 0), revision="a")
    idle = await start_pod(model.port, limited(1, 0), revision="a")
    held = unary(dial(full.local), HANG)(b"1")
    await eventually(lambda: full_model.paths)
    document = routing(revision("a", 100, full.local, idle.local), revision("z", 0), retryBudget={"minPerSecond": 0.5})
    pod = await start_pod(0, document, revision="z")
    channel = dial(pod.ingress)
    for _ in range(50):
        if pod.telemetry.revisions["a"].retries["queue_full"] == 2:
            break
        assert await unary(channel)(b"hello") == b"hello"
    held.cancel()
    assert pod.telemetry.revisions["a"].retries["queue_full"] == 2
    assert queue(full)[2] == {"full": 2}

"""Feedback over real sockets: what an answer looks like, and labels that come to another pod than their prediction."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from tests.relay.harness import Client, free_port

from coalmine_sidecar.feedback.app import MAX_POSTS, make_feedback_runner
from coalmine_sidecar.feedback.counts import FeedbackCounts
from coalmine_sidecar.feedback.hops import HOP_HEADER
from coalmine_sidecar.feedback.joiner import HOLD, Joiner
from coalmine_sidecar.feedback.memory import MemoryStore
from coalmine_sidecar.feedback.predicted import Predicted
from coalmine_sidecar.lean import web
from coalmine_sidecar.monitoring import Feedback, Monitoring, ScoreBins
from coalmine_sidecar.telemetry.performance import PerformanceCounters


class Peer:
    """Another pod by its port."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self._url = f"http://127.0.0.1:{port}/feedback"

    async def post(self, body: bytes) -> bytes:
        headers = {HOP_HEADER: "1", "Content-Type": "application/json"}
        try:
            async with self._session.post(self._url, data=body, headers=headers) as answer:
                if answer.status >= 400:
                    raise OSError(f"status {answer.status}")
                return await answer.read()
        except aiohttp.ClientError as error:
            raise OSError(str(error)) from error


class Pod:
    """A feedback port, its joiner, and what it counted."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.now = 1000.0
        self.peers: list[Any] = []
        self.counts = FeedbackCounts()
        self.performance = PerformanceCounters(Monitoring(feedback=Feedback()), ScoreBins(), 0.0)
        self.joiner = Joiner(
            MemoryStore(self.counts, max_pending=10_000, ttl=3600),
            lambda _: self.performance,
            task="binary",
            counts=self.counts,
            clock=lambda: self.now,
            peers=lambda: self.peers,
        )
        self.session = session
        self.port = 0
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        self._runner = make_feedback_runner(self.joiner)
        await self._runner.setup()
        listening = socket.create_server(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        await web.SockSite(self._runner, listening).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def predict(self, name: str, *scores: float) -> None:
        self.joiner.remember(Predicted(name, "a", self.now, [*scores], [None] * len(scores)))

    async def post(self, document: Any, **options: Any) -> tuple[int, Any]:
        async with self.session.post(f"http://127.0.0.1:{self.port}/feedback", json=document, **options) as answer:
            assert answer.content_type == "application/json"
            return answer.status, await answer.json()

    @property
    def outcomes(self) -> dict[str, int]:
        return {outcome: count for outcome, count in self.counts.outcomes.items() if count}


StartPods = Callable[[int], Awaitable[list[Pod]]]


@pytest.fixture
async def start_pods() -> AsyncIterator[StartPods]:
    """Pods that know each other."""
    pods: list[Pod] = []
    session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))

    async def start(count: int) -> list[Pod]:
        pods.extend(Pod(session) for _ in range(count))
        for pod in pods:
            await pod.start()
        for pod in pods:
            pod.peers = [Peer(session, other.port) for other in pods if other is not pod]
        return pods

    yield start
    await session.close()
    for pod in pods:
        await pod.stop()


async def test_a_label_is_taken(start_pods: StartPods) -> None:
    (pod,) = await start_pods(1)
    pod.predict("one", 0.9)
    assert await pod.post({"predictionId": "one", "label": 1}) == (202, {"accepted": 1, "joined": 1})
    assert await pod.post({"predictionId": "one"}) == (
        400,
        {
            "error": 'feedback: neither label, labels nor outcome: send {"predictionId": ID, "label": LABEL}',
            "accepted": 0,
            "malformed": 1,
        },
    )


async def test_labels_of_a_third_class_are_not_joined(start_pods: StartPods) -> None:
    a, b = await start_pods(2)
    b.predict("two", 0.9, 0.1, 0.8)
    status, told = await a.post({"predictionId": "two", "labels": [True, "banana", "1.0"]})
    line = (
        'feedback.labels[1]: "banana" is no label of a binary model: send 1 or 0, or name another prediction.positive'
    )
    assert (status, told) == (202, {"accepted": 2, "malformed": 1, "joined": 2, "reasons": [line]})
    assert (b.performance.labels, b.performance.confusion["1", "1"]) == (2, 2)
    status, told = await a.post({"predictionId": "two", "labels": [None, -1, None]})
    assert (status, told["malformed"]) == (400, 1)
    assert b.performance.labels == 2


async def test_what_is_no_post_of_json(start_pods: StartPods) -> None:
    (pod,) = await start_pods(1)
    url = f"http://127.0.0.1:{pod.port}/feedback"
    async with pod.session.get(url) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")
        assert await answer.json() == {"error": "GET is not for feedback: use POST"}
    for refused, what in (
        ({"Content-Type": "text/plain"}, "text/plain"),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, "Content-Encoding gzip"),
    ):
        async with pod.session.post(url, data=gzip.compress(b"{}"), headers=refused) as answer:
            assert answer.status == 415
            assert await answer.json() == {"error": f"{what} is not read: send application/json as it is"}
    headers = {"Content-Type": "application/json"}
    for size, error in (((1 << 20) + 1, "1048577 bytes are over 1048576"), (3 << 20, "the body is over 1048576 bytes")):
        async with pod.session.post(url, data=io.BytesIO(b" " * size), headers=headers) as answer:
            assert answer.status == 413
            assert (await answer.json())["error"] == f"{error}: send several posts"
    assert pod.outcomes == {"too_many": 2, "malformed": 2}


async def test_a_post_that_breaks_off_is_counted_and_nobody_hears_of_it(
    start_pods: StartPods, caplog: pytest.LogCaptureFixture
) -> None:
    (pod,) = await start_pods(1)
    client = await Client.connect(pod.port)
    head = b"POST / HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    await client.send(head + b'{"predictionId"')
    await until(lambda: answers(pod, 400))
    client.writer.transport.abort()
    before = pod.counts.outcomes["malformed"]

    async def counted() -> bool:
        return pod.counts.outcomes["malformed"] == before + 1

    await until(counted)
    assert caplog.records == []


async def test_a_flood_is_turned_away(start_pods: StartPods) -> None:
    """Posts that never end hold all places; the next one is told to come again, and gets in when they are gone."""
    (pod,) = await start_pods(1)
    head = b"POST /feedback HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    slow = [await Client.connect(pod.port) for _ in range(MAX_POSTS)]
    for client in slow:
        await client.send(head + b"{")
    await until(lambda: answers(pod, 503))
    assert pod.counts.outcomes["busy"] >= 1
    for client in slow:
        client.writer.transport.abort()
    await until(lambda: answers(pod, 400))


async def answers(pod: Pod, status: int) -> bool:
    return (await pod.post({}))[0] == status


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(500):
        if await true():
            return
        await asyncio.sleep(0.02)
    pytest.fail("not within ten seconds")


async def test_a_label_at_another_pod_finds_its_prediction(start_pods: StartPods) -> None:
    a, b, c = await start_pods(3)
    a.predict("of a", 0.9, 0.1)
    b.predict("of b", 0.9)
    c.predict("of c", 0.9)
    status, told = await b.post(
        [
            {"predictionId": "of a", "labels": [1, 1]},
            {"predictionId": "of b", "label": 1},
            {"predictionId": "of c", "outcome": "sale", "value": 5},
            {"predictionId": "nobody's", "label": 1},
        ]
    )
    assert (status, told) == (202, {"accepted": 5, "joined": 4, "held": 1})
    assert (a.outcomes, b.outcomes, c.outcomes) == ({"joined": 2}, {"joined": 1}, {"joined": 1})
    assert a.performance.confusion["1", "0"] == 1
    assert c.performance.outcomes["sale"].gained == 5
    b.now += HOLD
    await b.joiner.tick()
    assert b.outcomes == {"joined": 1, "unknown": 1}
    assert await c.post({"predictionId": "of a", "labels": [1, 0]}) == (
        202,
        {"accepted": 2, "duplicate": 1, "contradictory": 1},
    )


async def test_a_prediction_that_two_pods_know_counts_once(start_pods: StartPods) -> None:
    """A client that sent its request again, under its own id, to another pod."""
    a, b, c = await start_pods(3)
    a.predict("one", 0.9)
    c.predict("one", 0.8)
    assert await b.post({"predictionId": "one", "label": 1}) == (202, {"accepted": 1, "joined": 1})
    assert a.performance.labels + c.performance.labels == 1


async def test_an_early_label_is_asked_for_again(start_pods: StartPods) -> None:
    a, b = await start_pods(2)
    await b.post({"predictionId": "one", "label": 1})
    a.predict("one", 0.9)
    b.now += 1
    await b.joiner.tick()
    assert (a.outcomes, b.outcomes, b.joiner.held) == ({"joined": 1}, {}, 0)


async def test_ten_thousand_labels_at_the_wrong_pod(start_pods: StartPods) -> None:
    a, b = await start_pods(2)
    for i in range(10_000):
        a.predict(f"prediction-{i}", 0.9)
    entries = [{"predictionId": f"prediction-{i}", "label": i % 2} for i in range(10_000)]
    assert await b.post(entries) == (202, {"accepted": 10_000, "joined": 10_000})
    assert a.performance.labels == 10_000


async def test_posts_from_pods_go_no_further(start_pods: StartPods) -> None:
    a, b = await start_pods(2)
    a.predict("one", 0.9)
    hop = {"headers": {HOP_HEADER: "1"}}
    assert await b.post({"predictionId": "one", "label": 1}, **hop) == (202, {"outcomes": {}, "unknown": ["one"]})
    assert await b.post({"ask": ["one", "two"]}, **hop) == (200, {"outcomes": {}, "unknown": ["one", "two"]})
    assert await a.post({"ask": ["one", "two"]}, **hop) == (200, {"outcomes": {}, "unknown": ["two"]})
    assert (a.outcomes, b.outcomes, b.joiner.held) == ({}, {}, 0)


async def test_pods_that_are_gone_keep_nobody(start_pods: StartPods) -> None:
    a, b = await start_pods(2)
    b.peers.insert(0, Peer(b.session, free_port()))
    a.predict("one", 0.9)
    assert await b.post({"predictionId": "one", "label": 1}) == (202, {"accepted": 1, "joined": 1})


class Forgetful(Peer):
    """Knows everything, and breaks off when it is given the labels."""

    async def post(self, body: bytes) -> bytes:
        if "ask" in json.loads(body):
            return b'{"unknown": []}'
        raise ConnectionResetError("broke off")


class Liar(Peer):
    async def post(self, body: bytes) -> bytes:
        return b'{"unknown": 7'


async def test_a_pod_that_breaks_off_is_an_error_that_counts(start_pods: StartPods) -> None:
    (pod,) = await start_pods(1)
    pod.peers = [Liar(pod.session, 1), Forgetful(pod.session, 1)]
    status, told = await pod.post([{"predictionId": "one", "label": 1}, {"predictionId": "two", "outcome": "sale"}])
    assert (status, told["peer_error"]) == (503, 2)
    assert told["error"] == "predictions cannot be looked up now: send it again later"
    assert pod.outcomes == {"peer_error": 2}


async def test_labels_are_conserved_over_pods(start_pods: StartPods) -> None:
    """Many senders at many pods at once, the same labels twice: each counts once, the other is told."""
    pods = await start_pods(3)
    for i in range(600):
        pods[i % 3].predict(f"p{i}", 0.9)
    entries = [{"predictionId": f"p{i}", "label": 1} for i in range(700)]
    batches = [entries[at : at + 50] for at in range(0, 700, 50)]
    await asyncio.gather(*(pods[(i + turn) % 3].post(batch) for i, batch in enumerate(batches) for turn in (0, 1)))
    for pod in pods:
        pod.now += HOLD
        await pod.joiner.tick()
        await pod.joiner.tick()
    total = sum((Counter(pod.outcomes) for pod in pods), Counter())
    assert sum(pod.performance.labels for pod in pods) == total["joined"] == 600
    assert total["joined"] + total["duplicate"] + total["unknown"] + total["busy"] * 50 == 1400

"""Feedback through whole sidecars, as two pods have them: a prediction at the one, its label at the other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.relay.harness import Answer, Client, Upstream, answer, post, revision, routing, says
from tests.relay.process import Sidecar, listening, replace, sidecar
from tests.relay.redis_server import PASSWORD, redis_server

JSON = "Content-Type: application/json\r\n"
SCORES = b'{"model_name":"m","outputs":[{"name":"score","shape":[2],"datatype":"FP64","data":[0.9,0.2]}]}'


@pytest.fixture
async def model() -> AsyncIterator[Upstream]:
    upstream = Upstream(says(answer(SCORES)))
    await upstream.start()
    yield upstream
    await upstream.stop()


StartPods = Callable[..., Awaitable[list[Sidecar]]]


@pytest.fixture
async def start_pods(model: Upstream, tmp_path: Path) -> AsyncIterator[StartPods]:
    """Two pods of a revision, which know each other."""
    async with AsyncExitStack() as stack:

        async def start(feedback: dict[str, Any], task: str = "binary", **environment: str) -> list[Sidecar]:
            path = tmp_path / "routing.json"
            local = [listening(), listening()]
            ports = [opened.getsockname()[1] for opened in local]
            monitoring = {"task": task, "feedback": feedback, "slices": [{"attribute": "sex", "header": "x-sex"}]}
            replace(path, routing(revision("a", 100, *ports), namespace="shop", monitoring=monitoring))
            pods = [
                await stack.enter_async_context(sidecar(path, model.port, local=opened, **environment))
                for opened in local
            ]
            for opened in local:
                opened.close()
            return pods

        yield start


async def ask(pod: Sidecar, data: bytes) -> Answer:
    client = await Client.connect(pod.ingress)
    try:
        return await client.ask(data)
    finally:
        await client.close()


async def predict(pod: Sidecar, name: str) -> None:
    assert (await ask(pod, post(headers=f"{JSON}x-prediction-id: {name}\r\nx-sex: f\r\n"))).status == 200


async def label(pod: Sidecar, document: Any) -> tuple[int, dict[str, Any]]:
    reply = await ask(pod, post(json.dumps(document).encode(), path="/feedback", headers=JSON))
    return reply.status, json.loads(reply.body)


async def sums(pods: list[Sidecar]) -> dict[tuple[str, ...], float]:
    """Of all pods, by the metric's name and those labels that are not of the revision."""
    found: dict[tuple[str, ...], float] = {}
    for pod in pods:
        text = (await pod.get("/metrics"))[1].decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                rest = {k: v for k, v in sample.labels.items() if k not in ("model", "version", "track", "role")}
                key = (sample.name, *(rest[name] for name in sorted(rest)))
                found[key] = found.get(key, 0.0) + sample.value
    return found


async def until(pods: list[Sidecar], key: tuple[str, ...], value: float) -> dict[tuple[str, ...], float]:
    for _ in range(300):
        got = await sums(pods)
        if got.get(key) == value:
            return got
        await asyncio.sleep(0.1)
    raise AssertionError(f"{key} is {got.get(key)}, not {value}")


async def test_a_label_at_the_other_pod(start_pods: StartPods) -> None:
    pods = await start_pods({})
    await predict(pods[0], "one")
    await until(pods, ("coalmine_feedback_pending",), 2)
    assert await label(pods[1], {"predictionId": "one", "labels": [1, 1]}) == (202, {"accepted": 2, "joined": 2})
    got = await sums(pods)
    assert got["coalmine_feedback_total", "joined"] == got["coalmine_labels_total",] == 2
    assert (got["coalmine_confusion_total", "1", "1"], got["coalmine_confusion_total", "1", "0"]) == (1, 1)
    assert got["coalmine_slice_labels_total", "1", "sex", "f", "0"] == 1
    assert got["coalmine_feedback_pending",] == 0
    assert await label(pods[0], {"predictionId": "one", "labels": [1, 0]}) == (
        202,
        {"accepted": 2, "duplicate": 1, "contradictory": 1},
    )


async def test_a_label_right_behind_its_prediction(start_pods: StartPods) -> None:
    """Whether it was recorded by then or not."""
    pods = await start_pods({"path": "/api/v0.1/feedback"})
    for i in range(20):
        await predict(pods[i % 2], f"p{i}")
        body = json.dumps({"response": {"meta": {"puid": f"p{i}"}}, "truth": {"data": {"ndarray": [1, 0]}}}).encode()
        assert (await ask(pods[0], post(body, path="/api/v0.1/feedback", headers=JSON))).status == 202
    got = await until(pods, ("coalmine_feedback_total", "joined"), 40)
    assert got["coalmine_label_delay_seconds_count",] == 40


async def test_what_comes_of_a_text(start_pods: StartPods, model: Upstream) -> None:
    """Named by the model's own id, which is all that OpenAI's clients know."""
    completion = {
        "id": "chatcmpl-7",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    }
    model.handle = says(answer(json.dumps(completion).encode()))
    pods = await start_pods({}, "text")
    asked = post(b'{"model":"m","messages":[]}', path="/v1/chat/completions", headers=JSON)
    assert (await ask(pods[0], asked)).status == 200
    posted = {"predictionId": "chatcmpl-7", "outcome": "thumb", "value": -1}
    assert (await label(pods[1], posted))[0] == 202
    got = await until(pods, ("coalmine_feedback_total", "joined"), 1)
    assert got["coalmine_outcome_negative_sum_total", "thumb"] == got["coalmine_outcome_count_total", "thumb"] == 1


async def test_joins_outlive_a_pod(start_pods: StartPods, tmp_path: Path) -> None:
    """With Redis: the pod that answered is killed before the label comes."""
    (tmp_path / "redis").mkdir()
    async with redis_server(tmp_path / "redis") as redis:
        pods = await start_pods({"redis": redis.url}, COALMINE_REDIS_PASSWORD=PASSWORD)
        await predict(pods[0], "one")
        for _ in range(300):
            if b"coalmine:shop:d:p:one" in await redis.ask("KEYS *"):
                break
            await asyncio.sleep(0.1)
        pods[0].process.kill()
        assert await label(pods[1], {"predictionId": "one", "labels": [1, 0]}) == (202, {"accepted": 2, "joined": 2})
        assert (await sums(pods[1:]))["coalmine_labels_total",] == 2
        await redis.stop()
        status, told = await label(pods[1], {"predictionId": "one", "labels": [1, 0]})
        assert (status, told["store_error"]) == (503, 2)
        await predict(pods[1], "while it is gone")
        await redis.start()
        for _ in range(300):
            if b"coalmine:shop:d:p:while it is gone" in await redis.ask("KEYS *"):
                break
            await asyncio.sleep(0.1)
        for _ in range(300):
            status, told = await label(pods[1], {"predictionId": "while it is gone", "labels": [1, 0]})
            if status == 202:
                break
            await asyncio.sleep(0.1)
        assert (status, told) == (202, {"accepted": 2, "joined": 2})

"""Sidecars as they run in pods: labels find their predictions wherever these were made, payloads are logged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.relay.harness import (
    Request,
    Upstream,
    answer,
    ask,
    close_all,
    post,
    revision,
    routing,
)
from tests.relay.process import Sidecar, listening, replace, sidecar
from tests.relay.redis_server import PASSWORD, RedisServer, redis_server

from coalmine_sidecar.contract import encode_routing

PATH = "/v2/models/m/infer"
JSON = "Content-Type: application/json\r\n"
SCORES = (0.9, 0.8, 0.3, 0.1)
LABELS = (1, 0, 1, 0)


def infer(name: str = "", score: float | None = None) -> bytes:
    """A request of one row, or of all SCORES; the model answers with what it is sent."""
    scores = list(SCORES) if score is None else [score]
    tensor = {"name": "x", "shape": [len(scores), 1], "datatype": "FP64", "data": scores}
    header = f"X-Prediction-Id: {name}\r\n" if name else ""
    return post(json.dumps({"inputs": [tensor]}).encode(), PATH, JSON + header)


def feedback(*items: dict[str, Any]) -> bytes:
    return post(json.dumps(list(items)).encode(), "/feedback", JSON)


async def echo(request: Request, writer: Any) -> None:
    if request.target != PATH:
        writer.write(answer(b"{}"))
        return
    (tensor,) = json.loads(request.body)["inputs"]
    writer.write(answer(json.dumps({"model_name": "m", "outputs": [tensor | {"name": "score"}]}).encode()))


@pytest.fixture
async def model() -> AsyncIterator[Upstream]:
    upstream = Upstream(echo)
    await upstream.start()
    yield upstream
    await close_all()
    await upstream.stop()


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(tmp_path) as server:
        yield server


async def metrics(pod: Sidecar) -> dict[tuple[str, ...], float]:
    """Samples by name and the values of labels, those that all have left out."""
    families = text_string_to_metric_families((await pod.get("/metrics"))[1].decode())
    return {
        (sample.name, *(v for n, v in sorted(sample.labels.items()) if n not in ("model", "version", "track"))): (
            sample.value
        )
        for family in families
        for sample in family.samples
    }


class Pods:
    """Two pods of one revision, each with the other's address."""

    def __init__(self, model: int, folder: Path, monitoring: dict[str, Any], **environment: str) -> None:
        self._model = model
        self._folder = folder
        self._monitoring = monitoring
        self._environment = environment
        self._stack = AsyncExitStack()
        self.pods: list[Sidecar] = []

    async def __aenter__(self) -> list[Sidecar]:
        locals_ = [listening() for _ in range(2)]
        ports = [opened.getsockname()[1] for opened in locals_]
        file = self._folder / "routing.json"
        file.write_bytes(encode_routing(routing(revision("a", 100, *ports), monitoring=self._monitoring)))
        for opened in locals_:
            made = sidecar(file, self._model, local=opened, **self._environment)
            self.pods.append(await self._stack.enter_async_context(made))
            opened.close()
        return self.pods

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.__aexit__(*error)


async def labelled(pod: Sidecar) -> float:
    return (await metrics(pod)).get(("coalmine_labels_total",), 0.0)


async def settled(pods: list[Sidecar], count: float) -> None:
    """So many labels have been counted, wherever."""
    for _ in range(200):
        if sum([await labelled(pod) for pod in pods]) == count:
            return
    raise AssertionError([await labelled(pod) for pod in pods])


async def test_a_label_at_another_pod_finds_its_prediction(model: Upstream, tmp_path: Path) -> None:
    async with Pods(model.port, tmp_path, {"feedback": {}}) as pods:
        assert (await ask(pods[0].ingress, infer("order-1"))).status == 200
        reply = await ask(pods[1].ingress, feedback({"predictionId": "order-1", "labels": LABELS}))
        assert reply.status == 202, reply.body
        await settled(pods, 4)
        counted = await metrics(pods[0])
        assert counted["coalmine_confusion_total", "1", "1"] == 1
        assert counted["coalmine_confusion_total", "0", "1"] == 1
        # The same again, and another word for one of them: known, and not counted twice.
        reply = await ask(pods[1].ingress, feedback({"predictionId": "order-1", "labels": (1, 1, 1, 0)}))
        told = json.loads(reply.body)
        assert (told["duplicate"], told["contradictory"]) == (3, 1)
        assert await labelled(pods[0]) == 4


async def test_labels_of_batches_and_of_ids_that_the_sidecar_gave(model: Upstream, tmp_path: Path) -> None:
    async with Pods(model.port, tmp_path, {"feedback": {}}) as pods:
        answers = [await ask(pods[0].ingress, infer(score=score)) for score in SCORES]
        names = [answer.header("x-prediction-id") for answer in answers]
        items = [{"predictionId": name, "label": label} for name, label in zip(names, LABELS, strict=True)]
        assert (await ask(pods[0].ingress, feedback(*items))).status == 202
        await settled(pods, 4)
        reply = await ask(pods[0].ingress, feedback({"predictionId": "nobody", "label": 1}))
        assert json.loads(reply.body)["held"] == 1
        assert (await ask(pods[0].ingress, post(b"{", "/feedback", JSON))).status == 400


async def test_redis_keeps_predictions_when_their_pod_is_gone(
    model: Upstream, tmp_path: Path, redis: RedisServer
) -> None:
    monitoring = {"feedback": {"redis": redis.url}}
    async with Pods(model.port, tmp_path, monitoring, COALMINE_REDIS_PASSWORD=PASSWORD) as pods:
        assert (await ask(pods[0].ingress, infer("order-2"))).status == 200
        pods[0].terminate()
        status, log = await pods[0].ended()
        assert status == 0
        assert PASSWORD not in log
        reply = await ask(pods[1].ingress, feedback({"predictionId": "order-2", "labels": LABELS}))
        assert json.loads(reply.body)["joined"] == 4
        await settled(pods[1:], 4)


async def test_a_request_for_feedback_that_is_none_leaves_no_traceback(model: Upstream, tmp_path: Path) -> None:
    file = tmp_path / "routing.json"
    file.write_bytes(encode_routing(routing(revision("a", 100), monitoring={"feedback": {}})))
    async with sidecar(file, model.port) as pod:
        twice = post(b"{}", "/feedback", JSON + "Content-Type: text/plain\r\n")
        assert (await ask(pod.ingress, twice)).status in (400, 415)
        assert (await ask(pod.ingress, post(b"{}", "/feedback", JSON + f"X-Long: {'x' * 9000}\r\n"))).status >= 400
        pod.terminate()
        _, log = await pod.ended()
    assert "Traceback" not in log


async def test_payloads_are_logged_and_secrets_are_not(model: Upstream, tmp_path: Path) -> None:
    log = tmp_path / "payloads.jsonl"
    monitoring = {"payloadLog": {"percent": 100, "file": str(log), "redact": ["$.inputs[0].name"]}}
    file = tmp_path / "routing.json"
    file.write_bytes(encode_routing(routing(revision("a", 100), monitoring=monitoring)))
    async with sidecar(file, model.port) as pod:
        assert (await ask(pod.ingress, infer("order-3"))).status == 200
        assert (await ask(pod.ingress, infer("order-4", 0.5))).status == 200
        pod.terminate()
        assert (await pod.ended())[0] == 0
    (written,) = await asyncio.to_thread(lambda: list(tmp_path.glob("payloads*")))
    events = [json.loads(line) for line in written.read_text().splitlines()]
    assert [(event["id"], event["type"].rpartition(".")[2]) for event in events] == [
        ("order-3", "request"), ("order-3", "response"), ("order-4", "request"), ("order-4", "response"),
    ]  # fmt: skip
    assert events[0]["data"]["inputs"][0]["data"] == list(SCORES)
    assert events[0]["data"]["inputs"][0]["name"] == "[redacted]"
    assert events[3]["data"]["outputs"][0]["data"] == [0.5]


async def test_what_is_monitored_follows_the_routing_file(model: Upstream, tmp_path: Path) -> None:
    file = tmp_path / "routing.json"
    file.write_bytes(encode_routing(routing(revision("a", 100))))
    async with sidecar(file, model.port) as pod:
        assert (await ask(pod.ingress, feedback())).revision == "a"  # the model's, as any path
        replace(file, routing(revision("a", 100), generation=2, monitoring={"feedback": {"path": "/labels"}}))
        for _ in range(200):
            if (await pod.snapshot())["generation"] == 2:
                break
        assert (await ask(pod.ingress, infer("order-5"))).header("x-prediction-id") == "order-5"
        reply = await ask(
            pod.ingress, feedback({"predictionId": "order-5", "labels": LABELS}).replace(b"/feedback", b"/labels")
        )
        assert reply.status == 202
        await settled([pod], 4)

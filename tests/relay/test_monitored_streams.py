"""Streams of a language model through whole sidecars: outcomes find them, and the payload log has them."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.relay.harness import Client, ask, chunked, post, revision, routing
from tests.relay.openai_model import OpenAIModel
from tests.relay.process import Sidecar, replace, sidecar

from coalmine_sidecar.payload.event import REQUEST, RESPONSE

CHAT = "/v1/chat/completions"
JSON = "Content-Type: application/json\r\n"
MONITORING: dict[str, Any] = {
    "task": "text",
    "feedback": {},
    "features": [{"name": "temperature", "path": "$.temperature"}, {"name": "model", "type": "categorical"}],
}


@pytest.fixture
async def model() -> AsyncIterator[OpenAIModel]:
    served = OpenAIModel()
    await served.start()
    yield served
    await served.stop()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "routing.json"


def write(file: Path, **more: Any) -> None:
    replace(file, routing(revision("a", 100), namespace="ml", monitoring=MONITORING | more))


def asked(kind: str, **more: Any) -> bytes:
    document = {"model": kind, "stream": True, "messages": [{"role": "user", "content": "What?"}]}
    return json.dumps(document | more).encode()


async def label(running: Sidecar, name: str, **told: Any) -> dict[str, Any]:
    reply = await ask(running.ingress, post(json.dumps({"predictionId": name} | told).encode(), "/feedback", JSON))
    assert reply.status == 202
    return json.loads(reply.body)


async def value(running: Sidecar, name: str, **labels: str) -> float:
    families = text_string_to_metric_families((await running.get("/metrics"))[1].decode())
    samples = (sample for family in families for sample in family.samples if sample.name == f"coalmine_{name}")
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


async def until(running: Sidecar, expected: float, name: str, **labels: str) -> None:
    found = -1.0
    for _ in range(500):
        found = await value(running, name, **labels)
        if found == expected:
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"{name} is {found}, not {expected}")


async def test_a_clients_outcome_finds_the_stream_that_it_is_about(model: OpenAIModel, file: Path) -> None:
    """By the id in the answer's head, by the one in its chunks, by the client's own."""
    write(file)
    async with sidecar(file, model.port, "--observe-share=1") as running:
        async with openai.AsyncOpenAI(
            api_key="none", base_url=f"http://127.0.0.1:{running.ingress}/v1", max_retries=0, timeout=20
        ) as client:
            ask: dict[str, Any] = {"messages": [{"role": "user", "content": "What?"}], "temperature": 0.5}
            reply = await client.chat.completions.with_raw_response.create(model="plain", stream=True, **ask)
            chunks = [chunk async for chunk in reply.parse()]
            headers = {"x-prediction-id": "order-7"}
            stream = await client.chat.completions.create(model="cut", stream=True, extra_headers=headers, **ask)
            async for _ in stream:
                pass
        await until(running, 2, "feedback_pending")
        named, in_chunks = reply.headers["x-prediction-id"], chunks[0].id
        assert (await label(running, in_chunks, outcome="thumbs_up"))["joined"] == 1
        assert (await label(running, named, label="good"))["joined"] == 1
        assert (await label(running, "order-7", label="bad"))["joined"] == 1
        assert await value(running, "labels_total") == 2
        assert await value(running, "feature_bin_total", feature="temperature", bin="missing") == 0
        assert await value(running, "feature_bin_total", feature="model", bin="plain") == 1
        assert await value(running, "request_read_failures_total") == 0


@pytest.mark.parametrize("kind", ["dies", "midway"])
async def test_a_stream_that_ends_badly_is_no_prediction(model: OpenAIModel, file: Path, kind: str) -> None:
    write(file)
    async with sidecar(file, model.port, "--observe-share=1") as running:
        client = await Client.connect(running.ingress)
        await client.send(post(asked(kind), CHAT, f"{JSON}X-Prediction-Id: bad\r\nConnection: close\r\n"))
        await client.rest()
        await client.close()
        await until(running, 1, "requests_total", outcome="model_error")
        await ask(running.ingress, post(asked("plain"), CHAT, f"{JSON}X-Prediction-Id: well\r\n"))
        await until(running, 1, "feedback_pending")
        assert "joined" not in await label(running, "bad", label="good")
        assert (await label(running, "well", label="good"))["joined"] == 1


async def test_a_long_question_that_came_in_pieces_is_told_to_be_unread(model: OpenAIModel, file: Path) -> None:
    replace(file, routing(revision("a", 100), monitoring=MONITORING, limits={"replayBytes": 10}))
    async with sidecar(file, model.port, "--observe-share=1") as running:
        reply = await ask(running.ingress, chunked(asked("plain")[:50], asked("plain")[50:], path=CHAT))
        await until(running, 1, "feedback_pending")
        assert await value(running, "request_read_failures_total", reason="size") == 1
        assert (await label(running, str(reply.header("x-prediction-id")), label="good"))["joined"] == 1


@pytest.mark.parametrize("most", [65536, 100])
async def test_the_payload_log_has_streams_as_the_client_got_them(
    model: OpenAIModel, file: Path, tmp_path: Path, most: int
) -> None:
    """Cut to the most that is logged of a body, as all others; what has no end is not there."""
    write(file, payloadLog={"percent": 100, "file": str(tmp_path / "log.jsonl"), "maxBytes": most})
    async with sidecar(file, model.port, "--observe-share=1") as running:
        reply = await ask(running.ingress, post(asked("cut"), CHAT, JSON))
        client = await Client.connect(running.ingress)
        await client.send(post(asked("dies"), CHAT, JSON))
        await client.rest()
        await client.close()
        running.terminate()
        assert (await running.ended())[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "log.p.jsonl").read_text().splitlines()]
    assert [line["type"] for line in lines] == [REQUEST, RESPONSE]
    assert {line["id"] for line in lines} == {reply.header("x-prediction-id")}
    told = lines[1]
    assert base64.b64decode(told["data_base64"]) == reply.body[:most]
    if len(reply.body) > most:
        assert (told["truncated"], told["size"]) == ("true", str(len(reply.body)))
    else:
        assert told["datacontenttype"].startswith("text/event-stream")
        assert lines[0]["data"] == json.loads(asked("cut"))
    assert (told["path"], told["status"]) == (CHAT, "200")

"""OpenAI's own client through the sidecar: what it gets, and what is counted of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.relay.harness import Client, Pod, eventually, free_port, post, revision, routing
from tests.relay.openai_model import WORDS, OpenAIModel

from coalmine_sidecar.telemetry.exposition import expose

A = routing(revision("a", 100), timeouts={"response": 5.0, "idle": 5.0})
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "What had coal mines?"}]}
TEXT = "".join(WORDS)


@pytest.fixture
async def served() -> AsyncIterator[OpenAIModel]:
    model = OpenAIModel()
    await model.start()
    yield model
    await model.stop()


@pytest.fixture
async def pod(served: OpenAIModel, start_pod) -> Pod:
    return await start_pod(served.port, A)


@pytest.fixture
async def client(pod: Pod) -> AsyncIterator[openai.AsyncOpenAI]:
    async with connected(pod) as made:
        yield made


def connected(pod: Pod) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key="none", base_url=f"http://127.0.0.1:{pod.ingress}/v1", max_retries=0, timeout=20)


def value(pod: Pod, name: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels."""
    _, pieces = expose(pod.telemetry, "")
    families = text_string_to_metric_families(b"".join(pieces).decode())
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == f"coalmine_{name}" and labels.items() <= sample.labels.items()
    )


def judged(pod: Pod) -> tuple[int, int, int]:
    """What the analysis is told: requests, errors, client errors."""
    cell = pod.telemetry.epoch("a")
    return cell.requests, cell.errors, cell.client_errors


async def counted(pod: Pod, requests: int = 1) -> None:
    """Requests are in the books, and what was to be read of them was."""
    await eventually(lambda: sum(pod.series().duration.counts) == requests)
    await asyncio.sleep(0.02)


async def test_a_whole_chat(pod, client):
    reply = await client.chat.completions.create(model="plain", **ASK)
    assert reply.choices[0].message.content == TEXT
    await counted(pod)
    chat = {"gen_ai_operation_name": "chat", "version": "a", "track": "stable"}
    usage = {**chat, "counted_by": "usage"}
    assert value(pod, "gen_ai_client_token_usage_sum", gen_ai_token_type="input", **usage) == 9
    assert value(pod, "gen_ai_client_token_usage_sum", gen_ai_token_type="output", **usage) == 7
    assert value(pod, "gen_ai_finish_reasons_total", gen_ai_response_finish_reason="stop", **chat) == 1
    assert value(pod, "gen_ai_server_time_to_first_token_seconds_count", **chat) == 0, "nobody can know"
    assert value(pod, "output_class_total", output="finish_reason", **{"class": "stop"}) == 1
    assert judged(pod) == (1, 0, 0)


async def test_a_completion_and_embeddings(pod, client):
    assert (await client.completions.create(model="plain", prompt="x")).choices[0].text == TEXT
    reply = await client.embeddings.create(model="m", input=["a", "b"], encoding_format="float")
    assert [len(one.embedding) for one in reply.data] == [16, 16]
    await counted(pod, 2)
    embedded = {"gen_ai_operation_name": "embeddings"}
    assert value(pod, "gen_ai_client_token_usage_count", gen_ai_operation_name="text_completion") == 2
    assert value(pod, "gen_ai_client_token_usage_sum", gen_ai_token_type="input", **embedded) == 6
    assert value(pod, "gen_ai_finish_reasons_total", **embedded) == 0
    assert value(pod, "predictions_total") == 3
    assert value(pod, "extract_failures_total") == 0


@pytest.mark.parametrize("kind", ["plain", "cut"])
@pytest.mark.parametrize("usage", [True, False])
async def test_a_stream(pod, client, kind, usage):
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if usage else {}
    stream = await client.chat.completions.create(model=kind, stream=True, **options, **ASK)
    words = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
    assert "".join(words) == TEXT
    await counted(pod)
    by = "usage" if usage else "chunks"
    assert value(pod, "gen_ai_server_time_to_first_token_seconds_count") == 1
    assert value(pod, "gen_ai_server_time_per_output_token_seconds_count", counted_by=by) == 1
    assert value(pod, "gen_ai_server_time_per_output_token_seconds_count") == 1
    tokens = value(pod, "gen_ai_client_token_usage_sum", gen_ai_token_type="output", counted_by=by)
    assert tokens == (7 if usage else len(WORDS))
    assert value(pod, "gen_ai_finish_reasons_total", gen_ai_response_finish_reason="length") == 1
    assert value(pod, "observations_skipped_total") == value(pod, "extract_failures_total") == 0
    assert judged(pod) == (1, 0, 0)


async def test_times_of_slow_tokens(pod, client):
    stream = await client.completions.create(model="slow", prompt="x", stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == TEXT
    await counted(pod)
    # A pause before the first word and before each of the four after it; a busy machine only adds to them.
    assert value(pod, "gen_ai_server_time_to_first_token_seconds_sum") >= 0.05
    assert value(pod, "gen_ai_server_time_per_output_token_seconds_sum", counted_by="chunks") >= 0.045
    total = value(pod, "request_duration_seconds_sum", role="ingress")
    first = value(pod, "gen_ai_server_time_to_first_token_seconds_sum")
    each = value(pod, "gen_ai_server_time_per_output_token_seconds_sum")
    assert first + 4 * each <= total


async def test_tokens_come_one_by_one(pod, client):
    """None waits for the next one: each is here before the model says the next."""
    stream = await client.chat.completions.create(model="slow", stream=True, **ASK)
    loop = asyncio.get_running_loop()
    times = [loop.time() async for chunk in stream if chunk.choices and chunk.choices[0].delta.content]
    assert len(times) == len(WORDS)
    assert len({round(time, 3) for time in times}) == len(WORDS), "not two at once"


async def test_a_call_of_a_tool(pod, client):
    reply = await client.chat.completions.create(model="tools", **ASK)
    assert reply.choices[0].message.tool_calls[0].function.name == "dig"
    stream = await client.chat.completions.create(model="tools", stream=True, **ASK)
    assert [chunk async for chunk in stream if chunk.choices and chunk.choices[0].delta.tool_calls]
    await counted(pod, 2)
    assert value(pod, "gen_ai_finish_reasons_total", gen_ai_response_finish_reason="tool_calls") == 2
    assert value(pod, "gen_ai_server_time_to_first_token_seconds_count") == 1, "arguments are tokens too"


async def test_running_totals(pod, client):
    stream = await client.chat.completions.create(model="counts", stream=True, **ASK)
    assert len([chunk async for chunk in stream]) == len(WORDS) + 2
    await counted(pod)
    assert value(pod, "gen_ai_client_token_usage_sum", gen_ai_token_type="output") == len(WORDS) + 1


@pytest.mark.parametrize("kind", ["error", "midway"])
async def test_an_error_inside_a_stream_is_the_models(pod, client, kind):
    stream = await client.chat.completions.create(model=kind, stream=True, **ASK)
    with pytest.raises(openai.APIError, match="out of memory"):
        async for _ in stream:
            pass
    await counted(pod)
    assert value(pod, "requests_total", outcome="model_error", code="200", role="ingress") == 1
    assert value(pod, "gen_ai_stream_errors_total", gen_ai_operation_name="chat") == 1
    assert value(pod, "gen_ai_client_token_usage_count") == 0, "no whole answer"
    assert judged(pod) == (1, 1, 0)


async def test_an_error_inside_a_stream_may_be_the_clients(pod, client):
    stream = await client.chat.completions.create(model="client-error", stream=True, **ASK)
    with pytest.raises(openai.APIError):
        async for _ in stream:
            pass
    await counted(pod)
    assert value(pod, "requests_total", outcome="client_error", code="200", role="ingress") == 1
    assert judged(pod) == (1, 0, 1)


async def test_a_stream_that_breaks_off(pod, client):
    stream = await client.chat.completions.create(model="dies", stream=True, **ASK)
    with pytest.raises(openai.APIConnectionError):
        async for _ in stream:
            pass
    await counted(pod)
    assert judged(pod) == (1, 1, 0)
    assert value(pod, "gen_ai_server_time_to_first_token_seconds_count") == 1
    assert value(pod, "gen_ai_client_token_usage_count") == 0


async def test_a_client_that_leaves(pod, client):
    stream = await client.chat.completions.create(model="slow", stream=True, **ASK)
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    await stream.close()
    await counted(pod)
    assert pod.outcomes() == {"cancelled": 1}
    assert judged(pod) == (0, 0, 0)
    assert value(pod, "gen_ai_server_time_to_first_token_seconds_count") == 1, "those who lose patience were waiting"


async def test_what_the_model_refuses_is_its_own_word(pod, client):
    with pytest.raises(openai.NotFoundError, match="no such model") as refused:
        await client.chat.completions.create(model="refused", **ASK)
    assert "coalmine-error" not in refused.value.response.headers


async def test_what_the_sidecar_refuses_the_client_understands(start_pod):
    pod = await start_pod(free_port(), A)
    async with connected(pod) as client:
        with pytest.raises(openai.InternalServerError) as refused:
            await client.chat.completions.create(model="plain", **ASK)
    assert (refused.value.status_code, refused.value.code, refused.value.type) == (502, "refused", "server_error")
    assert refused.value.body["message"] == "a: the model refused the connection"
    assert refused.value.response.headers["coalmine-error"] == "upstream"
    assert refused.value.request_id == refused.value.response.headers["x-request-id"]


async def test_models_are_listed_and_count_for_nothing(pod, client):
    assert [model.id async for model in client.models.list()] == ["plain"]
    await counted(pod)
    assert pod.series().generations == {}
    assert value(pod, "extract_failures_total") == 0


async def test_no_series_before_the_first_request_and_then_a_bounded_number(pod, client):
    _, pieces = expose(pod.telemetry, "")
    assert b"gen_ai" not in b"".join(pieces)
    for kind in ("plain", "tools", "counts"):
        await client.chat.completions.create(model=kind, **ASK)
        await client.completions.create(model=kind, prompt="x")
    await client.embeddings.create(model="m", input=["a"])
    await counted(pod, 7)
    _, pieces = expose(pod.telemetry, "")
    lines = [line for line in b"".join(pieces).splitlines() if line.startswith(b"coalmine_gen_ai")]
    assert len(lines) < 300


async def test_the_bytes_of_a_stream_are_the_models_own(served, start_pod):
    """Asked without and with the sidecar: the same events, byte by byte."""

    async def body(port: int) -> bytes:
        client = await Client.connect(port)
        return (await client.ask(post(b'{"model":"cut","stream":true}', "/v1/chat/completions"))).body

    pod = await start_pod(served.port, A)
    assert await body(pod.ingress) == await body(served.port)

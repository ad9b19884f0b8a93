"""Requests that a model has to answer before its pod is ready, over a sidecar as a process of its own."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from tests.relay.harness import (
    Client,
    Request,
    Upstream,
    answer,
    eventually,
    free_port,
    get,
    post,
    revision,
    routing,
    well,
)
from tests.relay.process import Sidecar, replace, sidecar, start
from tests.relay.test_process import flags

INFER = "/v2/models/m/infer"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "routing.json"
    replace(path, routing(revision("a", 100)))
    return path


def warmup(*requests: dict[str, Any]) -> str:
    return f"--warmup={json.dumps(requests)}"


async def until(running: Sidecar, text: str, status: int = 503) -> None:
    """Until /readyz says something."""
    for _ in range(1000):
        found = await running.get("/readyz")
        if found[0] == status and text in found[1].decode():
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"/readyz says {found}, not {text!r}")


async def counted(running: Sidecar) -> dict[str, float]:
    lines = (await running.get("/metrics"))[1].decode().splitlines()
    found = (line for line in lines if line.startswith("coalmine_warmup_requests_total{"))
    return {line.split('outcome="')[1].split('"')[0]: float(line.rsplit(" ", 1)[1]) for line in found}


async def test_the_pod_is_ready_when_all_of_them_are_answered(model: Upstream, file: Path) -> None:
    gate = asyncio.Event()

    async def load(request: Request, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.write(answer())

    model.handle = load
    raw = bytes(range(256))
    first = {"path": INFER, "body": '{"cost": "$(HOME)"}', "repeat": 3}
    second = {
        "path": "/raw?a=1%20b",
        "method": "PUT",
        "bodyBase64": base64.b64encode(raw).decode(),
        "headers": [{"name": "content-type", "value": "application/octet-stream"}, {"name": "x-b", "value": "2"}],
    }
    third = {"path": "/v2/health/ready", "method": "GET"}
    async with sidecar(file, model.port, warmup(first, second, third)) as running:
        await until(running, "warm-up: has not begun")
        assert (await running.snapshot())["notReady"] == "warm-up: has not begun"
        await eventually(lambda: len(model.requests) == 1)
        user = await Client.connect(running.ingress)
        refused = await user.ask(post())
        assert (refused.status, refused.header("coalmine-reason")) == (503, "refused"), "no user meets a cold model"
        other_sidecar = await Client.connect(running.local)
        assert (await other_sidecar.ask(post())).header("coalmine-reason") == "refused", "so it asks another pod"
        assert len(model.requests) == 1
        gate.set()
        await until(running, "ok", 200)
        assert (await running.snapshot())["notReady"] == ""
        assert [(r.method, r.target) for r in model.requests] == [
            *[("POST", INFER)] * 3,
            ("PUT", "/raw?a=1%20b"),
            ("GET", "/v2/health/ready"),
        ]
        assert {r.header("coalmine-warmup") for r in model.requests} == {"true"}
        one, *_, put, health = model.requests
        assert (one.body, one.header("content-type")) == (b'{"cost": "$(HOME)"}', "application/json")
        assert (put.body, put.header("content-type"), put.header("x-b")) == (raw, "application/octet-stream", "2")
        assert (health.body, health.header("content-type")) == (b"", None)
        assert await counted(running) == {"ok": 5, "status": 0, "error": 0}
        assert (await user.ask(post())).status == 200
        assert (await running.snapshot())["totals"]["a"]["outcomes"] == {"ok": 1, "model_error": 1}
        assert model.requests[-1].header("coalmine-warmup") is None
        await user.close()
        await other_sidecar.close()


async def test_a_failure_names_the_answer(model: Upstream, file: Path) -> None:
    async def fail(request: Request, writer: asyncio.StreamWriter) -> None:
        body = b'{"error":\n"no \x00 weights"}' + b"x" * 1000
        writer.write(answer(body, status="500 Oh no"))

    model.handle = fail
    async with sidecar(file, model.port, warmup({"path": INFER, "body": "{}"})) as running:
        await until(running, f'warm-up: POST {INFER}: answered 500, not 200: {{"error": "no weights"}}xxx')
        await eventually(lambda: len(model.requests) > 2)
        status, text = await running.get("/readyz")
        assert (status, text.count(b"\n")) == (503, 1)
        assert len(text) < 400
        model.handle = well
        await until(running, "ok", 200)
        counts = await counted(running)
        assert counts["status"] >= 3
        assert counts["ok"] == 1
        running.terminate()
        log = (await running.ended())[1]
        assert log.count("answered 500") == 1, "told once, not with each try"


@pytest.mark.parametrize(
    ("kind", "words"),
    [("silent", "no whole answer within 0.2 s"), ("broken", "the connection broke"), ("absent", "no connection")],
)
async def test_a_model_that_does_not_answer(model: Upstream, file: Path, kind: str, words: str) -> None:
    async def hang(request: Request, writer: asyncio.StreamWriter) -> None:
        if kind == "silent":
            await asyncio.sleep(60)
        writer.transport.abort()

    model.handle = hang
    port = free_port() if kind == "absent" else model.port
    async with sidecar(file, port, warmup({"path": INFER, "timeout": 0.2})) as running:
        await until(running, words)
        assert (await counted(running))["error"] >= 1


async def test_a_status_may_be_another_one(model: Upstream, file: Path) -> None:
    async def no_content(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    model.handle = no_content
    async with sidecar(file, model.port, warmup({"path": "/", "status": 204})) as running:
        await until(running, "ok", 200)


async def test_a_model_that_was_started_anew_is_warmed_up_anew(file: Path) -> None:
    first, gate = Upstream(), asyncio.Event()
    await first.start()
    port = first.port
    async with sidecar(file, port, warmup({"path": INFER})) as running:
        await until(running, "ok", 200)
        user = await Client.connect(running.ingress)
        assert (await user.ask(get())).status == 200
        first.drop_connections()
        await first.stop()
        await until(running, "warm-up: ")

        async def load(request: Request, writer: asyncio.StreamWriter) -> None:
            await gate.wait()
            writer.write(answer())

        second = Upstream(load)
        await second.start(port)
        await eventually(lambda: len(second.requests) == 1)
        assert second.requests[0].header("coalmine-warmup") == "true"
        assert (await user.ask(get())).status == 503
        assert len(second.requests) == 1
        gate.set()
        await until(running, "ok", 200)
        assert (await user.ask(get())).status == 200
        await user.close()
        await second.stop()


async def test_one_that_was_back_at_once_is_noticed_too(file: Path) -> None:
    """Between two looks: nobody was ever refused."""
    first, second = Upstream(), Upstream()
    await first.start()
    async with sidecar(file, first.port, warmup({"path": INFER})) as running:
        await until(running, "ok", 200)
        first.drop_connections()
        await first.stop()
        await second.start(first.port)
        await eventually(lambda: len(second.requests) == 1)
        await until(running, "ok", 200)
        await second.stop()


@pytest.mark.parametrize(
    "text", ["{", "[{}]", '[{"path":"/","bodyBase64":"%"}]', '[{"path":"/","repeat":0}]', '[{"path":"/","bady":""}]']
)
async def test_a_flag_that_is_wrong_is_one_clear_line(text: str) -> None:
    process = await start(*flags(warmup=text))
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert errors.startswith(b"coalmine-sidecar: argument --warmup: no warm-up: ")
    assert errors.count(b"\n") == 1

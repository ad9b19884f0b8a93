"""Alerts of `spec.monitoring` from the webhook to the clients: with real sidecars, the fallback answers for stable."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import aiohttp
import pytest

from coalmine_operator.engine import actions, plan
from coalmine_operator.web.app import make_app
from coalmine_operator.web.bridge import RuntimeBackend
from coalmine_operator.web.server import WebServer

from .platform_world import World, manifest

LABELS = {"alertname": "ModelUnavailable", "modeldeployment": "fraud", "namespace": "default", "action": "fallback"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def post(port: int, status: str, started: str) -> None:
    alert = {"status": status, "labels": LABELS, "startsAt": started}
    async with (
        aiohttp.ClientSession(headers={"Authorization": "Bearer secret"}) as session,
        session.post(f"http://127.0.0.1:{port}/alerts", data=json.dumps({"version": "4", "alerts": [alert]})) as answer,
    ):
        assert (answer.status, (await answer.json())["matched"]) == (200, {"default/fraud": 1})


async def test_clients_get_the_fallback_while_the_alert_fires(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (actions, plan):
        monkeypatch.setattr(module, "SETTLE", 0.5)
    more = {"fallback": {"version": "previous"}, "monitoring": {"task": "binary"}}
    world.write(manifest("v1", **more))
    async with world.running():
        await world.healthy()
        world.write(manifest("v2", **more))
        await world.healthy("v2", ready=2)
        backend = RuntimeBackend(world.runtime, world.platform, keys=world.platform.keys)
        server = WebServer("127.0.0.1", 0)
        enough = asyncio.Event()
        errors: list[str] = []

        async def ask() -> None:
            while not enough.is_set():
                try:
                    await world.infer()
                except (aiohttp.ClientError, AssertionError) as error:
                    errors.append(repr(error))
                await asyncio.sleep(0.01)

        client = asyncio.create_task(ask())
        try:
            await server.serve(make_app(backend, alerts_token="secret", api_token="other"))
            started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1))
            await post(server.port, "firing", started)
            await world.until(lambda: world.view().observed.weights == weights(world, "v1"), "v1 gets everything")
            assert (await world.infer())["model_version"] == "v1"
            assert world.view().status.message == "v1 answers for v2: alert ModelUnavailable"
            await post(server.port, "resolved", started)
            await world.until(lambda: world.view().observed.weights == weights(world, "v2"), "v2 is back")
            assert (await world.infer())["model_version"] == "v2"
        finally:
            enough.set()
            await client
            await server.close()
        assert errors == []


def weights(world: World, version: str) -> dict[str, int]:
    return {s.record.name: 100 for s in world.view().observed.revisions.values() if s.record.version == version}

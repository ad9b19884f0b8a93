"""A warm-up on the local platform: pods wait for it, a restarted model gets it again, a failed one is named."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from .platform_world import World, kill, manifest

INFER = {"path": "/v2/models/m/infer", "body": "{}", "repeat": 2}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def warmups(world: World) -> float:
    """Requests of the warm-up that the one sidecar counted as answered."""
    admin = world.pod_records()[0]["adminPort"]
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{admin}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    (line,) = (one for one in lines if one.startswith("coalmine_warmup_requests_total{") and 'outcome="ok"' in one)
    return float(line.rsplit(" ", 1)[1])


def warmed(version: str, *requests: dict[str, object], **spec: object) -> dict[str, object]:
    return manifest(version, model={"name": "m", "version": version, "protocol": "v2", "warmup": requests}, **spec)


async def test_a_model_that_was_started_anew_is_warmed_up_anew(world: World) -> None:
    world.write(warmed("v1", INFER))
    async with world.running():
        await world.healthy()
        assert await warmups(world) == 2
        (before,) = world.pods()
        kill(before.pid)
        await world.until(lambda: not world.endpoints(), "off the routing file")
        await world.healthy()
        assert world.pods()[0].pid != before.pid
        assert await warmups(world) == 4
        assert (await world.infer())["model_version"] == "v1"


async def test_a_canary_that_fails_its_warm_up_is_rolled_back_and_the_answer_is_named(world: World) -> None:
    world.write(manifest())
    async with world.running():
        await world.healthy()
        (stable,) = world.pods()
        world.write(warmed("v2", INFER, {"path": "/nowhere", "method": "GET"}, progressDeadlineSeconds=3))
        await world.until(lambda: world.view().status.last_rollback, "rolled back")
        rollback = world.view().status.last_rollback
        assert rollback is not None
        assert rollback.reason == "ProgressDeadlineExceeded"
        assert "not ready within 3s: warm-up: GET /nowhere: answered 404, not 200: {}" in rollback.message
        await world.until(lambda: [pod.pid for pod in world.pods()] == [stable.pid], "only stable is left")

"""What a killed `coalmine run` leaves behind, the next one takes up: the same processes serve on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from coalmine_operator.engine import Order
from coalmine_operator.platforms.local.process import alive
from coalmine_operator.platforms.local.state import ProcessRecord

from .platform_world import World, kill, manifest


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    for pid in made.processes():  # only after a failed test
        kill(pid)


async def run_and_kill(world: World, replicas: int) -> list[dict[str, Any]]:
    """Start `coalmine run` in a process of its own, kill it when all is well, answer the pods it left."""
    runner = world.start_runner()
    try:
        await world.until(lambda: len(world.endpoints()) == replicas, "the runner's pods are ready")
    finally:
        runner.kill()
        runner.wait()
    return world.pod_records()


def process(record: dict[str, Any]) -> ProcessRecord:
    """The model of a pod."""
    return ProcessRecord(pid=record["model"]["pid"], created_at=record["model"]["createdAt"])


def of(records: list[dict[str, Any]], part: str) -> dict[str, Any]:
    return {record["name"]: record[part] for record in records}


async def test_the_same_processes_serve_on(world: World) -> None:
    world.write(manifest(replicas=2))
    before = await run_and_kill(world, 2)
    assert (await world.infer())["model_version"] == "v1"  # with nobody in command
    generation = world.routing()["generation"]
    async with world.running():
        await world.healthy(ready=2)
        await asyncio.sleep(0.5)
        after = world.pod_records()
        assert of(after, "model") == of(before, "model")
        assert of(after, "sidecar") == of(before, "sidecar")
        assert [pod.restarts for pod in world.pods()] == [0, 0]
        assert world.routing()["generation"] == generation
        assert len(world.view().status.history) == 1  # the rollout is not told twice
        kill(world.pods()[0].pid)  # an adopted one is watched as well
        await world.until(lambda: len(world.endpoints()) == 1, "off the routing file")
        await world.healthy(ready=2)


async def test_what_died_meanwhile_is_replaced(world: World) -> None:
    world.write(manifest(replicas=2))
    first, second = await run_and_kill(world, 2)
    kill(first["model"]["pid"])
    kill(second["sidecar"]["pid"])
    async with world.running():
        await world.healthy(ready=2)
        models = of(world.pod_records(), "model")
        assert models[second["name"]] == second["model"]
        assert models.get(first["name"]) != first["model"]


async def run_and_leave(world: World) -> dict[str, Any]:
    """Start, stop when all is well, leave the pod running and answer it: as after a crash, but faster."""
    world.write(manifest())
    async with world.running(leave=True):
        await world.healthy()
    (left,) = world.pod_records()
    return left


async def test_what_changed_meanwhile_is_rolled_out(world: World) -> None:
    left = await run_and_leave(world)
    assert (await world.infer())["model_version"] == "v1"
    world.write(manifest("v2"))
    async with world.running():
        await world.healthy("v2")
        assert not alive(process(left))


async def test_what_was_taken_out_of_the_file_meanwhile_ends(world: World) -> None:
    left = await run_and_leave(world)
    world.write(manifest("s1", name="spam"))
    async with world.running():
        await world.until(lambda: world.pod_records() == [], "the old pod ends")
        assert not alive(process(left))
        assert world.platform.keys() == ["default/spam"]
        await world.until(lambda: world.view("default/spam").status.phase == "Healthy", "spam")
        assert world.platform.ingress("default/spam") == f"127.0.0.1:{world.port + 10}"
        assert (await world.infer(world.port + 10))["model_version"] == "s1"


async def test_a_rollback_after_adoption_loses_no_connection(world: World) -> None:
    """Sidecars of two runs accept on one port: when the newer ones end, no connection may wait for them."""
    await run_and_leave(world)
    async with world.running():
        await world.healthy()
        world.write(manifest("v2", paused=True))
        await world.until(
            lambda: len(world.pods()) == 2 and all(pod.ready for pod in world.pods()), "the canary is ready"
        )
        await world.runtime.submit_order("default/fraud", Order(id="1", verb="rollback"))
        await world.until(lambda: len(world.pods()) == 1, "the canary is gone")
        async with asyncio.timeout(20):
            for _ in range(40):
                assert (await world.infer())["model_version"] == "v1"


async def test_another_ingress_port_renews_the_sidecars_only(world: World) -> None:
    before = await run_and_leave(world)
    world.port = World(world.folder).port
    async with world.running():
        await world.until(lambda: world.pod_records()[0]["ingress"] == f"127.0.0.1:{world.port}", "a new sidecar")
        await world.healthy()
        (after,) = world.pod_records()
        assert after["model"] == before["model"]
        assert (await world.infer())["model_version"] == "v1"


async def test_what_was_started_in_the_moment_before_the_crash_is_ended(world: World) -> None:
    """The crash came between the start of the processes and their record."""
    left = await run_and_leave(world)
    path = world.state / "fraud" / "pods" / left["name"] / "pod.json"
    text = path.read_text()
    for part in ("model", "sidecar"):
        text = text.replace(str(left[part]["pid"]), str(os.getpid()))
    path.write_text(text)
    assert len(world.processes()) == 2
    async with world.running():
        await world.healthy()
        assert not alive(process(left))
        assert len(world.processes()) == 2

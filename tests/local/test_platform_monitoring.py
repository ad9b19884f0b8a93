"""Monitoring on the local platform: baselines beside the manifest, from the file to the sidecars and to the gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest

from coalmine_operator.api.baseline import Baseline, Numeric, digest_of, encode_baseline
from coalmine_operator.engine import Order
from coalmine_operator.runtime import OrderRefused

from .platform_world import World, manifest

PASSWORD = "COALMINE_REDIS_PASSWORD"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def baseline(version: str) -> bytes:
    age = Numeric(edges=(20.0, 40.0), counts=(1, 2, 3), mean=30.0, stddev=5.0, min=18.0, max=80.0)
    return encode_baseline(Baseline(schema=1, model="m", version=version, task="binary", rows=6, features={"age": age}))


def monitored(version: str, file: str, **more: Any) -> dict[str, Any]:
    monitoring = {"baseline": {"file": file}, "features": [{"name": "age"}], **more}
    return manifest(version, monitoring=monitoring)


def bins(world: World) -> dict[str, str]:
    """Digests of the baselines in the routing file, by version."""
    names = {one["name"]: one["version"] for one in world.routing()["revisions"]}
    return {names[name]: one["digest"] for name, one in world.routing()["monitoring"]["baselines"].items()}


async def test_a_baseline_from_its_file_to_the_sidecars_and_through_the_gate(world: World) -> None:
    (world.folder / "v1.json").write_bytes(baseline("v1"))
    world.write(monitored("v1", "v1.json"))
    async with world.running():
        await world.healthy()
        await world.until(lambda: bins(world) == {"v1": digest_of(baseline("v1"))}, "v1's bins in the routing file")

        # Of a stable one that is broken later the status tells, until it is mended.
        (world.folder / "v1.json").write_bytes(baseline("v1")[:-9])
        await world.until(lambda: "v1 has no baseline: v1.json: " in world.view().status.message, "the break is told")
        assert world.view().status.phase == "Healthy"
        (world.folder / "v1.json").write_bytes(baseline("v1"))
        await world.until(lambda: not world.view().status.message, "it is mended")

        # The next version's is not there: too little evidence.
        world.write(monitored("v2", "v2.json"))
        await world.until(lambda: "v2.json: is not there" in world.view().status.message, "the missing file is named")

        # Then somebody gives it the one of v1: a slip, which no order waives.
        (world.folder / "v2.json").write_bytes(baseline("v1"))
        await world.until(lambda: "BaselineMismatch" in world.view().status.message, "the mismatch is named")
        with pytest.raises(OrderRefused, match=r'BaselineMismatch: v2.json: is of version "v1", not "v2"'):
            await world.runtime.submit_order("default/fraud", Order(id="1", verb="promote"))
        (verdict,) = world.view().status.verdicts
        assert (verdict.metric, verdict.verdict, verdict.reason) == ("baseline", "Unknown", "BaselineMismatch")
        assert bins(world) == {"v1": digest_of(baseline("v1"))}

        # Mended, it goes on by itself; v1's own is still known, for as long as it may come back.
        (world.folder / "v2.json").write_bytes(baseline("v2"))
        await world.healthy("v2")
        assert bins(world)["v2"] == digest_of(baseline("v2"))
        records = {state.record.version: state.record for state in world.view().observed.revisions.values()}
        assert {name: record.baseline and record.baseline.file for name, record in records.items()} == {
            "v1": "v1.json",
            "v2": "v2.json",
        }


async def test_what_is_watched_changes_without_a_new_process(world: World) -> None:
    world.write(manifest())
    async with world.running():
        await world.healthy()
        (before,) = world.pod_records()
        (world.folder / "v1.json").write_bytes(baseline("v1"))
        world.write(monitored("v1", "v1.json", slices=[{"attribute": "sex", "header": "x-sex"}]))
        await world.until(lambda: bins(world).keys() == {"v1"}, "the bins of what runs already")
        assert world.view().status.rollouts == 1
        assert world.pod_records() == [before]
        assert [one["attribute"] for one in world.routing()["monitoring"]["slices"]] == ["sex"]


async def test_the_password_of_a_redis_is_the_sidecars_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD, "hunter2")
    world.write(manifest())
    async with world.running():
        await world.healthy()
        (pod,) = world.pod_records()
        given = {who: psutil.Process(pod[who]["pid"]).environ().get(PASSWORD) for who in ("model", "sidecar")}
        assert given == {"model": None, "sidecar": "hunter2"}
        left = [path for path in world.state.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
        assert left == []

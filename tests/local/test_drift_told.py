"""From requests to the operator's own metrics: real sidecars count features, the operator tells of their drift."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest
from tests.unit.test_web_metrics import samples

from coalmine_operator.analysis.baseline import log_e_drift
from coalmine_operator.api.baseline import Baseline, Numeric, encode_baseline
from coalmine_operator.web.bridge import RuntimeBackend
from coalmine_operator.web.metrics import Metrics

from .platform_world import KEY, World, manifest

AGE = Numeric(edges=(20.0, 40.0), counts=(2000, 2000, 2000), mean=30.0, stddev=5.0, min=18.0, max=80.0)
BASELINE = Baseline(schema=1, model="m", version="v1", task="binary", rows=6000, features={"age": AGE})
REFERENCE = (2000, 2000, 2000, 0, 0)
REVISION = {"model": "m", "namespace": "default", "version": "v1"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class Told:
    """What a scrape of the operator reads, by name and values of labels, in the order of their names."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._backend = RuntimeBackend(world.runtime, world.platform, keys=world.platform.keys)
        self._metrics = Metrics()

    def __call__(self, metric: str, /, **labels: str) -> float | None:
        self._world.runtime.notify(KEY)  # by itself it looks twice a minute
        found = samples(self._metrics.render(self._backend.views(), self._backend.monitored()))
        return found.get((metric, tuple(value for _, value in sorted((REVISION | labels).items()))))


async def ask(world: World, ages: list[float]) -> None:
    tensor = {"name": "age", "shape": [len(ages)], "datatype": "FP64", "data": ages}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{world.port}/v2/models/m/infer", json={"inputs": [tensor]}) as answer,
    ):
        assert answer.status == 200, await answer.text()


async def test_what_sidecars_count_is_held_against_the_baseline(world: World) -> None:
    (world.folder / "v1.json").write_bytes(encode_baseline(BASELINE))
    monitoring = {"baseline": {"file": "v1.json"}, "features": [{"name": "age"}], "drift": {"averageRunLength": "24h"}}
    world.write(manifest(monitoring=monitoring, replicas=2))
    age = {"kind": "feature", "name": "age"}
    async with world.running():
        await world.healthy(ready=2)
        told = Told(world)
        await world.until(lambda: told("coalmine_baseline_loaded", reason="") == 1, "the baseline is in use")
        assert told("coalmine_feature_baseline_mean", feature="age") == 30.0
        for _ in range(8):
            await ask(world, [10.0] * 10 + [30.0] * 5)
        expected = log_e_drift((80, 40, 0, 0, 0), REFERENCE)
        await world.until(
            lambda: told("coalmine_drift_log_e", **age) == pytest.approx(expected), "the sum over both sidecars"
        )
        assert told("coalmine_drift_log_e_mean") == pytest.approx(expected)
        assert told("coalmine_drift_alarm_threshold_log") == pytest.approx(4.564, abs=0.001)
        assert told("coalmine_drift_run_length_log", **age) is None  # no window is over yet

        # It has no baseline any more: nothing is told of what it was.
        world.write(manifest(replicas=2))
        await world.until(lambda: told("coalmine_baseline_loaded", reason="") is None, "its series are gone")
        assert told("coalmine_drift_log_e", **age) is None

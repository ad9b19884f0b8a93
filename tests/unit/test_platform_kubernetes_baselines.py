"""A model deployment's baseline in a cluster: from its ConfigMap to the routing Secret, and beside its revision."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from msgspec import UNSET
from msgspec.structs import replace
from tests.unit.test_platform_kubernetes_refusals import RefusingApi, Scene

from coalmine_operator.api.baseline import Baseline, Numeric, digest_of, encode_baseline
from coalmine_operator.engine import Plan, step
from coalmine_operator.platforms.kubernetes.access import Access
from coalmine_operator.platforms.kubernetes.client import Client
from coalmine_operator.platforms.kubernetes.held import hold
from coalmine_operator.platforms.kubernetes.kinds import CONTROLLER_REVISION, MODEL_DEPLOYMENT, SECRET
from coalmine_operator.platforms.kubernetes.routing import routing_of
from coalmine_operator.render import labels
from coalmine_sidecar.contract import Routing

AGE = Numeric(edges=(20.0, 40.0), counts=(1, 2, 3), mean=30.0, stddev=5.0, min=18.0, max=80.0)
FILE = encode_baseline(Baseline(schema=1, model="fraud", version="v1", task="binary", rows=6, features={"age": AGE}))


class MonitoredApi(RefusingApi):
    """With ConfigMaps, and with the status of the one model deployment."""

    def __init__(self) -> None:
        super().__init__()
        self.config_maps: dict[str, dict[str, Any]] = {}
        self.deployment: dict[str, Any] = {}

    async def answer(self, request: web.Request) -> web.Response:
        kind, _, name = request.path.rpartition("/")
        if request.method == "GET" and kind.endswith("/ml/configmaps"):
            self.calls.append((request.method, request.path))
            found = self.config_maps.get(name)
            return web.json_response(
                found or {"message": f'configmaps "{name}" not found'}, status=200 if found else 404
            )
        if request.method == "PATCH" and request.path.endswith("/modeldeployments/fraud/status"):
            self.version += 1
            metadata = {**self.deployment["metadata"], "resourceVersion": str(self.version)}
            self.deployment |= {"metadata": metadata, "status": json.loads(await request.text())["status"]}
            return web.json_response(self.deployment)
        return await super().answer(request)


class Story(Scene):
    """One that goes turn by turn, as the runtime goes about it."""

    api: MonitoredApi

    def wish(self, generation: int, monitoring: dict[str, Any]) -> None:
        container = {"name": "model", "image": "m:1"}
        self.api.deployment = {
            **self.api.deployment,
            "apiVersion": "coalmine.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {
                "name": "fraud", "namespace": "ml", "uid": "md", "resourceVersion": f"{self.api.version + 1}",
                "generation": generation,
            },
            "spec": {
                "model": {"version": "v1"},
                "template": {"spec": {"containers": [container]}},
                "monitoring": monitoring,
            },
        }  # fmt: skip
        self.api.version += 1
        self.cache.take(MODEL_DEPLOYMENT, self.api.deployment)

    async def turn(self, now: float) -> Plan:
        desired = await self.deployment.desired()
        assert desired is not None
        observed = await self.deployment.observe()
        status, plan = step(desired.spec, desired.status, observed, now, metadata=desired.metadata)
        await self.deployment.save(status)
        await self.deployment.apply(replace(desired, status=status), plan)
        return plan

    def routing(self) -> Routing:
        secret = self.there("/secrets/fraud-routing")
        assert secret is not None
        routing = routing_of(hold(SECRET, secret))
        assert routing is not None
        return routing

    def revision(self) -> dict[str, Any]:
        (found,) = (one for path, one in self.api.objects.items() if f"/{CONTROLLER_REVISION.plural}/" in path)
        return found

    def asked(self) -> list[str]:
        return [path.rpartition("/")[2] for method, path in self.api.calls if "/configmaps/" in path]


@pytest.fixture
async def story() -> AsyncIterator[Story]:
    api = MonitoredApi()
    runner = web.AppRunner(api.app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    client = Client(Access(f"http://127.0.0.1:{runner.addresses[0][1]}"))
    try:
        async with aiohttp.ClientSession() as session:
            found = Story(api, client, session)
            yield found
            await found.deployment.stop()
    finally:
        await client.close()
        await runner.cleanup()


async def test_from_the_config_map_to_the_routing_secret(story: Story) -> None:
    digest = digest_of(FILE)
    story.api.config_maps["fraud-v1"] = {"data": {"baseline.json": FILE.decode()}}
    story.wish(1, {"features": [{"name": "age"}], "baseline": {"configMap": "fraud-v1", "digest": digest}})
    plan = await story.turn(1000.0)
    (record,) = plan.records
    monitoring = story.routing().monitoring
    assert monitoring is not UNSET
    assert monitoring.baselines[record.name].digest == digest
    assert monitoring.baselines[record.name].features["age"].edges == (20.0, 40.0)
    state = story.deployment.seen().baselines[record.name]
    assert (state.problem, state.digest) == ("", digest)
    for now in (1001.0, 1002.0, 5000.0):
        await story.turn(now)
    assert story.asked() == ["fraud-v1"]


async def test_one_that_comes_later_changes_neither_the_revision_nor_its_data(story: Story) -> None:
    story.wish(1, {"features": [{"name": "age"}]})
    await story.turn(1000.0)
    before = story.revision()
    assert labels.BASELINE not in before["metadata"]["annotations"]
    assert story.asked() == []
    story.wish(2, {"features": [{"name": "age"}], "baseline": {"configMap": "fraud-v1"}})
    await story.turn(1001.0)
    after = story.revision()
    assert after["data"] == before["data"]
    kept = msgspec.json.decode(after["metadata"]["annotations"][labels.BASELINE])
    assert kept["configMap"] == "fraud-v1"
    # It is not there yet: nobody is stopped by that, and everybody can see why nothing is compared.
    (state,) = story.deployment.seen().baselines.values()
    assert (state.problem, state.message.partition(":")[0]) == ("missing", "ConfigMap fraud-v1")
    assert story.routing().monitoring is not UNSET
    assert story.asked() == ["fraud-v1"]


async def test_what_is_not_monitored_is_not_asked_for(story: Story) -> None:
    story.wish(1, {"baseline": {"configMap": "fraud-v1"}})
    await story.turn(1000.0)
    del story.api.deployment["spec"]["monitoring"]
    story.api.deployment["metadata"]["generation"] = 2
    story.api.version += 1
    story.api.deployment["metadata"]["resourceVersion"] = str(story.api.version)
    story.cache.take(MODEL_DEPLOYMENT, story.api.deployment)
    await story.turn(1001.0)
    assert story.asked() == ["fraud-v1"]
    assert story.deployment.seen().baselines == {}
    assert story.routing().monitoring is UNSET

"""What an API server refuses of a model deployment: told once, shown as the revision's failure, never chased."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests.property.world import make_spec
from tests.unit.test_platform_kubernetes_applying import FailingApi

from coalmine_operator.api.spec import Metadata
from coalmine_operator.api.status import Status, Told
from coalmine_operator.engine import Plan, RevisionRecord
from coalmine_operator.engine.model import Route, RoutePlan
from coalmine_operator.engine.revisions import target_of
from coalmine_operator.platforms.base import Desired
from coalmine_operator.platforms.kubernetes.access import Access
from coalmine_operator.platforms.kubernetes.applying import Applier
from coalmine_operator.platforms.kubernetes.cache import Cache
from coalmine_operator.platforms.kubernetes.client import Client
from coalmine_operator.platforms.kubernetes.deployment import ClusterDeployment
from coalmine_operator.platforms.kubernetes.events import Poster
from coalmine_operator.platforms.kubernetes.held import Held
from coalmine_operator.platforms.kubernetes.kinds import CONTROLLER_REVISION, MODEL_DEPLOYMENT, POD, kind_of
from coalmine_operator.platforms.kubernetes.settings import Settings
from coalmine_operator.platforms.kubernetes.surroundings import Surroundings
from coalmine_operator.render import labels
from coalmine_operator.render.injection import InjectionSettings
from coalmine_sidecar.contract import Snapshot

METADATA = Metadata(name="fraud", namespace="ml", uid="md", generation=1)
UNTYPED = (
    'failed to create typed patch object (ml/{name}; apps/v1, Kind=Deployment): .spec.template.spec.containers[name="'
    'model"].env[name="X"].value: expected string, got &value.valueUnstructured{{Value:1}}'
)


class RefusingApi(FailingApi):
    """`refuse`: how a write whose path ends so is answered, (status, message)."""

    def __init__(self) -> None:
        super().__init__()
        self.refuse: dict[str, tuple[int, str]] = {}

    async def answer(self, request: web.Request) -> web.Response:
        if request.method == "PATCH":
            for end, (status, message) in self.refuse.items():
                if request.path.endswith(end):
                    self.calls.append((request.method, request.path))
                    body = {"kind": "Status", "status": "Failure", "message": message, "code": status}
                    return web.json_response(body, status=status)
        if request.method == "GET" and request.path.endswith("fraud-spec"):
            return web.json_response({"message": "not found"}, status=404)
        return await super().answer(request)


class Heard(Poster):
    """Keeps what people would hear, by reason and message."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, "test")
        self.heard: list[tuple[str, str]] = []

    def tell(self, held: Held, told: Told) -> None:
        self.heard.append((told.reason, told.message))

    def tell_once(self, held: Held, told: Told) -> None:
        self.heard.append((told.reason, told.message))


class Scene:
    def __init__(self, api: RefusingApi, client: Client, session: aiohttp.ClientSession) -> None:
        self.api = api
        self.cache = Cache(lambda key: None)
        self.poster = Heard(client)
        self.notified: list[str] = []
        self.around = Surroundings(
            client=client,
            cache=self.cache,
            applier=Applier(client, self.cache, lambda seconds, key: None),
            poster=self.poster,
            session=session,
            settings=Settings(injection=InjectionSettings(image="sidecar")),
            notify=self.notified.append,
        )
        about = {"name": "fraud", "namespace": "ml", "uid": "md", "resourceVersion": "1", "generation": 1}
        self.cache.take(MODEL_DEPLOYMENT, {"metadata": about, "spec": {}})
        self.deployment = ClusterDeployment("ml/fraud", "md", self.around)

    def record(self, version: str = "v1", created_at: float = 1000.0) -> RevisionRecord:
        return target_of(METADATA, make_spec(version), created_at)

    async def apply(self, *records: RevisionRecord, routing: RoutePlan | None = None, **replicas: int) -> None:
        spec = make_spec(records[-1].version)
        plan = Plan(records=records, replicas=replicas or {record.name: 2 for record in records}, routing=routing)
        await self.deployment.apply(Desired(metadata=METADATA, spec=spec, status=Status(), problems=()), plan)

    def heard(self, reason: str) -> list[str]:
        return [message for found, message in self.poster.heard if found == reason]

    def there(self, end: str) -> dict[str, Any] | None:
        return next((found for path, found in self.api.objects.items() if path.endswith(end)), None)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    api = RefusingApi()
    runner = web.AppRunner(api.app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    client = Client(Access(f"http://127.0.0.1:{runner.addresses[0][1]}"))
    try:
        async with aiohttp.ClientSession() as session:
            yield Scene(api, client, session)
    finally:
        await client.close()
        await runner.cleanup()


async def test_a_template_of_a_wrong_type_is_the_revisions_failure_and_others_go_on(scene: Scene) -> None:
    good, bad = scene.record("v1"), scene.record("v2")
    message = UNTYPED.format(name=bad.name)
    scene.api.refuse[f"/deployments/{bad.name}"] = (500, message)
    await scene.apply(good, bad)
    assert scene.there(f"/deployments/{good.name}")
    states = scene.deployment.seen().revisions
    assert states[bad.name].failure == f"Deployment refused: {message}"
    assert not states[good.name].failure
    assert scene.heard("ApplyRefused") == [f"Deployment refused: {message}"]
    assert scene.notified == ["ml/fraud"]


def orphan(scene: Scene) -> None:
    """`kubectl delete --cascade=orphan`, and a new object of that name."""
    for path, found in scene.api.objects.items():
        if "/modeldeployments/" in path:
            continue
        scene.api.version += 1
        del found["metadata"]["ownerReferences"]
        found["metadata"]["resourceVersion"] = str(scene.api.version)
        scene.cache.take(kind_of(found), found)
    about = {"name": "fraud", "namespace": "ml", "uid": "md2", "resourceVersion": "999", "generation": 1}
    scene.cache.drop(MODEL_DEPLOYMENT, "ml", "fraud")
    scene.cache.take(MODEL_DEPLOYMENT, {"metadata": about, "spec": {}})
    scene.deployment = ClusterDeployment("ml/fraud", "md2", scene.around)


async def test_what_a_deleted_one_left_behind_is_read_and_adopted_as_it_is(scene: Scene) -> None:
    old = scene.record("v1", created_at=1000.0)
    await scene.apply(old)
    orphan(scene)
    assert scene.deployment.seen().revisions[old.name].record == old
    await scene.apply(old)
    adopted = scene.there(f"/controllerrevisions/{old.name}")
    assert adopted is not None
    assert [owner["uid"] for owner in adopted["metadata"]["ownerReferences"]] == ["md2"]
    assert not scene.heard("ApplyRefused")


async def test_a_record_of_another_controller_is_not_read(scene: Scene) -> None:
    old = scene.record("v1")
    await scene.apply(old)
    orphan(scene)
    held = scene.there(f"/controllerrevisions/{old.name}")
    assert held is not None
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "x", "uid": "x", "controller": True}
    held["metadata"] |= {"ownerReferences": [owner], "resourceVersion": "998"}
    scene.cache.take(CONTROLLER_REVISION, held)
    assert old.name not in scene.deployment.seen().revisions


async def test_a_refusal_in_other_words_is_no_news(scene: Scene) -> None:
    """The words hold the whole record, which differs at every try; and nobody is to read that."""
    for number in range(5):
        record = scene.record("v1", created_at=float(number))
        data = f'{{"createdAt":{number}, "template": "{"x" * 3000}"}}'
        message = f'ControllerRevision.apps "{record.name}" is invalid: data: Invalid value: {data}: field is immutable'
        scene.api.refuse[f"/controllerrevisions/{record.name}"] = (422, message)
        await scene.apply(record)
    said = f'ControllerRevision refused: ControllerRevision.apps "{record.name}" is invalid: data: field is immutable'
    assert scene.heard("ApplyRefused") == [said]
    assert scene.notified == ["ml/fraud"]
    for number in range(5):
        scene.api.refuse[f"/controllerrevisions/{record.name}"] = (422, f"no: {number}")
        await scene.apply(scene.record("v1", created_at=10.0 + number))
    assert scene.heard("ApplyRefused") == [said]
    assert scene.notified == ["ml/fraud"]


async def test_what_runs_without_a_record_is_left_alone_while_it_is_wanted(scene: Scene) -> None:
    """Its record was deleted while no operator was there."""
    old, new = scene.record("v1"), scene.record("v2")
    await scene.apply(old, new)
    gone = f"/controllerrevisions/{old.name}"
    del scene.api.objects[next(path for path in scene.api.objects if path.endswith(gone))]
    scene.cache.drop(CONTROLLER_REVISION, "ml", old.name)
    body = scene.cache.get(MODEL_DEPLOYMENT, "ml", "fraud")
    assert body is not None
    status = {"stable": {"revision": old.name, "version": "v1"}}
    scene.deployment = ClusterDeployment("ml/fraud", "md", scene.around)
    assert old.name not in scene.deployment.seen().revisions, "no traffic rests on it"
    scene.cache.take(
        MODEL_DEPLOYMENT, {**body.body, "metadata": {**body.body["metadata"], "resourceVersion": "2"}, "status": status}
    )
    scene.deployment = ClusterDeployment("ml/fraud", "md", scene.around)

    seen = scene.deployment.seen().revisions[old.name].record
    assert (seen.version, seen.lost) == ("v1", True)
    await scene.apply(seen, new, **{old.name: 2, new.name: 1})
    assert scene.there(f"/deployments/{old.name}")
    assert scene.there(f"/services/{old.name}")
    assert not scene.there(gone), "nobody knows what to write"
    await scene.apply(seen, new, **{new.name: 1})
    assert not scene.there(f"/deployments/{old.name}")


async def test_ready_pods_that_do_not_route_as_told_are_named(scene: Scene) -> None:
    record = scene.record("v1")
    route = Route(revision=record.name, track="stable", weight=100)
    await scene.apply(record, routing=RoutePlan(routes=(route,), epoch="1"))
    for name in ("a", "b", "c", "starting"):
        about = {
            "name": name,
            "namespace": "ml",
            "uid": name,
            "resourceVersion": "1",
            "labels": {labels.MODELDEPLOYMENT: "fraud", labels.REVISION: record.name},
        }
        conditions = [{"type": "Ready", "status": str(name != "starting")}]
        scene.cache.take(POD, {"metadata": about, "status": {"conditions": conditions}})
    for name, generation in (("a", 1), ("b", 0)):
        snapshot = Snapshot(pod=name, revision=record.name, boot="x", at=1.0, generation=generation)
        scene.deployment._snapshots.take(name, snapshot)
    assert scene.deployment.seen().behind == ("b routes by generation 0, not 1", "c does not answer on :8010")

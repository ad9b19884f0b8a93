"""Server-side apply with a memory, against an API server that fails on demand (a real one does not)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from coalmine_operator.platforms.kubernetes.access import Access
from coalmine_operator.platforms.kubernetes.applying import PATIENCE, REFUSED_AGAIN, Applier
from coalmine_operator.platforms.kubernetes.cache import Cache
from coalmine_operator.platforms.kubernetes.client import ApiError, Client
from coalmine_operator.platforms.kubernetes.kinds import POD, SERVICE

KEY = "ml/fraud"
PATH = "/api/v1/namespaces/ml/services/fraud"
OWNER = {"kind": "ModelDeployment", "name": "fraud", "uid": "md-1"}


class FailingApi:
    """Keeps what is applied, with the fields its manager owns; `fail` is the next answer instead, (status, message)."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, str]] = []
        self.fail: tuple[int, str] | None = None
        self.version = 10

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.answer)
        return app

    async def answer(self, request: web.Request) -> web.Response:
        self.calls.append((request.method, request.path))
        if self.fail:
            status, message = self.fail
            return web.json_response({"kind": "Status", "message": message}, status=status)
        if request.method == "DELETE":
            self.objects.pop(request.path, None)
            return web.json_response({})
        there = self.objects.get(request.path)
        if request.method == "GET":
            return self.page(request)
        assert request.headers["Content-Type"] == "application/apply-patch+yaml"
        assert (request.query["fieldManager"], request.query["force"]) == ("coalmine", "true")
        sent = json.loads(await request.text())
        if bool(there) == bool(sent["metadata"].pop("resourceVersion", None)):
            return web.json_response({"message": "not now"}, status=409)
        if there and sent["metadata"].pop("uid", "") != there["metadata"]["uid"]:
            return web.json_response({"message": "another uid"}, status=409)
        self.store(request.path, sent, owned=json.dumps(sent, sort_keys=True))
        return web.json_response(self.objects[request.path])

    def page(self, request: web.Request) -> web.Response:
        if name := request.query.get("fieldSelector", "").removeprefix("metadata.name="):
            return web.json_response({"items": [o for o in self.objects.values() if o["metadata"]["name"] == name]})
        at = int(request.query.get("continue", "0"))
        end = at + int(request.query["limit"])
        metadata = {"resourceVersion": "99"} | ({"continue": str(end)} if end < 7 else {})
        return web.json_response({"metadata": metadata, "items": list(range(at, min(end, 7)))})

    def store(self, path: str, sent: dict[str, Any], owned: str) -> None:
        self.version += 1
        fields = {"manager": "coalmine", "operation": "Apply", "fieldsV1": {"owned": owned}}
        metadata: dict[str, Any] = {"uid": "u1", "resourceVersion": str(self.version), "managedFields": [fields]}
        self.objects[path] = {**sent, "metadata": {**sent["metadata"], **metadata}}


class Scene:
    """An applier before a failing API, on a clock of its own."""

    def __init__(self, client: Client, api: FailingApi) -> None:
        self.api = api
        self.client = client
        self.cache = Cache(lambda key: None)
        self.now = 100.0
        self.later: list[tuple[float, str]] = []
        self.applier = Applier(client, self.cache, lambda s, key: self.later.append((s, key)), clock=lambda: self.now)

    async def bring(self, port: int = 80) -> bool:
        return await self.applier.bring(service(port), KEY)

    def somebody_edits(self) -> None:
        """Takes over a field: the API server takes it from us."""
        (path,) = self.api.objects
        self.api.store(path, service(9), owned="less")
        self.cache.take(SERVICE, self.api.objects[path])


def service(port: int) -> dict[str, Any]:
    labels = {"coalmine.dev/modeldeployment": "fraud"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "fraud", "namespace": "ml", "labels": labels, "ownerReferences": [OWNER]},
        "spec": {"ports": [{"port": port}]},
    }


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    api = FailingApi()
    runner = web.AppRunner(api.app())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    client = Client(Access(f"http://127.0.0.1:{runner.addresses[0][1]}"))
    try:
        yield Scene(client, api)
    finally:
        await client.close()
        await runner.cleanup()


async def test_the_second_time_nothing_is_written(scene: Scene) -> None:
    assert await scene.bring()
    assert not await scene.bring()
    assert await scene.bring(81)
    assert scene.api.calls == [("PATCH", PATH)] * 2


async def test_what_somebody_changed_is_written_again_but_not_in_a_race(scene: Scene) -> None:
    await scene.bring()
    scene.somebody_edits()
    assert not await scene.bring(), "at once would chase whoever does the same"
    assert scene.later == [(PATIENCE, KEY)]
    scene.now += PATIENCE
    assert await scene.bring()
    assert not await scene.bring()


async def test_what_somebody_deleted_is_made_again(scene: Scene) -> None:
    await scene.bring()
    held = scene.cache.drop(SERVICE, "ml", "fraud")
    assert held is not None
    scene.applier.forget(held)
    assert await scene.bring()


async def test_what_was_refused_is_not_sent_again_at_once(scene: Scene) -> None:
    scene.api.fail = (422, "spec.ports: wrong")
    for _ in range(3):
        with pytest.raises(ApiError, match=r"spec\.ports: wrong") as caught:
            await scene.bring()
        assert caught.value.refused
    assert len(scene.api.calls) == 1
    scene.now += REFUSED_AGAIN
    with pytest.raises(ApiError):
        await scene.bring()
    assert len(scene.api.calls) == 2
    scene.api.fail = None
    assert await scene.bring(81), "something else is sent at once"
    scene.now += REFUSED_AGAIN
    assert await scene.bring(80)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_what_failed_is_sent_again(scene: Scene, status: int) -> None:
    scene.api.fail = (status, "not now")
    for _ in range(2):
        with pytest.raises(ApiError) as caught:
            await scene.bring()
        assert not caught.value.refused
    assert len(scene.api.calls) == 2
    scene.api.fail = None
    assert await scene.bring()


def made(owners: list[dict[str, str]], owned: str = "") -> dict[str, Any]:
    fields = [{"manager": "coalmine", "operation": "Apply", "fieldsV1": {"owned": owned}}] if owned else []
    about = {"uid": "u7", "resourceVersion": "7", "ownerReferences": owners, "managedFields": fields}
    return {**service(9), "metadata": {**service(9)["metadata"], **about}}


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("there", "message"),
    [
        (made([]), "made by somebody else and is left alone: delete it"),
        (made([{"kind": "Deployment", "uid": "d"}]), "made by somebody else"),
        (made([{**OWNER, "uid": "md-0"}], "all"), "still belongs to a deleted ModelDeployment of that name"),
    ],
)
async def test_what_somebody_else_made_is_left_alone(
    scene: Scene, there: dict[str, Any], message: str, known: bool
) -> None:
    scene.api.objects[PATH] = there
    if known:
        scene.cache.take(SERVICE, there)
    with pytest.raises(ApiError, match=message) as caught:
        await scene.bring()
    assert caught.value.refused
    assert scene.api.objects[PATH] == there
    del scene.api.objects[PATH]
    if known and (held := scene.cache.drop(SERVICE, "ml", "fraud")):
        scene.applier.forget(held)
    scene.now += REFUSED_AGAIN
    assert await scene.bring(), "it went"


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("owners", [[OWNER], []])
async def test_what_was_ours_is_taken_up_again(scene: Scene, owners: list[dict[str, str]], known: bool) -> None:
    """Somebody took its label away; or the model deployment was deleted without its children, and came again."""
    scene.api.objects[PATH] = made(owners, "all")
    if known:
        scene.cache.take(SERVICE, scene.api.objects[PATH])
    assert await scene.bring()
    assert scene.api.objects[PATH]["metadata"]["ownerReferences"] == [OWNER]


async def test_removal_is_of_what_was_seen(scene: Scene) -> None:
    await scene.bring()
    held = scene.cache.get(SERVICE, "ml", "fraud")
    assert held is not None
    await scene.applier.remove(held)
    assert scene.cache.get(SERVICE, "ml", "fraud") is None
    for status in (404, 409):  # gone, or another one by now
        scene.api.fail = (status, "")
        await scene.applier.remove(held)
    scene.api.fail = (500, "")
    with pytest.raises(ApiError):
        await scene.applier.remove(held)


async def test_a_list_comes_in_pages(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coalmine_operator.platforms.kubernetes.client.PAGE", 3)
    found = [item async for page in scene.client.pages(POD.path()) for item in page["items"]]
    assert found == list(range(7))
    assert len(scene.api.calls) == 3


async def test_an_api_server_that_is_away_is_one_line(scene: Scene) -> None:
    client = Client(Access("http://127.0.0.1:1"))
    try:
        with pytest.raises(ApiError, match="API server: ") as caught:
            await client.get("/version")
    finally:
        await client.close()
    assert caught.value.status == 0
    assert "\n" not in str(caught.value)


async def test_an_answer_that_is_no_status_is_told_as_well(scene: Scene) -> None:
    scene.api.fail = (502, "")
    with pytest.raises(ApiError, match="status 502"):
        await scene.client.get("/version")

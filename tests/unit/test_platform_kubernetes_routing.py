"""The way of a routing file into pods, where kubelet misses a touch: a real one does so once in a while."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from coalmine_operator.platforms.kubernetes import routing
from coalmine_operator.platforms.kubernetes.access import Access
from coalmine_operator.platforms.kubernetes.applying import Applier
from coalmine_operator.platforms.kubernetes.cache import Cache
from coalmine_operator.platforms.kubernetes.client import Client
from coalmine_operator.platforms.kubernetes.events import Poster
from coalmine_operator.platforms.kubernetes.held import Held, hold
from coalmine_operator.platforms.kubernetes.kinds import POD
from coalmine_operator.platforms.kubernetes.settings import Settings
from coalmine_operator.platforms.kubernetes.surroundings import Surroundings
from coalmine_operator.render.injection import InjectionSettings
from coalmine_operator.render.labels import ROUTING_GENERATION
from coalmine_operator.sources.snapshots import Snapshots
from coalmine_sidecar.contract import Routing, Snapshot

ROUTING = {
    "deployment": "fraud",
    "model": "fraud",
    "generation": 7,
    "revisions": [{"name": "a", "version": "v1", "track": "stable", "weight": 100, "endpoints": []}],
}


class Kubelet:
    """Touches of two pods: `quick` has the file after the first one, `late` only after the second."""

    def __init__(self) -> None:
        self.marks: dict[str, list[str]] = {"quick": [], "late": []}

    async def patch(self, request: web.Request) -> web.Response:
        name = request.path.rpartition("/")[2]
        self.marks[name].append((await request.json())["metadata"]["annotations"][ROUTING_GENERATION])
        return web.json_response(pod(name))

    def generation(self, name: str) -> int:
        return 7 if len(self.marks[name]) >= (1 if name == "quick" else 2) else 6


def pod(name: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "ml", "uid": name, "resourceVersion": "1"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": {"podIP": "10.0.0.1"}}


async def test_who_is_behind_is_touched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "TOUCH_EVERY", 0.2)
    kubelet, told = Kubelet(), asyncio.Event()
    app = web.Application()
    app.router.add_route("PATCH", "/{path:.*}", kubelet.patch)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    client, cache = Client(Access(f"http://127.0.0.1:{runner.addresses[0][1]}")), Cache()
    try:
        async with aiohttp.ClientSession() as session:
            around = Surroundings(
                client=client,
                cache=cache,
                applier=Applier(client, cache, lambda seconds, key: None),
                poster=Poster(client, "test"),
                session=session,
                settings=Settings(injection=InjectionSettings(image="sidecar")),
                notify=lambda key: told.set(),
            )
            snapshots = Snapshots(session)

            async def gather() -> None:
                now = asyncio.get_running_loop().time()
                for name in kubelet.marks:
                    generation = kubelet.generation(name)
                    snapshots.take(name, Snapshot(pod=name, revision="a", boot="b", at=now, generation=generation))

            await gather()
            pods: list[Held] = [hold(POD, pod(name)) for name in kubelet.marks]
            file = routing.RoutingFile("ml/fraud", around, snapshots, gather)
            await file.spread(msgspec.convert(ROUTING, Routing), pods, written=True)
            await asyncio.wait_for(told.wait(), 5)
            await file.stop()
        assert kubelet.marks == {"quick": ["7"], "late": ["7", "7.2"]}
    finally:
        await client.close()
        await runner.cleanup()

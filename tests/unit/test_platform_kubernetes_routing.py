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
    """Touches of two pods: `quick` has the file after the first one, `late` only after so many."""

    def __init__(self, late: int) -> None:
        self.late = late
        self.marks: dict[str, list[str]] = {"quick": [], "late": []}

    async def patch(self, request: web.Request) -> web.Response:
        name = request.path.rpartition("/")[2]
        mark = (await request.json())["metadata"]["annotations"][ROUTING_GENERATION]
        self.marks[name].append(mark)
        return web.json_response(pod(name, mark, len(self.marks[name]) + 1))

    def generation(self, name: str) -> int:
        return 7 if len(self.marks[name]) >= (1 if name == "quick" else self.late) else 6


def pod(name: str, mark: str = "", version: int = 1) -> dict[str, Any]:
    annotations = {ROUTING_GENERATION: mark} if mark else {}
    metadata = {
        "name": name,
        "namespace": "ml",
        "uid": name,
        "resourceVersion": f"{version}",
        "annotations": annotations,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": {"podIP": "10.0.0.1"}}


@pytest.mark.parametrize(
    "late", [pytest.param(2, id="kubelet misses one"), pytest.param(5, id="kubelet has not heard of Secrets for long")]
)
@pytest.mark.parametrize(
    ("killed", "first"), [(0, ""), (1, "7"), (3, "7.3")], ids=["", "one operator was killed", "after three touches"]
)
async def test_who_is_behind_is_touched_again(
    late: int, killed: int, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where an operator that was killed has touched: its touches may have overtaken the Secret."""
    for name, seconds in (("TOUCH_EVERY", 0.2), ("CONFIRM_OFTEN", 0.3), ("CONFIRM_SELDOM", 0.1)):
        monkeypatch.setattr(routing, name, seconds)
    kubelet, told = Kubelet(late), asyncio.Event()
    app = web.Application()
    app.router.add_route("PATCH", "/{path:.*}", kubelet.patch)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    client, cache = Client(Access(f"http://127.0.0.1:{runner.addresses[0][1]}")), Cache(lambda key: None)
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

            def pods() -> list[Held]:
                return [cache.get(POD, "ml", name) or hold(POD, pod(name, first)) for name in kubelet.marks]

            file = routing.RoutingFile("ml/fraud", around, snapshots, gather)
            wanted = msgspec.convert(ROUTING, Routing)
            await file.spread(wanted, pods(), written=not killed)
            # The next reconcile does not touch beside it.
            await file.spread(wanted, pods(), written=False)
            await asyncio.wait_for(told.wait(), 5)
            await file.stop()
        marks = [f"7.{count}" if count > 1 else "7" for count in range(killed + 1, killed + late + 1)]
        assert kubelet.marks == {"quick": marks[:1], "late": marks}
    finally:
        await client.close()
        await runner.cleanup()

"""What only a sidecar knows of its pod's readiness (a warm-up, a certificate) becomes the revision's failure."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from coalmine_operator.api.codec import to_builtins
from coalmine_operator.api.spec import Model
from coalmine_operator.engine.model import RevisionRecord
from coalmine_operator.platforms.kubernetes.access import Access
from coalmine_operator.platforms.kubernetes.applying import Applier
from coalmine_operator.platforms.kubernetes.cache import Cache
from coalmine_operator.platforms.kubernetes.client import Client
from coalmine_operator.platforms.kubernetes.deployment import ClusterDeployment
from coalmine_operator.platforms.kubernetes.events import Poster
from coalmine_operator.platforms.kubernetes.kinds import CONTROLLER_REVISION, POD
from coalmine_operator.platforms.kubernetes.settings import Settings
from coalmine_operator.platforms.kubernetes.surroundings import Surroundings
from coalmine_operator.render import labels
from coalmine_operator.render.injection import InjectionSettings
from coalmine_sidecar.contract import Snapshot

WARMUP = "warm-up: POST /v2/models/fraud/infer: answered 500, not 200: no weights"


def child(name: str, **more: Any) -> dict[str, Any]:
    owner = {"apiVersion": "coalmine.dev/v1alpha1", "kind": "ModelDeployment", "name": "fraud", "uid": "md"}
    metadata = {
        "name": name,
        "namespace": "ml",
        "uid": name,
        "resourceVersion": "1",
        "labels": {labels.MODELDEPLOYMENT: "fraud", labels.REVISION: "fraud-1"},
        "ownerReferences": [{**owner, "controller": True}],
    }
    return {"metadata": metadata, **more}


def pod(version: int, ready: bool, **container: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(ready)}]
    found = child("p", status={"conditions": conditions, "containerStatuses": [{"name": "model", **container}]})
    found["metadata"]["resourceVersion"] = str(version)
    return found


async def test_it_is_told_while_the_pod_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    client, cache, told = Client(Access("http://127.0.0.1:1")), Cache(lambda key: None), []
    async with aiohttp.ClientSession() as session:
        around = Surroundings(
            client=client,
            cache=cache,
            applier=Applier(client, cache, lambda seconds, key: None),
            poster=Poster(client, "test"),
            session=session,
            settings=Settings(injection=InjectionSettings(image="sidecar")),
            notify=told.append,
        )
        deployment = ClusterDeployment("ml/fraud", "md", around)
        record = RevisionRecord(name="fraud-1", version="v1", template={}, model=Model())
        cache.take(CONTROLLER_REVISION, child("fraud-1", data=to_builtins(record)))
        cache.take(POD, pod(1, ready=False))

        def failure() -> str:
            return deployment.seen().revisions["fraud-1"].failure

        async def says(text: str, at: float) -> None:
            async def answers(**_: object) -> None:
                deployment._snapshots.take(
                    "p", Snapshot(pod="p", revision="fraud-1", boot="b", at=at, generation=1, not_ready=text)
                )

            monkeypatch.setattr(deployment, "_gather", answers)
            await deployment.refresh()

        await says("", 1)
        assert (failure(), told) == ("", [])
        await says(WARMUP, 2)
        await says(WARMUP, 3)
        assert (failure(), told) == (WARMUP, ["ml/fraud"]), "a reconcile for what changed"
        ended = {"terminated": {"exitCode": 1, "reason": "Error"}}
        cache.take(POD, pod(2, ready=False, state=ended))
        assert failure() == "model: ended with status 1 (Error)", "what a container says comes first"
        cache.take(POD, pod(3, ready=True))
        assert failure() == ""
    await client.close()

"""The Kubernetes platform: all model deployments of a cluster, or of some of its namespaces."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp

from coalmine_sidecar.monitoring import Monitored

from ...api.status import Status
from ...engine.model import Observed, Plan
from ...render.labels import MODELDEPLOYMENT
from ...sources.snapshots import Traffic
from ..base import Desired
from .annotations import Annotated
from .applying import Applier
from .cache import Cache
from .client import ApiError, Client
from .deployment import ClusterDeployment
from .events import Poster
from .kinds import MODEL_DEPLOYMENT, WATCHED, Kind
from .settings import Settings
from .surroundings import Surroundings

logger = logging.getLogger("coalmine")

#: Seconds between looks at the sidecars' counters while a rollout moves or somebody looks at a deployment.
REFRESH: Final = 1.0
LOOKED_AT: Final = 3.0
#: Seconds between two whole lists: a watch that breaks may miss that an object went.
RESYNC: Final = 300.0
#: Sidecars asked at once, over all model deployments.
MAX_QUESTIONS: Final = 256
#: Seconds that events get at the end.
LAST_WORDS: Final = 3.0


class KubernetesPlatform:
    """See `platforms.base.Platform`. Call `start` first and `stop` last; feed it with `saw`.

    The client stays the caller's to close.
    """

    def __init__(self, client: Client, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._settings = settings
        self._clock = clock
        self._cache = Cache(self._notify)
        self._listeners: list[Callable[[str], None]] = []
        self._deployments: dict[str, ClusterDeployment] = {}
        self._applier = Applier(client, self._cache, self._later, clock=clock)
        self._poster = Poster(client, settings.instance)
        self._tasks: list[asyncio.Task[None]] = []
        self._around: Surroundings
        #: When the cluster was last heard of, by the platform's clock.
        self.heard_at = clock()
        #: Everything was listed once: a model deployment that is not known here does not exist.
        self.listed = False

    async def start(self) -> None:
        """List everything there is. Raises ApiError; `status` 404: the CRD is not there."""
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=MAX_QUESTIONS))
        self._around = Surroundings(
            client=self._client,
            cache=self._cache,
            applier=self._applier,
            poster=self._poster,
            session=session,
            settings=self._settings,
            notify=self._notify,
        )
        async with contextlib.AsyncExitStack() as otherwise:
            otherwise.push_async_callback(session.close)
            for kind in WATCHED:
                await self._list(kind)
            otherwise.pop_all()
        self.listed = True
        self._tasks = [
            asyncio.create_task(work(), name=f"kubernetes: {work.__name__}")
            for work in (self._poster.run, self._resync, self._refresh)
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(deployment.stop() for deployment in self._deployments.values()))
        await self._poster.drain(LAST_WORDS)
        await self._around.session.close()

    # What watches tell

    def saw(self, kind: Kind, change: str | None, obj: Mapping[str, Any]) -> None:
        """An event of a watch: `change` is ADDED, MODIFIED, DELETED, or None for what was listed."""
        self.heard_at = self._clock()
        metadata = obj["metadata"]
        if change == "DELETED":
            held = self._cache.drop(kind, metadata["namespace"], metadata["name"], metadata["uid"])
            if held is not None:
                self._applier.forget(held)
        else:
            self._cache.take(kind, obj)

    async def _list(self, kind: Kind) -> None:
        selector = "" if kind is MODEL_DEPLOYMENT else MODELDEPLOYMENT
        for namespace in self._settings.namespaces or ("",):
            present: set[tuple[str, str]] = set()
            version = 0
            async for page in self._client.pages(kind.path(namespace), selector):
                version = int(page["metadata"]["resourceVersion"])
                for obj in page["items"]:
                    # Items of a list do not say what they are.
                    obj.setdefault("apiVersion", kind.api_version)
                    obj.setdefault("kind", kind.name)
                    present.add((obj["metadata"]["namespace"], obj["metadata"]["name"]))
                    self._cache.take(kind, obj)
            for held in self._cache.prune(kind, present, version, (namespace,) if namespace else ()):
                self._applier.forget(held)
        self.heard_at = self._clock()

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(RESYNC)
            try:
                for kind in WATCHED:
                    await self._list(kind)
            except ApiError as error:
                logger.warning("list: %s; the watches go on", error)

    # What the runtime asks; see platforms.base.Platform

    def keys(self) -> list[str]:
        return self._cache.keys()

    def _of(self, key: str) -> ClusterDeployment | None:
        namespace, _, name = key.partition("/")
        held = self._cache.get(MODEL_DEPLOYMENT, namespace, name)
        known = self._deployments.get(key)
        if held is None:
            if known is not None:
                del self._deployments[key]
                self._tasks.append(asyncio.create_task(known.stop()))
                self._tasks = [task for task in self._tasks if not task.done()]
            return None
        if known is None or known.uid != held.uid:
            known = self._deployments[key] = ClusterDeployment(key, held.uid, self._around)
        return known

    async def desired(self, key: str) -> Desired | None:
        deployment = self._of(key)
        return await deployment.desired() if deployment else None

    async def observe(self, key: str) -> Observed:
        deployment = self._of(key)
        return await deployment.observe() if deployment else Observed()

    def seen(self, key: str) -> Observed:
        deployment = self._of(key)
        if deployment is None:
            return Observed()
        deployment.looked_at = self._clock()
        return deployment.seen()

    def traffic(self, key: str) -> Mapping[str, Traffic]:
        deployment = self._of(key)
        return deployment.traffic() if deployment else {}

    def monitored(self, key: str) -> Mapping[str, Monitored]:
        deployment = self._of(key)
        return deployment.monitored() if deployment else {}

    async def save(self, key: str, status: Status) -> None:
        if deployment := self._of(key):
            await deployment.save(status)

    async def apply(self, key: str, desired: Desired, plan: Plan) -> None:
        if deployment := self._of(key):
            await deployment.apply(desired, plan)

    def on_change(self, notify: Callable[[str], None]) -> None:
        self._listeners.append(notify)
        for key in self.keys():
            notify(key)

    def _notify(self, key: str) -> None:
        for listener in self._listeners:
            listener(key)

    def _later(self, seconds: float, key: str) -> None:
        asyncio.get_running_loop().call_later(seconds, self._notify, key)

    # For front ends

    def ingress(self, key: str) -> str:
        """URL that requests of a model deployment go to, inside the cluster."""
        namespace, _, name = key.partition("/")
        return f"http://{name}.{namespace}.svc.{self._settings.cluster_domain}"

    def orders(self, key: str) -> tuple[Annotated, ...]:
        """Those that stand in the annotations of a model deployment."""
        namespace, _, name = key.partition("/")
        held = self._cache.get(MODEL_DEPLOYMENT, namespace, name)
        return held.orders if held is not None and not held.ending else ()

    async def forget_order(self, key: str, order: Annotated) -> None:
        """It was taken or refused. Raises ApiError."""
        if deployment := self._of(key):
            await deployment.take_away(order.annotation, order.value)

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH)
            lately = self._clock() - LOOKED_AT
            eager = [d for d in self._deployments.values() if d.moves or d.looked_at >= lately]
            with contextlib.suppress(aiohttp.ClientError):
                await asyncio.gather(*(deployment.refresh() for deployment in eager))

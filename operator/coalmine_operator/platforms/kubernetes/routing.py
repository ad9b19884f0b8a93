"""The routing of one model deployment: its Secret, and the way from there into the pods."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from msgspec.structs import replace

from coalmine_sidecar.contract import Routing, RoutingError, decode_routing

from ...engine.model import BaselineState, Plan
from ...render import labels
from ...render.injection import ADMIN_PORT, LOCAL_PORT, ROUTING_KEY
from ...render.routing import render_routing, same_but_generation
from ...sources.snapshots import Snapshots
from ..base import Desired
from .client import ApiError
from .held import Held
from .kinds import POD, SECRET
from .pods import address
from .surroundings import Surroundings

logger = logging.getLogger("coalmine")

#: How often sidecars are asked whether they have read a new routing file, in seconds, and for how long often: kubelet
#: takes a second, but one that had lost the API server hears of Secrets again only after half a minute or more.
CONFIRM_EVERY: Final = 0.1
CONFIRM_OFTEN: Final = 10.0
CONFIRM_SELDOM: Final = 1.0
CONFIRM_WITHIN: Final = 300.0
#: Seconds after which a pod that is behind is touched again, at first; later after a third of the time that passed.
#: Kubelet hears of Secrets and of pods on two ways: a touch that overtakes the Secret brings the old file, and
#: kubelet's next look by itself is a minute away.
TOUCH_EVERY: Final = 2.0


def routing_of(secret: Held | None) -> Routing | None:
    """What a Secret says; None where there is none or nothing usable in it."""
    if secret is None:
        return None
    try:
        return decode_routing(base64.b64decode(secret.body.get("data", {}).get(ROUTING_KEY, ""), validate=True))
    except (RoutingError, binascii.Error, ValueError):
        return None


def next_generation(wanted: Routing, present: Routing | None, known: int) -> int:
    """The generation `wanted` has or gets; `known`: the largest that anybody has seen."""
    if present is not None and present.generation >= known and same_but_generation(present, wanted):
        return present.generation
    return max(known, present.generation if present else 0) + 1


class RoutingFile:
    """`gather` asks the sidecars anew."""

    def __init__(
        self, key: str, around: Surroundings, snapshots: Snapshots, gather: Callable[[], Awaitable[None]]
    ) -> None:
        self._key = key
        self._namespace, self._name = key.split("/")
        self._around = around
        self._snapshots = snapshots
        self._gather = gather
        self._generation = 0
        #: Whether what is wanted says something new. An operator that begins applies the Secret as it was.
        self.changes = False
        self._confirming: asyncio.Task[None] | None = None
        #: The generation that this operator last brought to pods.
        self._spreading = 0

    def wanted(self, desired: Desired, plan: Plan, baselines: Mapping[str, BaselineState]) -> Routing | None:
        """What the file shall say, with the generation it has already where nothing changes."""
        if plan.routing is None:
            return None
        domain = self._around.settings.cluster_domain
        records = {record.name: record for record in plan.records}
        routing = render_routing(
            metadata=desired.metadata,
            spec=desired.spec,
            plan=plan.routing,
            records=records,
            # By name and not by pod: sidecars find pods that come and go while no operator is there to tell.
            endpoints={
                name: (
                    labels.local_endpoint(
                        name,
                        self._namespace,
                        LOCAL_PORT,
                        domain,
                        secure=name in records and records[name].tls is not None,
                    ),
                )
                for name, count in plan.replicas.items()
                if count
            },
            generation=0,
            baselines=baselines,
        )
        present = routing_of(self._around.cache.get(SECRET, self._namespace, labels.routing_secret(self._name)))
        known = max([self._generation, *(snapshot.generation for snapshot in self._snapshots.in_sight())])
        self._generation = next_generation(routing, present, known)
        self.changes = present is None or present.generation != self._generation
        return replace(routing, generation=self._generation)

    async def spread(self, routing: Routing, pods: Iterable[Held], *, written: bool) -> None:
        """Touch the pods that have not read the routing yet, so that kubelet brings it to them at once, and go on."""
        generation = routing.generation
        behind = self._behind(generation)
        reachable = [pod for pod in pods if not pod.ending and address(pod)]
        # Each once: a sidecar that refuses the file, being older, is not touched for ever.
        late = [pod for pod in reachable if pod.name in behind and not self._tried(pod, generation)]
        if written:
            late = reachable
        if late:
            await self.stop()
            self._spreading = generation
            # Beyond what an operator that was killed has done: its touch may have overtaken the Secret.
            touches = 1 + max(_touches(pod, generation) for pod in late)
            await self._touch(late, generation, touches)
            self._confirming = asyncio.create_task(self._confirm(generation, reachable, touches))

    def _tried(self, pod: Held, generation: int) -> bool:
        return self._spreading == generation and _touches(pod, generation) > 0

    def _behind(self, generation: int) -> set[str]:
        """Pods whose sidecar has not read the routing of this generation."""
        return {snapshot.pod for snapshot in self._snapshots.in_sight() if snapshot.generation < generation}

    def behind(self, pods: Iterable[str]) -> tuple[str, ...]:
        """Of these pods, a line about each whose sidecar does not route by the newest file."""
        read = {snapshot.pod: snapshot.generation for snapshot in self._snapshots.in_sight()}
        lines = []
        for pod in sorted(pods):
            if pod not in read:
                lines.append(f"{pod} does not answer on :{ADMIN_PORT}")
            elif read[pod] < self._generation:
                lines.append(f"{pod} routes by generation {read[pod]}, not {self._generation}")
        return tuple(lines)

    async def _touch(self, pods: Iterable[Held], generation: int, touches: int) -> None:
        mark = f"{generation}" if touches == 1 else f"{generation}.{touches}"
        await asyncio.gather(*(self._touch_one(pod, mark) for pod in pods))

    async def _touch_one(self, pod: Held, mark: str) -> None:
        patch = {"metadata": {"annotations": {labels.ROUTING_GENERATION: mark}}}
        try:
            self._around.cache.take(POD, await self._around.client.patch(pod.path, patch))
        except ApiError as error:
            # It went, or it gets the file a little later, when kubelet looks by itself.
            logger.debug("%s: %s was not touched: %s", self._key, pod.name, error)

    async def _confirm(self, generation: int, pods: Iterable[Held], touches: int) -> None:
        """Tell the runtime when every sidecar in sight has read the routing: nobody else would."""
        began, again = time.monotonic(), TOUCH_EVERY
        while (passed := time.monotonic() - began) < CONFIRM_WITHIN:
            await asyncio.sleep(CONFIRM_EVERY if passed < CONFIRM_OFTEN else CONFIRM_SELDOM)
            await self._gather()
            if (self._snapshots.generation() or 0) >= generation:
                break
            if passed >= again:
                touches, again = touches + 1, passed + max(TOUCH_EVERY, passed / 3)
                behind = self._behind(generation)
                await self._touch((pod for pod in pods if pod.name in behind), generation, touches)
        self._around.notify(self._key)

    async def stop(self) -> None:
        if self._confirming:
            self._confirming.cancel()
            await asyncio.gather(self._confirming, return_exceptions=True)


def _touches(pod: Held, generation: int) -> int:
    """How often a pod was touched for the sake of this generation, by whichever operator: `7` once, `7.2` twice."""
    of, _, count = pod.annotations.get(labels.ROUTING_GENERATION, "").partition(".")
    if of != str(generation):
        return 0
    return int(count) if count.isdecimal() and len(count) < 10 else 1

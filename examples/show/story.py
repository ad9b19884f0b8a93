"""The story, step by step. Each step does something to a running Coalmine and waits for what must come of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from examples.load import Record

from coalmine_operator.api.status import LastRollback

from .pager import ALERT, Pager
from .stage import Clients, Pod, Stage
from .timeline import NotTrueError, until
from .watch import Watch

T = TypeVar("T")

#: The weights of the manifest's steps, and full traffic.
WEIGHTS = [10, 30, 60, 100]
#: Patience in seconds: a loaded machine may be slow, a story that hangs must end.
START, ROLLOUT, SOON = 90.0, 120.0, 30.0
#: How long the last request may come after the decision to take a version out.
OUT_WITHIN = 2.0


@dataclass
class Killed:
    """The model processes that were killed, when, and how long others answered for them (0: still do). Unix seconds."""

    processes: set[str]
    at: float
    back_after: float = 0.0


class Story:
    """`on_served`: called once, when the first version can answer."""

    def __init__(self, stage: Stage, load: Clients, watch: Watch, pager: Pager) -> None:
        self.stage = stage
        self.load = load
        self.on_served: Callable[[], object] = lambda: None
        self.watch = watch
        self.pager = pager
        self.killed: Killed | None = None
        self.rollbacks: dict[str, LastRollback] = {}

    def steps(self) -> list[tuple[str, Callable[[], Awaitable[str]]]]:
        return [
            ("v1 starts and answers everything", self.first),
            ("v2 takes over as a canary, step by step", self.canary),
            ("v2 is promoted and bakes", self.bake),
            ("v3 is rolled back by the output-drift verdict", self.drift),
            ("v3 gets no more requests", lambda: self.out("v3")),
            ("v4 is rolled back by an alert", self.alert),
            ("v4 gets no more requests", lambda: self.out("v4")),
            ("the manifest is put right: v2 is healthy, nothing restarted", self.right),
            (f"{self.stage.killing}: the fallback answers", self.kill),
            (f"{self.stage.revived} and answers", self.back),
        ]

    async def first(self) -> str:
        await self._until(lambda: self.watch.phase == "Healthy", START, "v1 becomes Healthy")
        self.on_served()
        await self._until(lambda: len(self._answers("v1")) >= 300, SOON, "v1 answers")
        return f"{len(self._answers('v1'))} answers"

    async def canary(self) -> str:
        await self.stage.edit("v2")
        await self._until(lambda: self.watch.stable == "v2", ROLLOUT, "v2 becomes stable")
        await self._until(lambda: 100 in self.watch.weights_of("v2"), SOON, "v2 gets all traffic")
        weights = self.watch.weights_of("v2")
        if weights != WEIGHTS:
            raise NotTrueError(f"weights were {weights} and not {WEIGHTS}")
        return "weights " + ", ".join(f"{w} %" for w in weights)

    async def bake(self) -> str:
        await self._until(lambda: self.watch.phase == "Healthy", ROLLOUT, "v2 is Healthy after its bake time")
        phases = [g.phase for g in self.watch.glimpses]
        if "Baking" not in phases:
            raise NotTrueError(f"phases were {', '.join(phases)}: no Baking")
        return "Baking, then Healthy"

    async def drift(self) -> str:
        await self.stage.edit("v3")
        back = await self._until(lambda: self._rolled_back("v3"), ROLLOUT, "v3 is rolled back")
        failed = [v for v in back.evidence if v.verdict == "Fail"]
        if [v.metric for v in failed] != ["labels"]:
            raise NotTrueError(f"v3 was rolled back, but by: {back.reason}: {back.message}")
        (verdict,) = failed
        return f"{back.message}: log E {verdict.statistic:.1f}, {verdict.threshold:.1f} is enough"

    async def alert(self) -> str:
        await self.stage.edit("v4")
        back = await self._until(lambda: self._rolled_back("v4"), ROLLOUT, "v4 is rolled back")
        if back.alert is None or back.alert.name != ALERT:
            raise NotTrueError(f"v4 was rolled back, but by: {back.reason}: {back.message}")
        # The webhook's answer may come a moment after what it brought about.
        await self._until(lambda: self.pager.fired, SOON, "the webhook answers")
        strangers = [f.version for f in self.pager.fired if f.version != "v4"]
        if strangers:
            raise NotTrueError(f"the alert also fired for {', '.join(strangers)}")
        fired = self.pager.fired[-1]
        return f"{back.message}: {fired.share:.0%} of its last {fired.answers} answers were slow"

    async def out(self, version: str) -> str:
        """No sidecar routes to the version any more, and it stays so."""

        def routed_away() -> LastRollback | None:
            last = self._rolled_back(version)
            return last if last and last.done_at and not self._weight(version) else None

        back = await self._until(routed_away, SOON, f"no sidecar routes to {version}")
        await asyncio.sleep(OUT_WITHIN)
        decided = self.decided(version)
        after = max(0.0, last_request(self.load.records, version) - decided)
        if after > OUT_WITHIN:
            raise NotTrueError(f"{version} got its last request {after:.2f} s after the decision")
        return f"last request {after:.2f} s after the {'alert' if back.alert else 'verdict'}"

    async def right(self) -> str:
        before = {pod.process for pod in self._stable_pods()}
        await self.stage.edit("v2")
        await self._until(lambda: self.watch.phase == "Healthy", START, "v2 is Healthy")
        if {pod.process for pod in self._stable_pods()} != before:
            raise NotTrueError("a process of v2 was restarted")
        return "Healthy"

    async def kill(self) -> str:
        await self._until(lambda: self._ready("v1"), SOON, "the fallback v1 stands by")
        pods = await self._until(self._stable_pods, SOON, "v2 has a pod")
        self.killed = killed = Killed({pod.process for pod in pods}, time.time())
        await self.stage.kill(pods)

        def stands_in() -> list[Record]:
            return [r for r in self._answers("v1") if r.sent > killed.at]

        answers = await self._until(stands_in, SOON, "v1 answers for v2")
        return f"first answer of v1 {min(r.done for r in answers) - killed.at:.2f} s later"

    async def back(self) -> str:
        killed = self.killed
        assert killed is not None

        def again() -> bool:
            return self.watch.phase == "Healthy" and any(
                pod.process not in killed.processes for pod in self._stable_pods()
            )

        await self._until(again, START, f"{self.stage.revived} and v2 is Healthy")
        healthy = time.time()

        def returned() -> list[Record]:
            return [r for r in self._answers("v2") if r.sent > healthy]

        await self._until(lambda: len(returned()) >= 100, SOON, "v2 answers again")
        stood_in = [r.sent for r in self._answers("v1") if r.sent > killed.at]
        killed.back_after = max(stood_in) - killed.at
        return f"v1 stood in for {killed.back_after:.1f} s with {len(stood_in)} answers"

    def decided(self, version: str) -> float:
        """When the decision against a version fell: the alert's POST, or the verdict."""
        for fired in self.pager.fired:
            if fired.version == version:
                return fired.posted
        return self.rollbacks[version].at

    def _rolled_back(self, version: str) -> LastRollback | None:
        last = self.watch.view.status.last_rollback if self.watch.view else None
        if last is None or last.source_version != version:
            return None
        self.rollbacks[version] = last
        return last

    def _answers(self, version: str) -> list[Record]:
        return [r for r in self.load.records if r.version == version and not r.error]

    def _weight(self, version: str) -> int:
        return sum(r.in_force for r in self.watch.view.revisions if r.version == version) if self.watch.view else 0

    def _ready(self, version: str) -> int:
        return sum(r.ready for r in self.watch.view.revisions if r.version == version) if self.watch.view else 0

    def _stable_pods(self) -> list[Pod]:
        stable = self.watch.view.status.stable if self.watch.view else None
        return [p for p in self.stage.pods() if stable and p.revision == stable.revision and not p.ending]

    async def _until(self, condition: Callable[[], T | None], seconds: float, what: str) -> T:
        return await until(condition, seconds, what, self.stage.broken)


def last_request(records: list[Record], version: str) -> float:
    """When the last request that `version` answered was sent; Unix seconds, 0 where there is none."""
    return max((r.sent for r in records if r.version == version), default=0.0)

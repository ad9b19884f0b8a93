"""The loop around the engine, on a fake clock; its platform is memory with faults on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from coalmine_operator.analysis.monitored import WINDOW
from coalmine_operator.api.baseline import Baseline, Numeric
from coalmine_operator.api.monitoring import Monitoring
from coalmine_operator.api.spec import Metadata, ModelDeploymentSpec
from coalmine_operator.api.status import AlertStatus, Status
from coalmine_operator.engine import BaselineState, Event, Observed, Order, Plan, RevisionState
from coalmine_operator.platforms.base import Desired
from coalmine_operator.runtime import BEGIN_AT_ONCE, NotTaken, OrderRefused, Runtime, UnknownDeployment
from coalmine_operator.sources.snapshots import Traffic
from coalmine_sidecar.monitoring import BinCounts, Monitored

pytestmark = [pytest.mark.looptime]

KEY = "default/fraud"
SPEC = ModelDeploymentSpec(template={"spec": {"containers": [{"name": "model", "command": ["serve"]}]}})


class Memory:
    """A platform without pods. `faults`: errors that the next calls of a method raise, by its name."""

    def __init__(self) -> None:
        self.spec: ModelDeploymentSpec | None = SPEC
        self.status = Status()
        self.observed = Observed()
        self.problems: tuple[str, ...] = ()
        self.faults: dict[str, list[Exception]] = {}
        self.calls: list[str] = []
        self.times: list[float] = []
        self.applied: list[Plan] = []
        self.counted: Callable[[str], Monitored] | None = None
        self.notify: Callable[[str], None] = lambda key: None
        self.delay = 0.0
        self.busy = 0

    async def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == "desired":
            self.times.append(asyncio.get_running_loop().time())
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.faults.get(name):
            raise self.faults[name].pop(0)

    async def desired(self, key: str) -> Desired | None:
        assert self.busy == 0, "two reconciles of one key at a time"
        self.busy += 1
        try:
            await self._call("desired")
        finally:
            self.busy -= 1
        if self.spec is None:
            return None
        metadata = Metadata(name="fraud", generation=1)
        return Desired(metadata=metadata, spec=self.spec, status=self.status, problems=self.problems)

    async def observe(self, key: str) -> Observed:
        await self._call("observe")
        return self.observed

    def seen(self, key: str) -> Observed:
        return self.observed

    def monitored(self, key: str) -> Mapping[str, Monitored]:
        assert self.counted is not None, "asked for though nothing has a baseline"
        return {name: self.counted(name) for name in self.observed.revisions}

    def traffic(self, key: str) -> Mapping[str, Traffic]:
        return {}

    async def save(self, key: str, status: Status) -> None:
        await self._call("save")
        self.status = status

    async def apply(self, key: str, desired: Desired, plan: Plan) -> None:
        self.busy += 1
        try:
            await self._call("apply")
        finally:
            self.busy -= 1
        self.applied.append(plan)
        # Pods that are ready as soon as they are asked for.
        self.observed = replace(
            self.observed,
            revisions={
                record.name: RevisionState(
                    record=record, pods=plan.replicas.get(record.name, 0), ready=plan.replicas.get(record.name, 0)
                )
                for record in plan.records
            },
            weights={route.revision: route.weight for route in plan.routing.routes} if plan.routing else {},
        )

    def on_change(self, notify: Callable[[str], None]) -> None:
        self.notify = notify
        notify(KEY)


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
async def runtime(memory: Memory) -> AsyncIterator[Runtime]:
    made = Runtime(memory, clock=lambda: asyncio.get_running_loop().time() + 1e9)
    yield made
    await made.stop()


async def settle(runtime: Runtime, memory: Memory) -> None:
    """Until the first revision is stable."""
    runtime.start()
    for _ in range(5):
        await asyncio.sleep(0.1)
        memory.notify(KEY)
    await asyncio.sleep(0.2)
    assert memory.status.phase == "Healthy"
    memory.calls.clear()
    memory.times.clear()


async def test_the_order_of_a_reconcile(runtime: Runtime, memory: Memory) -> None:
    runtime.start()
    await asyncio.sleep(0.02)
    assert memory.calls == ["desired", "observe", "save", "apply"]


async def test_an_unchanged_status_is_not_saved(runtime: Runtime, memory: Memory) -> None:
    await settle(runtime, memory)
    memory.notify(KEY)
    await asyncio.sleep(1)
    assert memory.calls == ["desired", "observe", "apply"]


async def test_notifications_in_a_burst_are_one_reconcile(runtime: Runtime, memory: Memory) -> None:
    await settle(runtime, memory)
    memory.delay = 0.3
    for _ in range(1000):
        memory.notify(KEY)
    await asyncio.sleep(0.5)  # in the midst of a reconcile
    for _ in range(1000):
        memory.notify(KEY)
    await asyncio.sleep(5)
    assert memory.calls.count("desired") == 2


async def test_a_lost_notification_is_made_good(runtime: Runtime, memory: Memory) -> None:
    await settle(runtime, memory)
    await asyncio.sleep(31)
    assert memory.calls.count("desired") == 1


async def test_windows_of_drift_end_though_nothing_happens(runtime: Runtime, memory: Memory) -> None:
    memory.spec = replace(SPEC, monitoring=Monitoring())
    await settle(runtime, memory)
    assert runtime.monitored() == []
    age = Numeric(edges=(0.0,), counts=(3000, 3000), mean=0.0, stddev=1.0, min=-3.0, max=3.0)
    baseline = Baseline(schema=1, model="fraud", version="v1", task="binary", rows=6000, features={"age": age})
    state = BaselineState(digest="sha256:1", baseline=baseline)
    memory.observed = replace(memory.observed, baselines=dict.fromkeys(memory.observed.revisions, state))

    def counted(_: str) -> Monitored:
        rows = int(asyncio.get_running_loop().time())
        return Monitored(digest="sha256:1", features={"age": BinCounts(bins=[rows, rows])})

    memory.counted = counted
    await asyncio.sleep(31 + 2 * WINDOW + 60)
    (found,) = runtime.monitored()
    (watched,) = (revision.watched for revision in found.revisions)
    assert watched is not None
    assert watched.columns[0].run_length.windows == 2
    memory.spec = None
    memory.notify(KEY)
    await asyncio.sleep(1)
    assert runtime.monitored() == []


async def test_a_baseline_that_is_not_there_is_told_once(
    runtime: Runtime, memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    await settle(runtime, memory)
    caplog.set_level("INFO")
    memory.counted = lambda _: Monitored()
    memory.observed = replace(memory.observed, baselines={"r": BaselineState(problem="missing", message="b.json: no")})
    for _ in range(3):
        memory.notify(KEY)
        await asyncio.sleep(1)
    assert [record.getMessage() for record in caplog.records] == ["default/fraud: r: no baseline: b.json: no"]
    memory.observed = replace(memory.observed, baselines={"r": BaselineState(digest="sha256:1")})
    memory.notify(KEY)
    await asyncio.sleep(1)
    assert caplog.records[-1].getMessage() == "default/fraud: r: its baseline is there"


async def test_wake_at_is_kept(memory: Memory) -> None:
    def decide(*_: Any, **__: Any) -> tuple[Status, Plan]:
        return Status(), Plan(wake_at=asyncio.get_running_loop().time() + 7)

    runtime = Runtime(memory, decide=decide, clock=lambda: asyncio.get_running_loop().time())
    runtime.start()
    await asyncio.sleep(15)
    await runtime.stop()
    first, second, third = memory.times
    assert second - first == pytest.approx(7, abs=0.1)
    assert third - second == pytest.approx(7, abs=0.1)


async def test_a_wake_up_in_the_past_does_not_spin(memory: Memory) -> None:
    runtime = Runtime(memory, decide=lambda *_, **__: (Status(), Plan(wake_at=-1e9)))
    runtime.start()
    await asyncio.sleep(1)
    await runtime.stop()
    assert len(memory.times) <= 20


@pytest.mark.parametrize("step", ["desired", "observe", "save", "apply"])
async def test_failures_back_off_and_end_well(step: str, runtime: Runtime, memory: Memory) -> None:
    memory.faults[step] = [OSError("no space left")] * 3
    runtime.start()
    await asyncio.sleep(0.5)
    assert memory.times == pytest.approx([0], abs=0.01)
    await asyncio.sleep(10)
    assert memory.times[:4] == pytest.approx([0, 1, 3, 7], abs=0.2)
    assert memory.status.phase in ("Progressing", "Healthy", "Pending")
    assert memory.applied


async def test_the_back_off_is_bounded_and_forgotten(runtime: Runtime, memory: Memory) -> None:
    memory.faults["observe"] = [OSError("gone")] * 9
    runtime.start()
    await asyncio.sleep(1000)
    gaps = [b - a for a, b in zip(memory.times, memory.times[1:], strict=False)]
    assert gaps[:9] == pytest.approx([1, 2, 4, 8, 15, 15, 15, 15, 15], abs=0.1)
    memory.faults["observe"] = [OSError("again")]
    memory.times.clear()
    memory.notify(KEY)
    await asyncio.sleep(5)
    assert memory.times[1] - memory.times[0] == pytest.approx(1, abs=0.1)


async def test_notifications_do_not_cut_a_back_off_short_but_alerts_do(runtime: Runtime, memory: Memory) -> None:
    await settle(runtime, memory)
    memory.faults["observe"] = [OSError("gone")] * 6
    start = asyncio.get_running_loop().time()
    memory.notify(KEY)
    await asyncio.sleep(20)  # the next look would be at 31 s
    before = len(memory.times)
    memory.notify(KEY)
    await asyncio.sleep(1)
    assert len(memory.times) == before
    memory.faults.clear()
    await runtime.submit_alerts(KEY, (AlertStatus(fingerprint="f", name="High"),))
    assert asyncio.get_running_loop().time() - start < 22
    assert [alert.name for alert in memory.status.alerts] == ["High"]


async def test_alerts_are_answered_only_when_durable(runtime: Runtime, memory: Memory) -> None:
    await settle(runtime, memory)
    memory.faults["save"] = [OSError("no space left")] * 2
    submitted = asyncio.create_task(runtime.submit_alerts(KEY, (AlertStatus(fingerprint="f", name="High"),)))
    await asyncio.sleep(0.5)
    assert not submitted.done()
    assert not memory.status.alerts
    await submitted
    assert [alert.name for alert in memory.status.alerts] == ["High"]
    assert memory.calls.count("save") == 3


async def test_an_alert_during_a_reconcile_goes_into_the_next_one(runtime: Runtime, memory: Memory) -> None:
    await settle(runtime, memory)
    memory.delay = 0.5
    memory.notify(KEY)
    await asyncio.sleep(1.4)  # decided, being applied
    await runtime.submit_alerts(KEY, (AlertStatus(fingerprint="f", name="High"),))
    assert [alert.name for alert in memory.status.alerts] == ["High"]


async def test_an_order_that_means_nothing_is_refused(runtime: Runtime, memory: Memory) -> None:
    await settle(runtime, memory)
    with pytest.raises(OrderRefused, match="no rollout"):
        await runtime.submit_order(KEY, Order(id="1", verb="promote"))


async def test_an_order_is_obeyed(runtime: Runtime, memory: Memory) -> None:
    await settle(runtime, memory)
    memory.spec = replace(SPEC, model=replace(SPEC.model, version="v2"), paused=True)
    memory.notify(KEY)
    await asyncio.sleep(0.5)
    result = await runtime.submit_order(KEY, Order(id="1", verb="rollback", actor="ada"))
    assert "ada" in result.message
    assert result.status.last_rollback is not None
    assert memory.status.quarantined


async def test_an_order_the_engine_does_not_answer_is_an_error(memory: Memory) -> None:
    runtime = Runtime(memory, decide=lambda *_, **__: (Status(), Plan()))
    runtime.start()
    with pytest.raises(NotTaken, match="was not taken"):
        await runtime.submit_order(KEY, Order(id="1", verb="promote"))
    await runtime.stop()


async def test_who_gave_up_is_not_obeyed_later(runtime: Runtime, memory: Memory) -> None:
    await settle(runtime, memory)
    memory.faults["observe"] = [OSError("gone")] * 3
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(runtime.submit_alerts(KEY, (AlertStatus(fingerprint="f", name="High"),)), 2)
    await asyncio.sleep(60)
    assert not memory.status.alerts


async def test_unknown_deployments(runtime: Runtime, memory: Memory) -> None:
    memory.spec = None
    runtime.start()
    with pytest.raises(UnknownDeployment, match="default/fraud"):
        await runtime.submit_alerts(KEY, ())
    assert runtime.views() == []
    memory.spec = SPEC  # it came back
    memory.notify(KEY)
    await asyncio.sleep(1)
    assert [view.key for view in runtime.views()] == [KEY]


async def test_what_waits_is_bounded(runtime: Runtime, memory: Memory) -> None:
    memory.delay = 100
    runtime.start()
    many = tuple(AlertStatus(fingerprint=str(i), name="High") for i in range(200))
    waiting = [asyncio.create_task(runtime.submit_alerts(KEY, many)) for _ in range(5)]
    orders = [asyncio.create_task(runtime.submit_order(KEY, Order(id=str(i), verb="pause"))) for i in range(100)]
    await asyncio.sleep(0.1)
    with pytest.raises(NotTaken, match="too much waits"):
        await runtime.submit_alerts(KEY, many[:1])
    with pytest.raises(NotTaken, match="too much waits"):
        await runtime.submit_order(KEY, Order(id="x", verb="pause"))
    await asyncio.wait([*waiting, *orders])
    assert len(memory.status.alerts) > 0


async def test_stopping_answers_those_who_wait(memory: Memory) -> None:
    runtime = Runtime(memory)
    memory.faults["observe"] = [OSError("gone")] * 100
    runtime.start()
    waiting = asyncio.create_task(runtime.submit_alerts(KEY, ()))
    await asyncio.sleep(0.1)
    await runtime.stop()
    with pytest.raises(NotTaken, match="stopping"):
        await waiting
    with pytest.raises(NotTaken, match="stopping"):
        await runtime.submit_alerts(KEY, ())


class Many(Memory):
    """Many keys whose first reconcile takes a second."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[str] = []
        self.under_way = self.most = 0

    async def desired(self, key: str) -> Desired | None:
        if key in self.begun:
            return await super().desired(key)
        self.begun.append(key)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(1)
            return await super().desired(key)
        finally:
            self.under_way -= 1

    def on_change(self, notify: Callable[[str], None]) -> None:
        for number in range(3 * BEGIN_AT_ONCE):
            notify(f"default/model-{number:03}")


async def test_a_start_of_many_is_some_at_a_time_but_whoever_waits_for_an_answer_goes_first() -> None:
    memory = Many()
    runtime = Runtime(memory)
    runtime.start()
    await asyncio.sleep(0.5)
    assert len(memory.begun) == BEGIN_AT_ONCE
    last = f"default/model-{3 * BEGIN_AT_ONCE - 1:03}"
    runtime.notify(last)  # news alone change nothing
    await asyncio.sleep(0.1)
    assert last not in memory.begun
    await asyncio.wait_for(runtime.submit_alerts(last, ()), 1.5)
    assert memory.most == BEGIN_AT_ONCE + 1
    await asyncio.sleep(3)
    assert len(memory.begun) == 3 * BEGIN_AT_ONCE
    assert memory.most <= BEGIN_AT_ONCE + 1, "places were given back once each"
    await runtime.stop()


async def test_who_waits_for_its_first_turn_does_not_begin_any_more_when_the_runtime_stops() -> None:
    memory = Many()
    runtime = Runtime(memory)
    runtime.start()
    await asyncio.sleep(0.5)
    await runtime.stop()
    assert len(memory.begun) == BEGIN_AT_ONCE


async def test_events_come_after_the_save_and_once(runtime: Runtime, memory: Memory) -> None:
    heard: list[tuple[str, str, bool]] = []

    def listen(key: str, event: Event, status: Status) -> None:
        heard.append((key, event.reason, status == memory.status))

    runtime.on_event(listen)
    memory.faults["save"] = [OSError("no space left")]
    memory.faults["apply"] = [OSError("no space left")]
    runtime.start()
    await asyncio.sleep(10)
    assert all(saved for _, _, saved in heard)
    assert [reason for _, reason, _ in heard].count("RolloutStarted") == 1


async def test_problems_reach_the_status(runtime: Runtime, memory: Memory) -> None:
    await settle(runtime, memory)
    memory.problems = ("spec.replicas: -1 is below 0",)
    memory.notify(KEY)
    await asyncio.sleep(1)
    assert memory.status.phase == "InvalidSpec"
    view = runtime.view(KEY)
    assert view is not None
    assert view.observed.problems == memory.problems

"""The loop around the engine: one reconcile per model deployment at a time, asked for as often as anybody likes.

A reconcile reads what is wanted and what is seen, lets the engine decide, makes the new status durable and only then
brings the plan about. Whoever submits an alert or an order is answered after the status that took it was saved.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from .api.status import AlertStatus, Status
from .engine import Event, Observed, Order, Plan, step
from .engine.monitored import DeploymentMonitored, look
from .platforms.base import Desired, Platform
from .sources.snapshots import Traffic

logger = logging.getLogger("coalmine")

#: Seconds after a failed reconcile: doubled each time, from the first to the second figure, which is also how long it
#: may take until everything catches up after an outage.
BACK_OFF: Final = (1.0, 15.0)
#: The shortest time between two reconciles of one key that nobody waits for: changes come in bursts.
FLOOR: Final = 0.05
#: The longest time without a look, should a notification ever be lost.
IDLE: Final = 30.0
#: Keys that have their first reconcile at once: a start is one of all, and each holds in memory what it writes.
BEGIN_AT_ONCE: Final = 12
#: Seconds in which reconciles under way may finish when the runtime stops.
STOP_WITHIN: Final = 10.0
#: Bounds of what waits to be taken, by key.
MAX_WAITING_ALERTS: Final = 1000
MAX_WAITING_ORDERS: Final = 100

Step = Callable[..., tuple[Status, Plan]]
Listener = Callable[[str, Event, Status], None]
T = TypeVar("T")


class SubmitError(Exception):
    """What was submitted was not done. The message is one line."""


class UnknownDeployment(SubmitError):  # noqa: N818 - the name says what it is
    """There is no such model deployment."""


class OrderRefused(SubmitError):  # noqa: N818 - as above
    """The order means nothing now; sending it again will not help."""


class NotTaken(SubmitError):  # noqa: N818 - as above
    """It could not be made durable; sending it again is right."""


class OrderResult(Struct, frozen=True, kw_only=True):
    """An order that was taken: what happened in the step that took it, and the status saved with it."""

    message: str
    status: Status


class View(Struct, frozen=True, kw_only=True):
    """One model deployment for people, at `at` (Unix seconds): `status` as last saved, the rest as last seen."""

    key: str
    at: float
    desired: Desired
    status: Status
    observed: Observed
    traffic: Mapping[str, Traffic]


class _Waiting(Struct, kw_only=True, eq=False):
    """A submission and who waits for it."""

    events: tuple[AlertStatus, ...] = ()
    order: Order | None = None
    answer: asyncio.Future[OrderResult | None]


class _Line:
    """One key: what waits for its next reconcile, and what the last one knew."""

    def __init__(self) -> None:
        self.bell = asyncio.Event()
        self.somebody_waits = False
        self.waiting: list[_Waiting] = []
        self.desired: Desired | None = None
        self.monitored: DeploymentMonitored | None = None
        self.failures = 0
        #: What is wrong with baselines, by revision, as last told.
        self.baselines: dict[str, str] = {}
        self.task: asyncio.Task[None]

    async def rest(self, seconds: float) -> None:
        """Until the bell rings or time is up. After a failure only a submission cuts the rest short."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not self.somebody_waits and (left := end - loop.time()) > 0:
            try:
                await asyncio.wait_for(self.bell.wait(), left)
            except TimeoutError:
                return
            if not self.failures:
                return
            self.bell.clear()


class Runtime:
    """Reconciles every key the platform tells of. `clock` gives Unix seconds."""

    def __init__(self, platform: Platform, *, decide: Step = step, clock: Callable[[], float] = time.time) -> None:
        self._platform = platform
        self._decide = decide
        self._clock = clock
        self._lines: dict[str, _Line] = {}
        self._listeners: list[Listener] = []
        self._timers: list[Callable[[float, bool], None]] = []
        self._stopping = False
        self._beginning = asyncio.Semaphore(BEGIN_AT_ONCE)

    # From outside

    def start(self) -> None:
        """Begin; the platform names its keys through `on_change`."""
        self._platform.on_change(self.notify)

    async def stop(self) -> None:
        """Let reconciles under way finish; whoever still waits for one gets NotTaken."""
        self._stopping = True
        tasks = [line.task for line in self._lines.values()]
        for line in self._lines.values():
            line.somebody_waits = True
            line.bell.set()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=STOP_WITHIN)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for key in list(self._lines):
            self._drop(key, NotTaken("coalmine is stopping"))

    def notify(self, key: str) -> None:
        """Something about `key` may have changed. Cheap; may be called often."""
        if self._stopping:
            return
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line()
            line.task = asyncio.create_task(self._work(key, line), name=f"reconcile {key}")
        line.bell.set()

    async def submit_alerts(self, key: str, events: tuple[AlertStatus, ...]) -> None:
        """Returns when a status that knows the events is durable. Raises SubmitError."""
        await self._submit(key, events=events)

    async def submit_order(self, key: str, order: Order) -> OrderResult:
        """Returns when the status that obeyed the order is durable. Raises SubmitError."""
        result = await self._submit(key, order=order)
        if result is None:
            raise NotTaken(f"order {order.id} got no answer")
        return result

    async def _submit(
        self, key: str, *, events: tuple[AlertStatus, ...] = (), order: Order | None = None
    ) -> OrderResult | None:
        if self._stopping:
            raise NotTaken("coalmine is stopping")
        self.notify(key)
        line = self._lines[key]
        alerts_waiting = sum(len(one.events) for one in line.waiting)
        orders_waiting = sum(one.order is not None for one in line.waiting)
        if alerts_waiting + len(events) > MAX_WAITING_ALERTS or (order and orders_waiting >= MAX_WAITING_ORDERS):
            raise NotTaken(f"too much waits for {key} already")
        mine = _Waiting(events=events, order=order, answer=asyncio.get_running_loop().create_future())
        line.waiting.append(mine)
        line.somebody_waits = True
        line.bell.set()
        try:
            return await mine.answer
        finally:
            # Whoever gave up was told that it is not done; so it must not happen later.
            if mine in line.waiting:
                line.waiting.remove(mine)

    def on_event(self, listener: Listener) -> None:
        """Call `listener(key, event, status)` for each event of a plan, after its status was saved."""
        self._listeners.append(listener)

    def on_reconcile(self, timer: Callable[[float, bool], None]) -> None:
        """Call `timer(seconds, ok)` after each reconcile."""
        self._timers.append(timer)

    def view(self, key: str) -> View | None:
        """What is known of a key; None before its first reconcile."""
        line = self._lines.get(key)
        if line is None or line.desired is None:
            return None
        return View(
            key=key,
            at=self._clock(),
            desired=line.desired,
            status=line.desired.status,
            observed=replace(self._platform.seen(key), problems=line.desired.problems),
            traffic=self._platform.traffic(key),
        )

    def views(self) -> list[View]:
        """All of them, by key."""
        return [view for key in sorted(self._lines) if (view := self.view(key))]

    def monitored(self) -> list[DeploymentMonitored]:
        """What is known of predictions, as of the last reconcile of each key that has a baseline; by key."""
        return [found for key in sorted(self._lines) if (found := self._lines[key].monitored) is not None]

    # The loop

    async def _work(self, key: str, line: _Line) -> None:
        turn: contextlib.AbstractAsyncContextManager[None] = self._first_turn(line)
        while not self._stopping:
            try:
                async with turn:
                    if self._stopping:
                        return
                    line.bell.clear()
                    line.somebody_waits = False
                    wake_at = await self._timed_reconcile(key, line)
                line.failures = 0
            except UnknownDeployment as error:
                self._drop(key, error)
                return
            except Exception as error:
                first, last = BACK_OFF
                delay = min(first * 2**line.failures, last)
                line.failures = min(line.failures + 1, 10)
                logger.error("%s: %s; again in %g s", key, _one_line(error), delay)  # noqa: TRY400 - one clear line
                logger.debug("%s: reconcile failed", key, exc_info=error)
                await line.rest(delay)
            else:
                until = IDLE if wake_at is None else min(max(wake_at - self._clock(), FLOOR), IDLE)
                await line.rest(until)
                if not line.somebody_waits:
                    await asyncio.sleep(FLOOR)
            turn = contextlib.nullcontext()

    @contextlib.asynccontextmanager
    async def _first_turn(self, line: _Line) -> AsyncIterator[None]:
        """One of the places of those that begin, unless somebody waits for an answer: they do not wait for others."""
        place = asyncio.create_task(self._beginning.acquire())
        try:
            while not (place.done() or line.somebody_waits):
                line.bell.clear()
                bell = asyncio.create_task(line.bell.wait())
                await asyncio.wait({place, bell}, return_when=asyncio.FIRST_COMPLETED)
                bell.cancel()
            yield
        finally:
            place.cancel()
            await asyncio.wait({place})
            if not place.cancelled():
                self._beginning.release()

    async def _timed_reconcile(self, key: str, line: _Line) -> float | None:
        started, ok = time.monotonic(), False
        try:
            wake_at = await self._reconcile(key, line)
            ok = True
        except UnknownDeployment:
            ok = True  # it went, which is no failure
            raise
        finally:
            for timer in self._timers:
                timer(time.monotonic() - started, ok)
        return wake_at

    async def _reconcile(self, key: str, line: _Line) -> float | None:
        """One turn; answers when to look again at the latest."""
        desired = await self._platform.desired(key)
        if desired is None:
            raise UnknownDeployment(f"no model deployment {key}")
        observed = await self._platform.observe(key)
        counted = self._platform.monitored(key) if observed.baselines else {}
        line.monitored = look(line.monitored, desired.spec, desired.metadata, observed, counted, self._clock())
        taken = list(line.waiting)
        status, plan = self._decide(
            desired.spec,
            desired.status,
            replace(
                observed,
                problems=desired.problems,
                alert_events=tuple(event for one in taken for event in one.events),
                orders=tuple(one.order for one in taken if one.order),
            ),
            self._clock(),
            metadata=desired.metadata,
        )
        _tell_baselines(key, line, observed, status)
        # Shown even if it can't be saved: a full disk is one of the problems there may be.
        line.desired = desired
        if status != desired.status:
            await self._platform.save(key, status)
        line.desired = replace(desired, status=status)
        line.waiting = [one for one in line.waiting if one not in taken]
        for one in taken:
            _answer(one, status, plan)
        self._tell(key, plan, status)
        await self._platform.apply(key, line.desired, plan)
        return plan.wake_at

    def _tell(self, key: str, plan: Plan, status: Status) -> None:
        for event in plan.events:
            logger.log(logging.WARNING if event.warning else logging.INFO, "%s: %s", key, event.message)
            for listener in self._listeners:
                listener(key, event, status)

    def _drop(self, key: str, error: SubmitError) -> None:
        line = self._lines.pop(key)
        for one in line.waiting:
            if not one.answer.done():
                one.answer.set_exception(error)


def _tell_baselines(key: str, line: _Line, observed: Observed, status: Status) -> None:
    """Of stable the engine tells itself."""
    stable = status.stable.revision if status.stable else ""
    wrong = {name: state.message for name, state in observed.baselines.items() if state.problem}
    found = {name: message for name, message in wrong.items() if name != stable}
    for name, message in found.items():
        if line.baselines.get(name) != message:
            logger.warning("%s: %s: no baseline: %s", key, name, message)
    for name in line.baselines.keys() - found.keys():
        if name in observed.baselines and name not in wrong:
            logger.info("%s: %s: its baseline is there", key, name)
    line.baselines = found


def _answer(one: _Waiting, status: Status, plan: Plan) -> None:
    if one.answer.done():  # cancelled meanwhile
        return
    if one.order is None:
        one.answer.set_result(None)
    elif reason := plan.refused.get(one.order.id):
        one.answer.set_exception(OrderRefused(reason))
    elif one.order.id not in plan.orders_done:
        one.answer.set_exception(NotTaken(f"order {one.order.id} was not taken"))
    else:
        message = "; ".join(event.message for event in plan.events) or f"{one.order.verb}: done"
        one.answer.set_result(OrderResult(message=message, status=status))


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]

"""The gate before a model: never more than its limit, first come first served, nobody forgotten."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from coalmine_sidecar.contract import Concurrency
from coalmine_sidecar.relay.gate import Entry, Gate
from coalmine_sidecar.telemetry import QueueCounters


@dataclass
class Door:
    outstanding: int = 0


@dataclass(eq=False)
class World:
    """A model, its gate and the requests; `fleeting` ones are done with the model as soon as they are admitted."""

    gate: Gate
    door: Door
    admitted: list[int] = field(default_factory=list)
    running: list[Request] = field(default_factory=list)
    waiting: list[Request] = field(default_factory=list)


@dataclass(eq=False)
class Request:
    number: int
    world: World
    fleeting: bool

    def admitted(self, now: float) -> None:
        world = self.world
        world.waiting.remove(self)
        self.run()

    def run(self) -> None:
        world = self.world
        world.admitted.append(self.number)
        world.door.outstanding += 1
        if self.fleeting:
            world.door.outstanding -= 1
            world.gate.left()
        else:
            world.running.append(self)


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.booleans()),
        st.tuples(st.sampled_from(["done", "gone", "late"]), st.integers(0, 50)),
        st.tuples(st.just("set"), st.tuples(st.integers(1, 5), st.integers(0, 8))),
    ),
    max_size=100,
)


@given(st.integers(1, 5), st.integers(0, 8), EVENTS)
def test_all_it_promises(limit, depth, events):
    door, counters = Door(), QueueCounters()
    gate = Gate(door, Door(), Concurrency(limit=limit, queue_depth=depth), counters)
    world = World(gate, door)
    came, away = 0, 0
    for number, (event, detail) in enumerate(events):
        now = float(number)
        busy = len(world.running)
        if event == "come":
            request = Request(number, world, detail)
            full = gate.full
            entry = gate.enter(request, now)
            if entry is Entry.TURNED_AWAY:
                assert full
                assert busy >= limit or world.waiting
                assert len(world.waiting) >= depth
                away += 1
                continue
            came += 1
            assert not full
            if entry is Entry.QUEUED:
                assert busy >= limit or world.waiting, "nobody waits without need"
                world.waiting.append(request)
            else:
                assert not world.waiting, "nobody overtakes"
                request.run()
        elif event == "done" and world.running:
            world.running.pop(detail % len(world.running))
            door.outstanding -= 1
            gate.left()
        elif event in ("gone", "late") and world.waiting:
            request = world.waiting.pop(detail % len(world.waiting))
            (gate.forget if event == "gone" else gate.time_out)(request, now)
            away += event == "late"
            came -= 1
        elif event == "set":
            limit, depth = detail
            gate.set(Concurrency(limit=limit, queue_depth=depth))
        assert len(world.running) <= max(limit, busy)
        assert not world.waiting or len(world.running) >= limit, "a place is free and somebody waits"
        assert world.admitted == sorted(world.admitted), "first come first served"
        assert counters.depth == len(world.waiting)
        assert sum(counters.turned_away.values()) == away
        assert len(world.admitted) + len(world.waiting) == came
    waiting = len(world.waiting)
    gate.remove()
    assert not world.waiting
    assert len(world.admitted) == came
    assert counters.depth == 0
    assert waiting + len(world.admitted) >= came


def test_a_long_queue_of_the_fleeting_is_no_deep_recursion():
    door = Door(1)
    gate = Gate(door, Door(), Concurrency(limit=1, queue_depth=5000), QueueCounters())
    world = World(gate, door)
    for number in range(5000):
        request = Request(number, world, fleeting=True)
        assert gate.enter(request, 0.0) is Entry.QUEUED
        world.waiting.append(request)
    door.outstanding = 0
    gate.left()
    assert len(world.admitted) == 5000

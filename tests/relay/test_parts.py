"""The relay's parts alone: the wheel of deadlines, the choice of endpoints, the watch on the routing file."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from pathlib import Path
from time import monotonic

import pytest
from tests.relay.harness import Pod, eventually, post, revision, routing
from tests.relay.process import replace

from coalmine_sidecar.contract import Routing, RoutingError
from coalmine_sidecar.outward import split_address
from coalmine_sidecar.relay.endpoints import Endpoint, pick
from coalmine_sidecar.relay.heads import (
    JSON_LENGTH,
    KINDS,
    LENGTH,
    MAX_SPELLINGS,
    PLAIN,
    Special,
    find,
    kind_of,
    without,
)
from coalmine_sidecar.relay.names import Names
from coalmine_sidecar.relay.sweeper import TICK, Sweeper, Timed
from coalmine_sidecar.relay.watcher import RoutingFile


class Alarm(Timed):
    def __init__(self) -> None:
        super().__init__()
        self.rang: list[float] = []

    def expire(self, now: float) -> None:
        self.rang.append(now)


@pytest.fixture
async def sweeper():
    wheel = Sweeper(asyncio.get_running_loop())
    yield wheel
    wheel.stop()


@pytest.mark.looks_inside
async def test_deadlines_come_once_and_never_early(sweeper):
    start = monotonic()
    alarms = {delay: Alarm() for delay in (0.0, 0.01, 0.1, 0.12, 0.3)}
    for delay, alarm in alarms.items():
        sweeper.watch(alarm, start + delay)
    await asyncio.sleep(0.6)
    for delay, alarm in alarms.items():
        (rang,) = alarm.rang
        assert rang >= start + delay


@pytest.mark.looks_inside
async def test_a_deadline_that_moves(sweeper):
    start = monotonic()
    later, earlier, never = Alarm(), Alarm(), Alarm()
    sweeper.watch(later, start + 0.1)
    sweeper.watch(later, start + 0.4)
    sweeper.watch(earlier, start + 50)
    sweeper.watch(earlier, start + 0.1)
    sweeper.watch(never, start + 0.1)
    sweeper.forget(never)
    await asyncio.sleep(0.3)
    assert (later.rang, len(earlier.rang), never.rang) == ([], 1, [])
    await asyncio.sleep(0.3)
    assert len(later.rang) == 1


@pytest.mark.looks_inside
async def test_the_wheel_keeps_nothing_that_was_forgotten(sweeper):
    alarms = [Alarm() for _ in range(100)]
    for i, alarm in enumerate(alarms):
        sweeper.watch(alarm, monotonic() + 10 + i * TICK)
        sweeper.watch(alarm, monotonic() + 5)
    for alarm in alarms:
        sweeper.forget(alarm)
    assert sweeper._slots == {}


@pytest.mark.looks_inside
async def test_an_alarm_may_silence_another_one_of_the_same_tick(sweeper):
    class Pair(Alarm):
        other: Pair

        def expire(self, now: float) -> None:
            super().expire(now)
            sweeper.forget(self.other)

    one, two = Pair(), Pair()
    one.other, two.other = two, one
    when = monotonic() + 0.05
    sweeper.watch(one, when)
    sweeper.watch(two, when)
    await asyncio.sleep(0.3)
    assert len(one.rang) + len(two.rang) == 1


def below(rng: random.Random):
    return lambda bound: int(rng.random() * bound)


async def test_the_less_busy_of_two(sweeper):
    endpoints = [Endpoint("127.0.0.1", port, sweeper) for port in range(1, 5)]
    endpoints[0].outstanding = 100
    rng = random.Random(1)
    counts = Counter(pick(endpoints, 0.0, below(rng)) for _ in range(3000))
    assert counts[endpoints[0]] == 0, "two different ones are drawn, so the busiest never wins"
    assert all(counts[e] > 800 for e in endpoints[1:])
    assert pick(endpoints[:1], 0.0, below(rng)) is endpoints[0]
    assert pick([], 0.0, below(rng)) is None
    assert pick(endpoints, 0.0, below(rng), tried=endpoints) is None


async def test_an_endpoint_that_refuses_is_left_out_for_longer_each_time(sweeper):
    endpoint = Endpoint("127.0.0.1", 1, sweeper)
    pauses = []
    for _ in range(12):
        endpoint.leave_out(0.0)
        pauses.append(endpoint.shut_until)
        assert pick([endpoint], endpoint.shut_until - 0.001, below(random.Random())) is None
        assert pick([endpoint], endpoint.shut_until, below(random.Random())) is endpoint
    assert pauses == sorted(pauses)
    assert pauses[0] < 0.1 < pauses[-1] == pauses[-2] <= 2.0


def test_spellings_are_remembered_up_to_a_limit():
    for i in range(MAX_SPELLINGS + 100):
        assert kind_of(b"x-%d" % i) == PLAIN
    assert len(KINDS) == MAX_SPELLINGS
    assert kind_of(b"CONTENT-length") == LENGTH
    assert kind_of(b"v" * 1000) == PLAIN
    KINDS.clear()


def test_header_lines():
    lines = [b"A", b": ", b"1", b"\r\n", b"b", b": ", b"2", b"\r\n", b"a", b": ", b"3", b"\r\n"]
    assert find(lines, b"a") == b"1"
    assert find(lines, b"c") is None
    assert without(lines, {b"a"}) == lines[4:8]


@pytest.mark.parametrize(
    ("value", "length"), [(b"12", 12), (b" 12 ", 12), (b"-1", None), (b"x", None), (b"9" * 30, None)]
)
def test_the_json_length_is_a_number_or_nothing(value, length):
    special = Special()
    assert special.note(JSON_LENGTH, value)
    assert special.json_length == length


@pytest.mark.parametrize(
    ("text", "address"), [("a:1", ("a", 1)), ("[::1]:80", ("::1", 80)), ("10.0.0.1:8009", ("10.0.0.1", 8009))]
)
def test_addresses(text, address):
    assert split_address(text) == address


@pytest.mark.parametrize("text", ["", "a", "a:", ":1", "a:b", "a:-1", "a:70000", "[]:1"])
def test_no_addresses(text):
    with pytest.raises(ValueError, match="is no host:port"):
        split_address(text)


async def test_names_that_do_not_resolve_are_asked_again_and_forgotten(caplog):
    changes = 0

    def changed() -> None:
        nonlocal changes
        changes += 1

    names = Names(changed)
    names.follow(["localhost", "does-not-exist.invalid", "127.0.0.9"])
    await eventually(lambda: changes)
    assert "127.0.0.1" in names.addresses("localhost")
    assert names.addresses("127.0.0.9") == ("127.0.0.9",)
    await eventually(lambda: "does-not-exist.invalid does not resolve" in caplog.text)
    assert names.addresses("does-not-exist.invalid") == ()
    names.stop()
    assert names.addresses("localhost") == ()


@pytest.mark.looks_inside
async def test_a_name_that_stands_for_nothing_any_more_has_no_addresses(monkeypatch):
    """And one that the name server does not answer for keeps them."""
    answers: list[str | int] = ["10.0.0.1", socket.EAI_AGAIN, socket.EAI_NONAME, "10.0.0.1", socket.EAI_NODATA]
    asked: list[tuple[str, ...]] = []
    names = Names(lambda: None)

    async def resolve(*_: object, **__: object) -> list[tuple[object, ...]]:
        asked.append(names.addresses("pods.test"))
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, int):
            raise socket.gaierror(answer, "injected")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answer, 0))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    monkeypatch.setattr("coalmine_sidecar.relay.names.REFRESH", 0.01)
    monkeypatch.setattr("coalmine_sidecar.relay.names.RETRY", 0.01)
    names.follow(["pods.test"])
    await eventually(lambda: len(asked) > 6)
    names.stop()
    there = ("10.0.0.1",)
    assert asked[:7] == [(), there, there, there, there, there, ()]


class Uses:
    """What a routing file's watch told."""

    def __init__(self, path: Path) -> None:
        self.used: list[Routing] = []
        self.failed: list[str] = []
        self.file = RoutingFile(path, self.used.append, self.failed.append)


def test_a_broken_file_is_reported_once_for_each_content(tmp_path):
    path = tmp_path / "routing.json"
    told = Uses(path)
    assert told.file.read_first() is False
    replace(path, routing(revision("a", 100)))
    told.file.poll()
    told.file.poll()
    assert len(told.used) == 1
    replace(path, b"{")
    told.file.poll()
    replace(path, b"{")
    told.file.poll()
    assert len(told.failed) == 1
    replace(path, b"[")
    told.file.poll()
    assert len(told.failed) == 2
    path.unlink()
    told.file.poll()
    replace(path, routing(revision("a", 100), generation=2))
    told.file.poll()
    assert [r.generation for r in told.used] == [1, 2]


def test_a_file_that_cannot_be_read_at_the_start(tmp_path):
    with pytest.raises(RoutingError, match="Is a directory"):
        Uses(tmp_path).file.read_first()


def test_a_file_that_is_much_too_long(tmp_path):
    path = tmp_path / "routing.json"
    path.write_bytes(b" " * (5 << 20))
    told = Uses(path)
    told.file.poll()
    told.file.poll()
    assert len(told.failed) == 1


async def test_an_endpoint_that_is_no_address_leaves_everything_as_it_was(model, start_pod):
    pod: Pod = await start_pod(model.port, routing(revision("a", 100)))
    broken = routing(revision("a", 100) | {"endpoints": ["nowhere"]}, generation=2)
    with pytest.raises(RoutingError, match="'nowhere' is no host:port"):
        pod.relay.use(broken)
    assert pod.telemetry.routing is not None
    assert pod.telemetry.routing.generation == 1
    assert (await pod.ask(post())).status == 200


async def test_endpoints_outlive_a_reload_and_end_when_they_are_named_no_more(model, other, start_pod):
    document = routing(revision("b", 100, other.port))
    pod: Pod = await start_pod(model.port, document)
    assert (await pod.ask(post())).status == 200
    pod.relay.use(document)
    assert (await pod.ask(post())).status == 200
    assert other.connections == 1
    pod.relay.use(routing(revision("b", 0), revision("a", 100)))
    await eventually(lambda: other.open == 0)


async def test_a_request_under_way_keeps_the_revision_it_went_to(other, model, start_pod):
    gate = asyncio.Event()

    async def wait(_, writer) -> None:
        await gate.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold")

    other.handle = wait
    pod: Pod = await start_pod(model.port, routing(revision("b", 100, other.port)))
    task = asyncio.create_task(pod.ask(post()))
    await eventually(lambda: other.requests)
    pod.relay.use(routing(revision("a", 100), generation=2))
    assert (await pod.ask(post())).revision == "a"
    gate.set()
    reply = await task
    assert (reply.revision, reply.body) == ("b", b"old")


async def test_the_pods_own_address_is_not_another_pod(start_pod):
    pod: Pod = await start_pod(1)
    document = routing(revision("a", 100, pod.local))
    pod.relay.use(document)
    assert (await pod.ask(post())).status == 502
    assert pod.series("a", "local").outcomes() == {}


async def test_matches_and_affinity_reach_their_revision(model, other, start_pod):
    document = routing(
        revision("a", 50),
        revision("b", 50, other.port, track="canary"),
        match=[{"revision": "b", "headers": [{"name": "X-Canary", "value": "always"}]}],
        affinity={"header": "x-user", "salt": "b"},
    )
    pod: Pod = await start_pod(model.port, document)
    for _ in range(20):
        assert (await pod.ask(post(headers="x-canary: always\r\n"))).revision == "b"
    assert pod.telemetry.epoch("b").requests == 0
    seen = {
        user: {(await pod.ask(post(headers=f"X-User: {user}\r\n"))).revision for _ in range(4)} for user in range(20)
    }
    assert all(len(revisions) == 1 for revisions in seen.values())
    assert set().union(*seen.values()) == {"a", "b"}
    decisions = pod.telemetry.revisions["b"].decisions
    assert decisions[2] == 20
    assert pod.telemetry.epoch("a").requests + pod.telemetry.epoch("b").requests == 80

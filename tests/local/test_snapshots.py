"""Evidence gathered from sidecars: who counts, and for how long."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator

import aiohttp
import msgspec
import pytest
from aiohttp import web

from coalmine_operator.sources import snapshots as module
from coalmine_operator.sources.snapshots import Snapshots
from coalmine_sidecar.contract import EpochCounts, RevisionTotals, Snapshot


def snapshot(pod: str = "a", boot: str = "1", at: float = 100.0, **more: object) -> Snapshot:
    return msgspec.structs.replace(Snapshot(pod=pod, revision="r1", boot=boot, at=at, generation=3), **more)


def counted(requests: int) -> dict[str, dict[str, EpochCounts]]:
    return {"1.0": {"r1": EpochCounts(requests=requests, answered=requests)}}


class Admin:
    """An admin port that answers what it is told, on demand late or wrong."""

    def __init__(self) -> None:
        self.body = b""
        self.status = 200
        self.delay = 0.0
        self.asked: list[str] = []
        self.address = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.query_string)
        await asyncio.sleep(self.delay)
        return web.Response(status=self.status, body=self.body)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


@pytest.fixture
async def admin() -> AsyncIterator[Admin]:
    made = Admin()
    app = web.Application()
    app.router.add_get("/snapshot", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.address = "{}:{}".format(*runner.addresses[0][:2])
    yield made
    await runner.cleanup()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_snapshot_is_read(session: aiohttp.ClientSession, admin: Admin) -> None:
    found = Snapshots(session)
    admin.body = msgspec.json.encode(snapshot(weights={"r1": 95, "r2": 5, "r3": 0}, epochs=counted(7)))
    await found.gather({"a": admin.address})
    assert found.weights() == {"r1": 95, "r2": 5}
    assert found.mirrors() == {}
    assert found.epochs()["1.0"]["r1"].requests == 7
    assert found.generation() == 3
    assert admin.asked == [""]


async def test_values_are_asked_for_only_on_demand(session: aiohttp.ClientSession, admin: Admin) -> None:
    found = Snapshots(session)
    totals = {"r1": RevisionTotals(values={"score": [0.1, 0.2]})}
    admin.body = msgspec.json.encode(snapshot(totals=totals))
    await found.gather({"a": admin.address}, values=True)
    assert admin.asked == ["values=1"]
    assert found.values("r1") == {"score": (0.1, 0.2)}
    admin.body = msgspec.json.encode(snapshot(at=101, totals={"r1": RevisionTotals()}))
    await found.gather({"a": admin.address})  # somebody else's question in between
    assert found.values("r1") == {"score": (0.1, 0.2)}
    assert found.values("r2") == {}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"{}"),
        (200, b""),
        (200, b"{"),
        (200, b"[]"),
        (200, b'{"schema": 2}'),
        (200, b"\xff"),
        (302, b""),
    ],
)
async def test_nonsense_is_left_out(status: int, body: bytes, session: aiohttp.ClientSession, admin: Admin) -> None:
    found = Snapshots(session)
    admin.status, admin.body = status, body
    await found.gather({"a": admin.address, "nobody": "127.0.0.1:1"})
    assert found.in_sight() == []
    assert found.generation() is None


async def test_a_flood_is_cut_off(
    session: aiohttp.ClientSession, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 10_000)
    found = Snapshots(session)
    admin.body = msgspec.json.encode(snapshot()) + b" " * 100_000
    await found.gather({"a": admin.address})
    assert found.in_sight() == []


async def test_one_that_hangs_does_not_hold_up_the_others(session: aiohttp.ClientSession, admin: Admin) -> None:
    found = Snapshots(session)
    admin.body = msgspec.json.encode(snapshot())
    with socket.create_server(("127.0.0.1", 0)) as hanging:  # connections are taken, nobody reads
        async with asyncio.timeout(module.TIMEOUT * 5):
            await found.gather({"a": admin.address, "b": f"127.0.0.1:{hanging.getsockname()[1]}"})
    assert [s.pod for s in found.in_sight()] == ["a"]


async def test_a_silent_sidecar_loses_its_weights_but_not_its_counts(session: aiohttp.ClientSession) -> None:
    clock = Clock()
    found = Snapshots(session, clock=clock)
    found.take("a", snapshot("a", weights={"r1": 100}, epochs=counted(5)))
    clock.now += 1.5
    found.take("b", snapshot("b", weights={"r1": 90, "r2": 10}, mirrors={"r2": 20}, epochs=counted(3)))
    assert found.mirrors() == {"r2": 20}
    assert found.weights() == {"r1": 100, "r2": 10}
    clock.now += 1.0
    assert found.weights() == {"r1": 90, "r2": 10}
    assert found.epochs()["1.0"]["r1"].requests == 8


async def test_a_restarted_sidecar_keeps_what_it_had_counted(session: aiohttp.ClientSession) -> None:
    found = Snapshots(session)
    found.take("a", snapshot(boot="1", epochs=counted(50)))
    found.take("a", snapshot(boot="2", epochs=counted(2)))
    found.take("a", snapshot(boot="2", at=101, epochs=counted(4)))
    assert found.epochs()["1.0"]["r1"].requests == 54


async def test_what_is_known_to_be_gone_is_out_of_sight_at_once(session: aiohttp.ClientSession, admin: Admin) -> None:
    found = Snapshots(session)
    found.take("a", snapshot("a", boot="1", weights={"bad": 100}, epochs=counted(5)))
    found.take("b", snapshot("b", weights={"bad": 100}, epochs=counted(5)))
    admin.body = msgspec.json.encode(snapshot("a", boot="2", weights={"good": 100}, epochs=counted(1)))
    await found.gather({"a": admin.address})
    assert found.weights() == {"good": 100}
    assert found.epochs()["1.0"]["r1"].requests == 11


async def test_an_answer_that_was_overtaken_is_dropped(session: aiohttp.ClientSession) -> None:
    found = Snapshots(session)
    found.take("a", snapshot(at=102, weights={"r1": 100}))
    found.take("a", snapshot(at=101, weights={"r2": 100}))
    assert found.weights() == {"r1": 100}


async def test_lives_that_are_over_are_bounded(session: aiohttp.ClientSession) -> None:
    found = Snapshots(session)
    present = {f"p{i}": "127.0.0.1:1" for i in range(80)}
    for pod in present:
        found.take(pod, snapshot(pod, epochs=counted(1)))
    for boot in range(100):
        found.take("restless", snapshot("restless", boot=str(boot), epochs=counted(1)))
    await found.gather(present)
    assert found.epochs()["1.0"]["r1"].requests == 80 + module.KEPT


async def test_traffic(session: aiohttp.ClientSession) -> None:
    clock = Clock()
    found = Snapshots(session, clock=clock)

    def heard(at: float, ok: int) -> Snapshot:
        totals = RevisionTotals(outcomes={"ok": ok, "timeout": 1}, in_flight=2, last_routed=at)
        return snapshot(at=at, totals={"r1": totals})

    for second in range(5):
        found.take("a", heard(100 + second, 30 * second))
        clock.now += 1
    found.take("b", snapshot("b", totals={"r1": RevisionTotals(outcomes={"ok": 5}, last_routed=50)}))
    traffic = found.traffic()["r1"]
    assert traffic.outcomes == {"ok": 125, "timeout": 1}
    assert traffic.requests == 126
    assert traffic.rps == pytest.approx(30)
    assert traffic.in_flight == 2
    assert traffic.last_routed == 104
    clock.now += 60
    stale = found.traffic()["r1"]
    assert (stale.rps, stale.in_flight, stale.requests) == (0, 0, 126)


async def test_silence_is_no_news_in_the_log(session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await Snapshots(session).gather({"a": "127.0.0.1:1"})
    assert not caplog.records

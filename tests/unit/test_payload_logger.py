"""The payload log's queue: bounded, and every event that was offered is accounted for; settings and their changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_payload_events import exchange

from coalmine_sidecar.contract import RevisionRoute, Routing
from coalmine_sidecar.monitoring import Monitoring, PayloadLog
from coalmine_sidecar.payload import PayloadLogger, PayloadLogs, payload_metrics
from coalmine_sidecar.payload.counters import Counters
from coalmine_sidecar.payload.event import Event
from coalmine_sidecar.payload.logger import ENOUGH_BYTES, MAX_QUEUED, MAX_QUEUED_BYTES

NAMES = {"model": "fraud", "namespace": "ml", "deployment": "fraud-md", "pod": "p-1"}


def logger(settings: PayloadLog, **more: Any) -> PayloadLogger:
    return PayloadLogger(settings, **NAMES, **more)


def balanced(counters: Counters) -> bool:
    return counters.offered == sum(counters.outcomes.values()) and not counters.queued and not counters.queued_bytes


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


class Gate:
    """A sink that takes events when it is let."""

    name, batch, workers, linger, rate = "gate", 1, 2, 0.0, 1e9

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.came = asyncio.Event()
        self.events: list[Event] = []
        self.closed = False

    async def send(self, events: Sequence[Event]) -> None:
        await self.open.wait()
        self.events += events
        self.came.set()

    async def close(self) -> None:
        self.closed = True


async def test_a_share_is_drawn():
    draws = iter([0.0, 0.0099, 0.01, 0.5, 0.999])
    log = logger(PayloadLog(percent=1, file="f"), draw=lambda: next(draws))
    assert [log.wants() for _ in range(5)] == [True, True, False, False, False]
    assert all(logger(PayloadLog(percent=100, file="f")).wants() for _ in range(100))


async def test_what_has_no_room_is_counted_and_the_rest_arrives():
    gate = Gate()
    log = logger(PayloadLog(percent=100, file="f"), sink=gate)
    for number in range(MAX_QUEUED + 10):
        log.offer(exchange(id=str(number)))
    counters = log.counters
    assert counters.outcomes["dropped_queue"] == 20
    assert counters.queued == 2 * MAX_QUEUED
    gate.open.set()
    await log.close(60)
    assert gate.closed
    assert counters.outcomes == {"sent": 2 * MAX_QUEUED, "failed": 0, "dropped_queue": 20, "dropped_end": 0}
    assert balanced(counters)
    assert {event.attributes["id"] for event in gate.events} == {str(number) for number in range(MAX_QUEUED)}
    log.offer(exchange())
    assert counters.outcomes["dropped_end"] == 2, "after the end nothing is taken"
    assert balanced(counters)


async def test_the_queue_is_bounded_by_bytes_too():
    log = logger(PayloadLog(percent=100, file="f"), sink=Gate())
    body = b"x" * (MAX_QUEUED_BYTES // 4)
    for _ in range(4):
        log.offer(exchange(body, b""))
    log.offer(exchange(b"x", b""))
    assert log.counters.outcomes["dropped_queue"] == 2
    assert log.counters.queued_bytes == MAX_QUEUED_BYTES
    log.offer(exchange(b"", b""))
    assert log.counters.queued == 10
    await log.close(0)
    assert log.counters.outcomes["dropped_end"] == 10
    assert balanced(log.counters)


async def test_whoever_waits_for_a_sink_that_hangs_is_dropped_at_the_end():
    gate = Gate()
    log = logger(PayloadLog(percent=100, file="f"), sink=gate)
    for _ in range(5):
        log.offer(exchange())
        await asyncio.sleep(0)
    await log.close(0)
    assert gate.closed
    assert log.counters.outcomes["dropped_end"] == 10
    assert balanced(log.counters)


async def test_no_more_is_sent_than_the_sink_may_cost():
    """The first one goes at once; at an exchange in eleven days the next does not."""
    gate = Gate()
    gate.rate, gate.workers = 1e-6, 1
    gate.open.set()
    log = logger(PayloadLog(percent=100, file="f"), sink=gate)
    for _ in range(10):
        log.offer(exchange())
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(gate.events) == 2
    gate.open.clear()
    await log.close(0)
    assert log.counters.outcomes["dropped_end"] == 18
    assert balanced(log.counters)


def lingering() -> Gate:
    """It takes three at a time, and has a week for them."""
    gate = Gate()
    gate.batch, gate.workers, gate.linger = 3, 1, 7 * 86400.0
    gate.open.set()
    return gate


async def rest() -> None:
    """Everybody has come as far as they come without time."""
    for _ in range(100):
        await asyncio.sleep(0)


async def test_what_lingers_is_queued_until_there_is_enough():
    gate = lingering()
    log = logger(PayloadLog(percent=100, file="f"), sink=gate)
    for number in range(7):
        log.offer(exchange(b"x", b"", id=str(number)))
        await rest()
        left = (number + 1) % 3
        assert len(gate.events) == 2 * (number + 1 - left)
        assert (log.counters.queued, log.counters.queued_bytes) == (2 * left, left)
        assert log.counters.outcomes["sent"] == len(gate.events), "what lingers is not sent yet"
    await log.close(60)
    assert [event.attributes["id"] for event in gate.events[::2]] == list("0123456")
    assert log.counters.outcomes == {"sent": 14, "failed": 0, "dropped_queue": 0, "dropped_end": 0}
    assert balanced(log.counters)


async def test_bytes_are_enough_too():
    gate = lingering()
    log = logger(PayloadLog(percent=100, file="f"), sink=gate)
    log.offer(exchange(b"x" * (ENOUGH_BYTES - 1), b""))
    await rest()
    assert not gate.events
    log.offer(exchange(b"x", b""))
    await rest()
    assert len(gate.events) == 4
    await log.close(0)
    assert balanced(log.counters)


async def test_nobody_lingers_for_ever():
    gate = lingering()
    gate.linger = 0.001
    log = logger(PayloadLog(percent=100, file="f"), sink=gate)
    log.offer(exchange())
    await gate.came.wait()
    await log.close(60)
    assert balanced(log.counters)


async def test_what_lingers_when_the_sink_hangs_at_the_end_is_dropped():
    gate = lingering()
    gate.open.clear()
    log = logger(PayloadLog(percent=100, file="f"), sink=gate)
    for _ in range(5):
        log.offer(exchange())
        await rest()
    await log.close(0)
    assert log.counters.outcomes["dropped_end"] == 10
    assert balanced(log.counters)


async def test_a_turn_is_not_waited_for_at_the_end():
    gate = lingering()
    gate.rate, gate.linger = 1e-6, 0.0
    log = logger(PayloadLog(percent=100, file="f"), sink=gate)
    for _ in range(2):
        log.offer(exchange())
        await rest()
    assert (len(gate.events), log.counters.queued) == (2, 0)
    await log.close(60)
    assert log.counters.outcomes["sent"] == 4


@pytest.mark.parametrize("batch", [1, 64])
async def test_an_event_that_cannot_be_made_stops_nobody(batch: int, caplog: pytest.LogCaptureFixture):
    gate = Gate()
    gate.batch = batch
    gate.open.set()
    log = logger(PayloadLog(percent=100, file="f"), sink=gate)
    for started in (1.0, 1e30, 2.0):
        log.offer(exchange(started=started))
    await log.close(60)
    assert log.counters.outcomes == {"sent": 4, "failed": 2, "dropped_queue": 0, "dropped_end": 0}
    assert balanced(log.counters)
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (PayloadLog(percent=1), "give a url or a file, one of them"),
        (PayloadLog(percent=1, url="http://a", file="b"), "give a url or a file, one of them"),
        (PayloadLog(percent=1, url="ftp://u:s3cret@a"), "no URL: write http://HOST:PORT/PATH or https://HOST/PATH"),
        (PayloadLog(percent=1, url="http://u:s3cret@a:x/"), "no URL: write"),
        (PayloadLog(percent=1, file="b", redact=("$.a", "ssn")), "path 'ssn': a JSON path begins with $"),
    ],
)
def test_wrong_settings_are_one_clear_line(settings: PayloadLog, says: str):
    with pytest.raises(ValueError, match=r"^[^\n]+$") as refused:
        logger(settings)
    assert str(refused.value).startswith(says)
    assert "s3cret" not in str(refused.value)


def routing(payload_log: PayloadLog | None, **more: Any) -> Routing:
    route = RevisionRoute(name="a", version="v1", track="stable", weight=100)
    return Routing(
        deployment="fraud",
        model="m",
        generation=1,
        revisions=(route,),
        monitoring=Monitoring(payload_log=payload_log),
        **more,
    )


async def test_the_routing_file_says_what_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    logs = PayloadLogs(pod="p")
    assert not logs.wants()
    logs.offer(exchange())
    assert logs.counters.offered == 0
    first, second = (PayloadLog(percent=100, file=str(tmp_path / f"{name}.jsonl")) for name in "ab")
    logs.use(routing(first))
    assert logs.wants()
    logs.offer(exchange(id="1"))
    logs.use(routing(first, epoch="2"))
    logs.offer(exchange(id="2"))
    logs.use(routing(second))
    logs.offer(exchange(id="3"))
    logs.use(routing(PayloadLog(percent=100, url="nowhere")))
    assert not logs.wants()
    logs.use(routing(None))
    assert not logs.wants()
    logs.use(routing(second))
    await logs.close(60)
    assert [one["id"] for one in lines(tmp_path / "a.p.jsonl")] == ["1", "1", "2", "2"]
    assert [one["id"] for one in lines(tmp_path / "b.p.jsonl")] == ["3", "3"]
    assert logs.counters.outcomes["sent"] == 6
    assert balanced(logs.counters)
    assert caplog.messages == [
        "monitoring.payloadLog: no URL: write http://HOST:PORT/PATH or https://HOST/PATH; nothing is logged"
    ]


def test_every_figure_is_there_from_the_beginning():
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in payload_metrics(Counters())
        for sample in family.samples
    }
    assert set(samples) == {
        *(("coalmine_payload_log_total", one) for one in ("sent", "failed", "dropped_queue", "dropped_end")),
        *(("coalmine_payload_log_bodies_total", one) for one in ("truncated", "omitted_not_json", "omitted_size")),
        ("coalmine_payload_log_queued",),
        ("coalmine_payload_log_queued_bytes",),
    }
    assert set(samples.values()) == {0}

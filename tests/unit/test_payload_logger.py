"""The payload log's queue and files: bounded, and every event that was offered is accounted for."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_payload_events import exchange

from coalmine_sidecar.contract import RevisionRoute, Routing
from coalmine_sidecar.monitoring import Monitoring, PayloadLog
from coalmine_sidecar.payload import PayloadLogger, PayloadLogs, payload_metrics
from coalmine_sidecar.payload.counters import Counters
from coalmine_sidecar.payload.event import Event
from coalmine_sidecar.payload.file import FileSink, own_file
from coalmine_sidecar.payload.logger import MAX_QUEUED, MAX_QUEUED_BYTES

NAMES = {"model": "fraud", "namespace": "ml", "deployment": "fraud-md", "pod": "p-1"}


def logger(settings: PayloadLog, **more: Any) -> PayloadLogger:
    return PayloadLogger(settings, **NAMES, **more)


def balanced(counters: Counters) -> bool:
    return counters.offered == sum(counters.outcomes.values()) and not counters.queued and not counters.queued_bytes


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def held(folder: Path) -> list[Path]:
    """Its files, the oldest first."""
    return sorted(folder.iterdir(), reverse=True)


class Gate:
    """A sink that takes events when it is let."""

    name, batch, workers, rate = "gate", 1, 2, 1e9

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.events: list[Event] = []
        self.closed = False

    async def send(self, events: Sequence[Event]) -> None:
        await self.open.wait()
        self.events += events

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
    await log.close(0)
    assert log.counters.outcomes["dropped_end"] == 18
    assert balanced(log.counters)


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


async def test_lines_are_written_whole_and_in_order(tmp_path: Path):
    log = logger(PayloadLog(percent=100, file=str(tmp_path / "new/payloads.jsonl"), redact=("$.ssn",)))
    for number in range(100):
        log.offer(exchange(b'{"n": %d, "ssn": "s3cret"}' % number, b"not json" if number == 7 else b"[0.5]"))
    await log.close(60)
    told = lines(tmp_path / "new/payloads.p-1.jsonl")
    assert [one["data"]["n"] for one in told[::2]] == list(range(100))
    assert [one["id"] for one in told[::2]] == [one["id"] for one in told[1::2]]
    assert "s3cret" not in (tmp_path / "new/payloads.p-1.jsonl").read_text()
    assert log.counters.outcomes["sent"] == 200
    assert log.counters.changes == {"truncated": 0, "omitted_not_json": 1, "omitted_size": 0}
    assert balanced(log.counters)


def test_each_pod_has_a_file_of_its_own():
    assert own_file("/data/fraud.jsonl", "fraud-1") == Path("/data/fraud.fraud-1.jsonl")
    assert own_file("fraud", "a/b") == Path("fraud.a_b.jsonl")


def events(count: int, size: int = 1) -> list[Event]:
    return [Event({"id": str(n), "pad": "x" * size}, "text/plain", None, "") for n in range(count)]


async def test_files_are_rotated_and_the_oldest_goes(tmp_path: Path):
    path = tmp_path / "p.jsonl"
    sink = FileSink(path, max_bytes=1000, kept=2)
    for start in range(0, 100, 10):
        await sink.send(events(100, 80)[start : start + 10])
    await sink.close()
    files = held(tmp_path)
    assert [file.name for file in files] == ["p.jsonl.2", "p.jsonl.1", "p.jsonl"]
    assert all(file.stat().st_size <= 1000 for file in files)
    ids = [int(line["id"]) for file in files for line in lines(file)]
    assert ids == list(range(ids[0], 100)), "the newest, without a gap"
    assert len(ids) > 20


async def test_none_older_are_kept_if_none_are_wanted(tmp_path: Path):
    sink = FileSink(tmp_path / "p", max_bytes=220, kept=0)
    await sink.send(events(10, 80))
    await sink.close()
    assert [file.name for file in held(tmp_path)] == ["p"]
    assert [line["id"] for line in lines(tmp_path / "p")] == ["8", "9"]


async def test_a_line_longer_than_a_file_has_a_file_of_its_own(tmp_path: Path):
    sink = FileSink(tmp_path / "p", max_bytes=200, kept=9)
    for one in (*events(1), *events(1, 500), *events(1)):
        await sink.send([one])
    await sink.close()
    assert [len(lines(tmp_path / name)) for name in ("p.2", "p.1", "p")] == [1, 1, 1]


@pytest.mark.parametrize("left", [b"", b'{"id":', b'{"id":"' + b"x" * 200_000])
@pytest.mark.parametrize("before", [b"", b'{"id":"a"}\n{"id":"b"}\n'])
async def test_what_a_killed_process_left_of_a_line_is_taken_away(tmp_path: Path, before: bytes, left: bytes):
    path = tmp_path / "p"
    path.write_bytes(before + left)
    sink = FileSink(path)
    await sink.send(events(1))
    await sink.close()
    assert path.read_bytes().startswith(before)
    assert [line["id"] for line in lines(path)] == [*(["a", "b"] if before else []), "0"]


async def test_a_file_that_was_taken_away_is_made_anew(tmp_path: Path):
    sink = FileSink(tmp_path / "p")
    await sink.send(events(1))
    (tmp_path / "p").rename(tmp_path / "taken")
    await sink.send(events(2))
    await sink.close()
    assert [len(lines(tmp_path / name)) for name in ("taken", "p")] == [1, 2]


@contextmanager
def full_beyond(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size` bytes: writing ends as on a full disk, in the middle of a line.

    Python ignores the signal that comes with it.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_costs_events_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    path = tmp_path / "p.p-1.jsonl"
    log = logger(PayloadLog(percent=100, file=str(tmp_path / "p.jsonl")))

    async def offer(count: int) -> None:
        for _ in range(count):
            log.offer(exchange(b"x" * 1000))
        for _ in range(5000):
            if log.counters.offered == sum(log.counters.outcomes.values()):
                return
            await asyncio.sleep(0.002)
        pytest.fail(f"neither written nor given up: {log.counters.outcomes}")

    await offer(1)
    with full_beyond(path.stat().st_size + 500):
        await offer(2)
        await offer(2)
        assert [one["type"][-7:] for one in lines(path)] == ["request", "esponse"], "nothing torn"
    assert log.counters.outcomes["failed"] == 8
    await offer(1)
    await log.close(60)
    assert len(lines(path)) == 4
    assert log.counters.outcomes == {"sent": 4, "failed": 8, "dropped_queue": 0, "dropped_end": 0}
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert said == [f"payload log to {path}: File too large"]


async def test_a_folder_that_is_none_costs_events_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "file").write_text("")
    log = logger(PayloadLog(percent=100, file=str(tmp_path / "file/p.jsonl")))
    log.offer(exchange())
    await log.close(60)
    assert log.counters.outcomes["failed"] == 2
    assert caplog.messages == [f"payload log to {tmp_path}/file/p.p-1.jsonl: File exists"]


async def test_lines_that_a_batch_wrote_before_the_disk_was_full_count_as_sent(tmp_path: Path):
    sink = FileSink(tmp_path / "p", max_bytes=1500, kept=9)
    with full_beyond(1200), pytest.raises(Exception, match=r"File too large") as failed:
        # Three fit into a file; the first file takes them whole, and no other may be as long.
        await sink.send([*events(3, 330), *events(1, 1400), *events(1)])
    await sink.close()
    assert getattr(failed.value, "sent", None) == 3
    assert len(lines(tmp_path / "p.1")) == 3
    assert (tmp_path / "p").read_bytes() == b""


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

"""The payload log's files: whole lines in bounded room, whatever becomes of disk and process."""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.unit.test_payload_events import exchange
from tests.unit.test_payload_logger import balanced, lines, logger

from coalmine_sidecar.monitoring import PayloadLog
from coalmine_sidecar.payload.event import Event
from coalmine_sidecar.payload.file import FileSink, own_file


def held(folder: Path) -> list[Path]:
    """Its files, the oldest first."""
    return sorted(folder.iterdir(), reverse=True)


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

"""The payload log's Parquet files: whole ones in bounded room, whatever becomes of disk and process."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_payload_events import exchange
from tests.unit.test_payload_file import events, full_beyond
from tests.unit.test_payload_logger import balanced, logger

from coalmine_sidecar.monitoring import PayloadLog
from coalmine_sidecar.payload.event import ATTRIBUTES, Body, Exchange, Source, make_events, to_line, to_row
from coalmine_sidecar.payload.parquet import ParquetSink
from coalmine_sidecar.payload.redact import Redaction

SOURCE = Source(model="fraud", namespace="ml", deployment="fraud-md", pod="fraud-abc")


def rows(path: Path) -> list[dict[str, Any]]:
    return parquet.read_table(path).to_pylist()


def files(folder: Path) -> list[Path]:
    """All there is, hidden or not, the oldest first."""
    return sorted(folder.iterdir())


def stopped(seconds: float = 1_790_000_000.25) -> Callable[[], float]:
    return lambda: seconds


async def test_a_row_is_an_event(tmp_path: Path):
    log = logger(PayloadLog(percent=100, file=str(tmp_path / "new/payloads.parquet"), redact=("$.ssn",)))
    for number in range(100):
        log.offer(exchange(b'{"n": %d, "ssn": "s3cret"}' % number, b"not json" if number == 7 else b"[0.5]"))
    await log.close(60)
    (path,) = files(tmp_path / "new")
    assert path.match("payloads.p-1.????????T????????????Z.parquet")
    told = rows(path)
    assert [json.loads(one["data"])["n"] for one in told[::2]] == list(range(100))
    assert [one["id"] for one in told[::2]] == [one["id"] for one in told[1::2]]
    assert told[15]["data"] is None
    assert told[15]["omitted"] == "notjson"
    assert b"s3cret" not in b"".join(one["data"] or b"" for one in told)
    assert log.counters.outcomes["sent"] == 200
    assert balanced(log.counters)


async def test_every_file_has_the_same_columns(tmp_path: Path):
    sink = ParquetSink(tmp_path / "p.parquet")
    await sink.send(events(1))
    await sink.send(make_events(exchange(), SOURCE, Redaction(()), 1))
    schemas = [parquet.read_schema(path) for path in files(tmp_path)]
    assert [(field.name, str(field.type)) for field in schemas[0]] == [
        *((name, "string") for name in ATTRIBUTES), ("data", "binary"),
    ]  # fmt: skip
    assert schemas[0] == schemas[1]


BODIES = st.builds(
    Body,
    data=st.binary(max_size=60) | st.just(b'{"a": [1]}') | st.just(b"\x1f\x8b\x08"),
    content_type=st.text(max_size=20),
    json_length=st.none() | st.integers(0, 99),
    size=st.just(-1) | st.integers(60, 200),
)
EXCHANGES = st.builds(
    Exchange,
    id=st.text(max_size=20),
    revision=st.text(max_size=20),
    version=st.text(max_size=20),
    track=st.sampled_from(["stable", "canary", "retired"]),
    started=st.floats(0, 4e9),
    duration=st.floats(0, 1e4),
    path=st.text(max_size=20),
    status=st.integers(0, 599),
    request=BODIES,
    response=BODIES,
)


@given(EXCHANGES, st.booleans(), st.integers(0, 70))
def test_a_row_says_what_a_line_says(one: Exchange, redacts: bool, max_bytes: int):
    for event in make_events(one, SOURCE, Redaction(["$.a"] if redacts else []), max_bytes):
        line = json.loads(to_line(event))
        *cells, data = to_row(event)
        row = {name: cell.decode() for name, cell in zip(ATTRIBUTES, cells, strict=True) if cell is not None}
        assert row == {name: value for name, value in line.items() if not name.startswith("data_") and name != "data"}
        assert data == event.data


async def test_the_oldest_files_go(tmp_path: Path):
    path = tmp_path / "p.parquet"
    await ParquetSink(path).send(events(10))
    size = files(tmp_path)[0].stat().st_size
    sink = ParquetSink(path, max_bytes=3 * size + size // 2)
    for _ in range(5):
        await sink.send(events(10))
    held = files(tmp_path)
    assert len(held) == 3
    for _ in range(2):
        await ParquetSink(path, max_files=2).send(events(10))
    assert len(files(tmp_path)) == 2
    assert not {*files(tmp_path)} & {*held}, "the oldest go first"


async def test_a_file_longer_than_all_may_be_is_the_only_one(tmp_path: Path):
    sink = ParquetSink(tmp_path / "p.parquet", max_bytes=10)
    for number in (1, 2):
        await sink.send(events(number))
    (path,) = files(tmp_path)
    assert len(rows(path)) == 2


async def test_files_of_others_stay(tmp_path: Path):
    stamp = "20260921T131640250000Z"
    others = [
        tmp_path / name
        for name in (f"p.a.b.{stamp}.parquet", f"p.{stamp}.parquet", "p.a.parquet", f"p.a.{stamp}.parquet.bak")
    ]
    for path in others:
        path.write_bytes(b"")
    sink = ParquetSink(tmp_path / "p.a.parquet", max_files=1)
    for _ in range(2):
        await sink.send(events(1))
    assert {*others} < {*files(tmp_path)}
    assert len(files(tmp_path)) == 5


async def test_no_file_is_written_over(tmp_path: Path):
    """By a pod's next process, or by the same one in the same microsecond."""
    for count in (1, 2, 3):
        await ParquetSink(tmp_path / "p.parquet", clock=stopped()).send(events(count))
    assert [path.name for path in files(tmp_path)] == [
        f"p.20260921T14132025000{number}Z.parquet" for number in range(3)
    ]
    assert [len(rows(path)) for path in files(tmp_path)] == [1, 2, 3]


async def test_two_that_write_at_once_do_not_meet(tmp_path: Path):
    """A logger that is closing, and the next one of the same file."""
    sinks = [ParquetSink(tmp_path / "p.parquet") for _ in range(4)]
    await asyncio.gather(*(sink.send(events(50 + number)) for number, sink in enumerate(sinks)))
    assert sorted(len(rows(path)) for path in files(tmp_path)) == [50, 51, 52, 53]


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from coalmine_sidecar.payload import parquet
from coalmine_sidecar.payload.event import Event

class Killed(parquet.Table):
    def pieces(self):
        for number, piece in enumerate(super().pieces()):
            if number == int(sys.argv[2]):
                # What the file has been given is in it: nothing is left to a buffer.
                os.kill(os.getpid(), signal.SIGKILL)
            yield piece.ljust(65536, b"x")

parquet.Table = Killed
event = Event({"id": "0"}, "text/plain", b"x", "")
asyncio.run(parquet.ParquetSink(Path(sys.argv[1]), clock=lambda: 0).send([event]))
"""


@pytest.mark.parametrize("piece", [0, 1, 47])
async def test_no_reader_meets_what_a_killed_process_left(tmp_path: Path, piece: int):
    path = tmp_path / "p.parquet"
    arguments = (sys.executable, "-c", KILLED, str(path), str(piece))
    ended = await asyncio.to_thread(subprocess.run, arguments, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [file.name for file in files(tmp_path)] == [".p.parquet.unfinished"]
    await ParquetSink(path).send(events(2))
    (whole,) = files(tmp_path)
    assert len(rows(whole)) == 2


async def test_a_full_disk_costs_events_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    log = logger(PayloadLog(percent=100, file=str(tmp_path / "p.parquet")))
    log.offer(exchange(b"x" * 1000))
    with full_beyond(500):
        await log.close(60)
    assert files(tmp_path) == []
    assert log.counters.outcomes == {"sent": 0, "failed": 2, "dropped_queue": 0, "dropped_end": 0}
    assert caplog.messages == [f"payload log to {tmp_path}/p.p-1.*.parquet: File too large"]
    sink = ParquetSink(tmp_path / "p.parquet")
    with full_beyond(500), pytest.raises(Exception, match="File too large"):
        await sink.send(events(3))
    await sink.send(events(2))
    (path,) = files(tmp_path)
    assert len(rows(path)) == 2


async def test_a_folder_that_is_none_costs_events_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "file").write_text("")
    log = logger(PayloadLog(percent=100, file=str(tmp_path / "file/p.parquet")))
    log.offer(exchange())
    await log.close(60)
    assert log.counters.outcomes["failed"] == 2
    assert caplog.messages == [f"payload log to {tmp_path}/file/p.p-1.*.parquet: File exists"]

"""Recordings as they lie in folders: rotated, of many pods, in JSON lines and in Parquet, ours and others'."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from tests.local.running import said
from tests.unit.baseline_rows import as_parquet
from tests.unit.recordings import IDENTITY, built, events, lines, recorded, v1

from coalmine_operator.api.baseline import Baseline
from coalmine_operator.cli.baseline_open import files_of, open_source
from coalmine_operator.cli.baseline_recording import RecordingSource
from coalmine_operator.cli.baseline_source import Named, Source
from coalmine_sidecar.payload.event import ATTRIBUTES, RESPONSE, Event, to_row
from coalmine_sidecar.payload.file import FileSink
from coalmine_sidecar.payload.parquet import ParquetSink

VERSION = Named(version="v3")


def of(numbers: Iterable[int]) -> list[Event]:
    return [event for i in numbers for event in events(i, *v1(i))]


def amounts(source: Source) -> list[Any]:
    return [value for batch, _ in source.batches(["amount"]) for value in batch["amount"] if value is not None]


def counted(made: Baseline) -> Any:
    return made.rows, made.features, made.outputs


async def test_a_folder_of_a_pod_that_rotated_its_files(tmp_path: Path) -> None:
    """They are read in the order in which they were written, or requests would wait for answers that were before."""
    sink = FileSink(tmp_path / "log.p.jsonl", max_bytes=4000)
    for event in of(range(20)):
        await sink.send([event])
    await sink.close()
    names = [path.name for path in files_of([tmp_path], but=tmp_path / "made.json")]
    assert names == ["log.p.jsonl.3", "log.p.jsonl.2", "log.p.jsonl.1", "log.p.jsonl"]
    source = open_source(files_of([tmp_path], but=tmp_path / "made.json"), VERSION)
    kept = amounts(source)
    assert kept == sorted(kept)
    assert kept[-1] == 19
    assert source.notes() == []


def test_what_is_no_recording_in_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Hidden files, empty ones, folders, and what was made of it before."""
    recorded(tmp_path / "log.p.jsonl", (lines(i, *v1(i)) for i in range(30)))
    (tmp_path / ".log.p.parquet.unfinished").write_bytes(b"PAR1")
    (tmp_path / "log.q.jsonl").touch()
    (tmp_path / "lost+found").mkdir()
    for _ in range(2):
        made, _ = built(capsys, tmp_path / "made.json", tmp_path)
        assert made.rows == 60
    assert made.source == tmp_path.name
    (tmp_path / "note.txt").write_text("a\n1\n")
    code, out, err = said(capsys, "baseline", "build", str(tmp_path), "-o", str(tmp_path / "made.json"), *IDENTITY)
    assert (code, out) == (2, "")
    assert err == f"{tmp_path / 'log.p.jsonl'} is a recording; {tmp_path / 'note.txt'} is CSV: give one kind\n"


async def test_parquet_of_the_sidecar_is_the_same_as_its_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where an exchange is torn in two by the end of a file, and beside lines of other pods."""
    folder = tmp_path / "logs"
    folder.mkdir()
    sink = ParquetSink(folder / "log.p.parquet")
    everything = of(range(50))
    for part in (everything[:31], everything[31:70], everything[70:]):
        await sink.send(part)
    whole = recorded(tmp_path / "whole.jsonl", (lines(i, *v1(i)) for i in range(50)))
    assert len(list(folder.iterdir())) == 3
    expected, _ = built(capsys, tmp_path / "made.json", whole)
    found, _ = built(capsys, tmp_path / "made.json", folder)
    assert counted(found) == counted(expected)
    recorded(folder / "log.q.jsonl", (lines(i, *v1(i)) for i in range(50, 60)))
    assert built(capsys, tmp_path / "made.json", folder)[0].rows == 120


def kserves(number: int) -> list[dict[str, Any]]:
    """Rows of another writer of KServe's events: few attributes, and text for data."""
    written = zip(("request", "response"), v1(number), strict=True)
    return [
        {"id": str(number), "type": f"org.kubeflow.serving.inference.{kind}", "data": json.dumps(document)}
        for kind, document in written
    ]


def test_parquet_of_others(tmp_path: Path) -> None:
    rows = [row for i in range(20) for row in kserves(i)]
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "log.parquet")
    assert amounts(open_source([tmp_path / "log.parquet"], VERSION)) == list(range(20))


def test_the_same_attributes_make_the_same_event(tmp_path: Path) -> None:
    """Truncated, of another version and failed ones are counted alike, whatever the file."""
    parts = [
        events(0, *v1(0)),
        events(1, *v1(1), max_bytes=10),
        events(2, *v1(2), version="v2"),
        events(3, *v1(3), status=503),
        events(4, *v1(4), id=""),
    ]
    rows = [dict(zip((*ATTRIBUTES, "data"), to_row(event), strict=True)) for part in parts for event in part]
    texts = [
        {name: value.decode() if value and name != "data" else value for name, value in row.items()} for row in rows
    ]
    parquet.write_table(arrow.Table.from_pylist(texts), tmp_path / "log.parquet")
    whole = recorded(
        tmp_path / "log.jsonl",
        [lines(0, *v1(0)), lines(1, *v1(1), max_bytes=10), lines(2, *v1(2), version="v2"),
         lines(3, *v1(3), status=503), lines(4, *v1(4), id="")],
    )  # fmt: skip
    found = [RecordingSource([path], VERSION) for path in (tmp_path / "log.parquet", whole)]
    assert amounts(found[0]) == amounts(found[1]) == [0]
    assert found[0].notes() == found[1].notes()
    assert len(found[0].notes()) == 4


def test_rows_that_only_look_like_events(tmp_path: Path) -> None:
    columns = {"id": [1, 2], "type": ["a", RESPONSE], "data": ["x", "y"], "score": [0.5, 0.25]}
    source = open_source([as_parquet(tmp_path / "rows.pq", columns)], VERSION)
    assert list(source.columns) == list(columns)


def test_a_file_that_goes_away_is_named(tmp_path: Path) -> None:
    whole = recorded(tmp_path / "log.jsonl", [lines(0, *v1(0))])
    source = open_source([whole], VERSION)
    whole.unlink()
    with pytest.raises(Exception, match=r"log\.jsonl: cannot be read: No such file or directory"):
        list(source.batches(["amount"]))

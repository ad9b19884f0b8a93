"""A baseline from live traffic: the payload log's own events, joined."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.local.running import said
from tests.unit.recordings import IDENTITY, built, lines, recorded, v1

from coalmine_operator.api.baseline import Categorical, Numeric
from coalmine_operator.cli.baseline_recording import RecordingSource
from coalmine_operator.cli.baseline_source import Named


def test_requests_and_answers_become_features_and_outputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recorded(tmp_path / "log.jsonl", (lines(i, *v1(i)) for i in range(900)))
    made, told = built(capsys, tmp_path / "made.json", path)
    amount, kind, answered = made.features["amount"], made.features["kind"], made.outputs["predictions"]
    assert made.rows == 1800
    assert isinstance(amount, Numeric)
    assert (sum(amount.counts), amount.missing, amount.mean) == (900, 900, 44.5)
    assert isinstance(kind, Categorical)
    assert dict(zip(kind.categories, kind.counts, strict=True)) == {"shop": 450, "web": 1350}
    assert isinstance(answered, Numeric)
    assert sum(answered.counts) == 1800
    assert made.performance is None
    assert "performance: none without a label and a prediction" in told


def test_answers_may_come_long_after_their_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [lines(i, *v1(i)) for i in range(50)]
    path = tmp_path / "log.jsonl"
    # Some sinks write the answer first.
    path.write_bytes(b"".join([*(answer for _, answer in pairs[:20]), *(request for request, _ in pairs)]))
    with path.open("ab") as opened:
        opened.writelines(answer for _, answer in pairs[20:])
    made, _ = built(capsys, tmp_path / "made.json", path)
    assert made.rows == 100


def test_what_is_no_whole_exchange_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lost, _ = lines(1, *v1(1))
    other = json.dumps({"specversion": "1.0", "id": "x", "type": "some.other", "source": "/"}).encode() + b"\n"
    path = recorded(
        tmp_path / "log.jsonl",
        [
            *(lines(i, *v1(i)) for i in (0, 8, 9)),
            (lost, other),
            lines(2, *v1(2), status=500),
            lines(3, *v1(3), version="v2"),
            lines(4, {"instances": [{"amount": 1.0}]}, {"predictions": [0.1, 0.2]}),
            lines(5, b"no JSON", {"predictions": [0.1]}),
            lines(6, *v1(6), max_bytes=10),
            (b"\n", lines(7, *v1(7))[0][:40]),
        ],
    )
    made, told = built(capsys, tmp_path / "made.json", path)
    assert made.rows == 6
    assert {line.removeprefix(f"{path}: ") for line in told if line.startswith(f"{path}: ")} == {
        "1 answers with another status than 200",
        "1 events of another type",
        "1 events without the other half of their exchange",
        "1 exchanges with a body that is truncated",
        "1 requests not read: not json",
        "1 exchanges whose columns have different numbers of rows",
        "1 lines cut off at the end",
        "2 events of version 'v2'",
    }


def test_a_recording_of_another_version_is_no_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recorded(tmp_path / "log.jsonl", [lines(i, *v1(i), version="v2") for i in range(3)])
    options = ("-o", str(tmp_path / "never.json"), *IDENTITY)
    code, out, err = said(capsys, "baseline", "build", str(path), *options)
    assert (code, out) == (2, "")
    assert err == f"{path}: has no request with its answer: 6 events of version 'v2'\n"


def test_a_broken_line_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recorded(tmp_path / "log.jsonl", [lines(0, *v1(0)), (b'{"id": 7}\n', b"")])
    options = ("-o", str(tmp_path / "never.json"), *IDENTITY)
    code, _, err = said(capsys, "baseline", "build", str(path), *options)
    assert code == 2
    assert err.startswith(f"{path}:3: is no CloudEvent in JSON: ")


@pytest.mark.parametrize(("limit", "most"), [("_MOST_WAITING", 5), ("_MOST_BYTES", 5 * len(json.dumps(v1(1)[0])))])
def test_requests_that_wait_are_bounded(limit: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"coalmine_operator.cli.baseline_recording.{limit}", most)
    pairs = [lines(i, *v1(i)) for i in range(20)]
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"".join([*(request for request, _ in pairs), *(answer for _, answer in pairs[:17:-1])]))
    source = RecordingSource([path], Named(version="v3"))
    (found,) = [batch for batch, _ in source.batches(["amount"])]
    assert len(found["amount"]) == 4
    assert source.notes() == ["18 events without the other half of their exchange"]


def test_files_of_many_pods_are_read_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And an exchange may be torn in two by a file's rotation."""
    pairs = [lines(i, *v1(i)) for i in range(40)]
    all_lines = [line for pair in pairs for line in pair]
    parts = []
    for i, part in enumerate((all_lines[:31], all_lines[31:60], all_lines[60:])):
        parts.append(tmp_path / f"log.pod-{i}.jsonl")
        parts[-1].write_bytes(b"".join(part))
    made, _ = built(capsys, tmp_path / "made.json", *parts)
    assert made.rows == 80
    assert made.source == "log.pod-0.jsonl and 2 more"


def test_a_column_that_is_asked_and_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [lines(i, {"instances": [{"x": i}]}, {"predictions": [{"x": -i, "y": "a"}]}) for i in range(30)]
    made, _ = built(capsys, tmp_path / "made.json", recorded(tmp_path / "log.jsonl", pairs))
    assert list(made.features) == ["x"]
    assert list(made.outputs) == ["x", "y"]

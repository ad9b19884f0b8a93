"""A baseline from live traffic: the payload log's own lines, joined and read as the sidecar reads requests."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from tests.local.running import said

from coalmine_operator.api.baseline import Baseline, Categorical, Numeric, decode_baseline
from coalmine_operator.cli.baseline_recording import RecordingSource, UnreadableError, read_answer, read_request
from coalmine_sidecar.payload.event import Body, Exchange, Source, make_events, to_line
from coalmine_sidecar.payload.redact import Redaction
from coalmine_sidecar.protocols.inputs import read_request as sidecars_reading
from coalmine_sidecar.protocols.wanted import Wanted

POD = Source(model="fraud", namespace="default", deployment="fraud", pod="fraud-0")


def lines(
    number: int, request: Any, answer: Any, *, status: int = 200, version: str = "v3", max_bytes: int = 65536
) -> tuple[bytes, bytes]:
    """A request and its answer as the payload log writes them."""
    exchange = Exchange(
        id=f"id-{number}",
        revision="fraud-1",
        version=version,
        track="stable",
        started=1_795_300_000.0 + number,
        duration=0.02,
        path="/v1/models/fraud:predict",
        status=status,
        request=Body(data=json.dumps(request).encode(), content_type="application/json"),
        response=Body(data=json.dumps(answer).encode(), content_type="application/json"),
    )
    one, other = make_events(exchange, POD, Redaction(()), max_bytes)
    return to_line(one), to_line(other)


def v1(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    row = {"amount": float(number % 90), "kind": ["web", "shop"][number % 2]}
    return {"instances": [row, {"amount": None, "kind": "web"}]}, {"predictions": [number % 100 / 100, 0.5]}


def recorded(path: Path, parts: Iterable[tuple[bytes, bytes]]) -> Path:
    path.write_bytes(b"".join(line for pair in parts for line in pair))
    return path


def built(capsys: pytest.CaptureFixture[str], *paths: Path) -> tuple[Baseline, list[str]]:
    target = paths[0].with_suffix(".json")
    identity = ("--model", "fraud", "--version", "v3")
    code, out, err = said(capsys, "baseline", "build", *map(str, paths), "-o", str(target), *identity)
    assert (code, err) == (0, "")
    return decode_baseline(target.read_bytes()), out.splitlines()


def test_requests_and_answers_become_features_and_outputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recorded(tmp_path / "log.jsonl", (lines(i, *v1(i)) for i in range(900)))
    made, told = built(capsys, path)
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
    made, _ = built(capsys, path)
    assert made.rows == 100


def test_what_is_no_whole_exchange_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lost, _ = lines(1, *v1(1))
    other = json.dumps({"specversion": "1.0", "id": "x", "type": "some.other", "source": "/"}).encode() + b"\n"
    path = recorded(
        tmp_path / "log.jsonl",
        [
            lines(0, *v1(0)),
            (lost, other),
            lines(2, *v1(2), status=500),
            lines(3, *v1(3), version="v2"),
            lines(4, {"instances": [{"amount": 1.0}]}, {"predictions": [0.1, 0.2]}),
            lines(5, {"question": 1}, {"predictions": [0.1]}),
            lines(6, *v1(6), max_bytes=10),
            (b"\n", lines(7, *v1(7))[0][:40]),
        ],
    )
    made, told = built(capsys, path)
    assert made.rows == 2
    assert {line.removeprefix(f"{path}: ") for line in told if line.startswith(f"{path}: ")} == {
        "1 answers with another status than 200",
        "1 events of another type",
        "1 events without the other half of their exchange",
        "1 exchanges not read: neither inputs, instances nor a dataframe in the request",
        "1 exchanges not read: no JSON object",
        "1 exchanges whose columns have different numbers of rows",
        "1 lines cut off at the end",
        "2 events of version 'v2'",
    }


def test_a_recording_of_another_version_is_no_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recorded(tmp_path / "log.jsonl", [lines(i, *v1(i), version="v2") for i in range(3)])
    options = ("-o", str(tmp_path / "never.json"), "--model", "fraud", "--version", "v3")
    code, out, err = said(capsys, "baseline", "build", str(path), *options)
    assert (code, out) == (2, "")
    assert err == f"{path}: has no request with its answer: 6 events of version 'v2'\n"


def test_a_broken_line_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recorded(tmp_path / "log.jsonl", [lines(0, *v1(0)), (b'{"id": 7}\n', b"")])
    options = ("-o", str(tmp_path / "never.json"), "--model", "fraud", "--version", "v3")
    code, _, err = said(capsys, "baseline", "build", str(path), *options)
    assert code == 2
    assert err.startswith(f"{path}:3: is no CloudEvent in JSON: ")


@pytest.mark.parametrize(("limit", "most"), [("_MOST_WAITING", 5), ("_MOST_BYTES", 5 * len(json.dumps(v1(1)[0])))])
def test_requests_that_wait_are_bounded(limit: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"coalmine_operator.cli.baseline_recording.{limit}", most)
    pairs = [lines(i, *v1(i)) for i in range(20)]
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"".join([*(request for request, _ in pairs), *(answer for _, answer in pairs[:17:-1])]))
    source = RecordingSource([path], version="v3")
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
    made, _ = built(capsys, *parts)
    assert made.rows == 80
    assert made.source == "log.pod-0.jsonl and 2 more"


def test_a_column_that_is_asked_and_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [lines(i, {"instances": [{"x": i}]}, {"predictions": [{"x": -i, "y": "a"}]}) for i in range(30)]
    made, _ = built(capsys, recorded(tmp_path / "log.jsonl", pairs))
    assert list(made.features) == ["x"]
    assert list(made.outputs) == ["answer.x", "y"]


REQUESTS: list[Any] = [
    {"instances": [{"a": 1, "b": "x"}, {"a": 2.5}]},
    {"instances": [[1, 2.5, "x"], [3, 4, None]]},
    {"instances": [0.5, 0.7]},
    {"instances": [[0.5], [0.7]]},
    {"instances": [{"a": [1, 2]}, {"a": [3, 4]}]},
    {"inputs": {"a": [1, 2, 3], "b": ["x", "y", "z"]}},
    {"inputs": [[1, 2], [3, 4]]},
    {"dataframe_split": {"columns": ["a", "b"], "data": [[1, "x"], [2, "y"]]}},
    {"dataframe_records": [{"a": 1}, {"a": 2}]},
    {"inputs": [{"name": "a", "shape": [2], "datatype": "FP64", "data": [1.0, 2.0]}]},
    {"inputs": [{"name": "a", "shape": [2, 1], "datatype": "FP64", "data": [[1.0], [2.0]]}]},
    {"inputs": [{"name": "a", "shape": [2, 3], "datatype": "INT64", "data": [1, 2, 3, 4, 5, 6]}]},
    {
        "inputs": [
            {"name": "a", "shape": [2], "datatype": "BYTES", "data": ["x", "y"]},
            {"name": "b", "shape": [2], "datatype": "BOOL", "data": [True, False]},
        ]
    },
]


@pytest.mark.parametrize("document", REQUESTS, ids=range(len(REQUESTS)))
def test_columns_are_those_that_the_sidecar_finds(document: Any) -> None:
    """By the same names the same values: else live rows would be held against another column's bins."""
    ours = read_request(document)
    body = json.dumps(document).encode()
    theirs = sidecars_reading("auto", b"/x", b"application/json", None, body, Wanted([(name, "") for name in ours]))
    paths = Wanted([(name, name) for name in ours])
    by_path = sidecars_reading("auto", b"/x", b"application/json", None, body, paths)
    assert ours
    assert {name: list(values) for name, values in (by_path.columns | theirs.columns).items()} == ours


@pytest.mark.parametrize(
    ("answer", "columns"),
    [
        ({"predictions": [0.1, 0.9]}, {"predictions": [0.1, 0.9]}),
        ({"predictions": [[0.1, 0.9], [0.4, 0.6]]}, {"predictions.0": [0.1, 0.4], "predictions.1": [0.9, 0.6]}),
        ({"predictions": [{"score": 0.1, "label": "a"}]}, {"score": [0.1], "label": ["a"]}),
        ({"outputs": {"score": [0.1, 0.2]}}, {"score": [0.1, 0.2]}),
        ({"outputs": [{"name": "p", "shape": [2, 1], "datatype": "FP32", "data": [0.5, 1]}]}, {"p": [0.5, 1]}),
    ],
)
def test_answers(answer: Any, columns: dict[str, Any]) -> None:
    assert read_answer(answer) == columns


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"instances": [[1, 2], [3]]},
        {"instances": [{"a": [1]}, {"a": [1, 2]}]},
        {"dataframe_split": {"columns": ["a"], "data": [1]}},
        {"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}},
        {"inputs": [{"name": "a", "shape": [3], "datatype": "FP64", "data": [1, 2]}]},
        {"inputs": [{"name": "a", "shape": [-1], "datatype": "FP64", "data": [1, 2]}]},
        {"inputs": [{"name": "a", "shape": ["x"], "datatype": "FP64", "data": [1, 2]}]},
        {"inputs": [{"name": "a", "shape": [2], "datatype": "FP64"}, 7]},
    ],
)
def test_bodies_of_another_shape_are_refused(document: Any) -> None:
    with pytest.raises(UnreadableError):
        read_request(document)

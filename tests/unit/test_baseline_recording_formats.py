"""Recordings in every wire format that the sidecar reads: by which names what is in them comes into a baseline."""

from __future__ import annotations

import gzip
import json
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.relay.grpc_model import INFER, field, infer_response, tensor
from tests.unit.recordings import body, built, lines, recorded
from tests.unit.test_protocols_answers import FORMATS
from tests.unit.test_protocols_inputs import ONE_ROW, POSITIONS, ROWS, TWO_ROWS

from coalmine_operator.cli.baseline_events import Event, Events
from coalmine_operator.cli.baseline_open import open_source
from coalmine_operator.cli.baseline_source import Named, Source
from coalmine_operator.cli.errors import CliError
from coalmine_sidecar.payload.event import Body
from coalmine_sidecar.protocols.inputs import read_request
from coalmine_sidecar.protocols.outputs import MAX_ROWS
from coalmine_sidecar.protocols.wanted import Wanted
from coalmine_sidecar.recorded import MAX_COLUMNS

NAMES = ["age", "city", "x[0]", "x[1]"]
TWO = {"age": [39, 22], "city": ["Oslo", "Rom"], "x[0]": [1.5, 3.5], "x[1]": [2.5, 4.5]}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


def opened(log: Path, request: Any, answer: Any, named: Named | None = None, **more: Any) -> Source:
    return open_source([recorded(log, [lines(0, request, answer, **more)])], named or Named(version="v3"))


def rows(source: Source) -> dict[str, list[Any]]:
    """All columns; where they are the sidecar's features, also by their paths from the request as it was recorded."""
    (batch,) = [batch for batch, _ in source.batches(source.columns)]
    return {name: list(values) for name, values in batch.items()}


def features(source: Source) -> list[str]:
    return [name for name in source.columns if name not in source.outputs.values()]


def as_sent(document: Any) -> Body:
    return body(document, "application/jsonlines" if isinstance(document, bytes) else "application/json")


def live(request: Body, path: str, names: list[str], *, by_path: bool) -> dict[str, list[Any]]:
    """What a sidecar reads of a request, with features of these names, or of these paths."""
    wanted = Wanted((name, name if by_path else "") for name in names)
    asked = read_request(
        "auto", path.encode(), request.content_type.encode(), request.json_length, request.data, wanted
    )
    return {name: list(values) for name, values in asked.columns.items()}


def check(source: Source, request: Body, path: str) -> dict[str, list[Any]]:
    """All rows; features have the names by which the sidecar finds the same values."""
    found, names = rows(source), features(source)
    own = {name: found[name] for name in names}
    assert names
    assert live(request, path, names, by_path=False) == live(request, path, names, by_path=True) == own
    return found


@pytest.mark.parametrize(("document", "route"), TWO_ROWS)
def test_two_rows_in_each_format(document: Any, route: bytes, log: Path) -> None:
    request = as_sent(document)
    source = opened(log, request, {"predictions": [0.25, 0.5]}, path=route.decode())
    assert sorted(features(source)) == NAMES
    assert check(source, request, route.decode()) == TWO | {"predictions": [0.25, 0.5]}


@pytest.mark.parametrize(("document", "route"), ONE_ROW)
def test_one_row(document: Any, route: bytes, log: Path) -> None:
    request = as_sent(document)
    source = opened(log, request, {"predictions": [0.25]}, path=route.decode())
    found = check(source, request, route.decode())
    assert {name: found[name] for name in features(source)} == {name: values[:1] for name, values in TWO.items()}


@pytest.mark.parametrize("document", POSITIONS)
def test_rows_without_names(document: Any, log: Path) -> None:
    """Their columns are called by what the rows are, or by their positions alone where they are nothing."""
    request = body(document)
    found = check(opened(log, request, [0.25, 0.5], path="/predict"), request, "/predict")
    assert sorted(found.values()) == [[0.25, 0.5], [1, 5], [2, 6], [3, 7], [4.5, 8.5]]


@pytest.mark.parametrize(("document", "route", "count", "columns"), FORMATS)
def test_answers(document: Any, route: bytes, count: int, columns: dict[str, Any], log: Path) -> None:
    kind = "application/jsonlines" if isinstance(document, bytes) else "application/json"
    request = {"instances": [{"a": i} for i in range(count)]}
    source = opened(log, request, body(document, kind), path=route.decode())
    assert rows(source) == columns | {"a": list(range(count))}
    assert {name: name for name in columns} == source.outputs


class TestCsv:
    def test_with_a_header(self, log: Path) -> None:
        request = body(b"age,city\n39,Oslo\n22,Rom\n", "text/csv")
        source = opened(log, request, body(b"0.25\n0.5\n", "text/csv"), path="/invocations")
        assert check(source, request, "/invocations") == {
            "age": [39, 22], "city": ["Oslo", "Rom"], "output": [0.25, 0.5],
        }  # fmt: skip

    @pytest.mark.parametrize("text", [b"39,1.5,2\n22,2.5,3\n", b",1.5,2\n22,,3\n"])
    def test_without_one(self, text: bytes, log: Path) -> None:
        request = body(text, "text/csv")
        source = opened(log, request, body(b"0.25\n0.5\n", "text/csv"), path="/invocations")
        assert features(source) == ["[0]", "[1]", "[2]"]
        assert check(source, request, "/invocations")["[2]"] == [2, 3]

    def test_a_line_that_is_json_as_well(self, log: Path) -> None:
        """The payload log has what can be JSON as JSON."""
        source = opened(log, body(b"7", "text/csv"), body(b"0.25", "text/csv"), path="/invocations")
        assert rows(source) == {"[0]": [7], "output": [0.25]}

    def test_as_text_in_json(self, log: Path) -> None:
        """So others than us write it."""
        request, answer = (json.loads(line) for line in lines(0, [7], [0.25], path="/invocations"))
        for event, text in ((request, "a,b\n1,2\n"), (answer, "0.25\n")):
            event |= {"data": text, "datacontenttype": "text/csv"}
        log.write_text(f"{json.dumps(request)}\n{json.dumps(answer)}\n")
        assert rows(open_source([log], Named(version="v3"))) == {"a": [1], "b": [2], "output": [0.25]}


class TestTensors:
    ROUTE = "/v2/models/m/infer"
    ANSWER = {"outputs": [{"name": "p", "shape": [2], "datatype": "FP32", "data": [0.25, 0.5]}]}  # noqa: RUF012 - read, never written

    def test_binary(self, log: Path) -> None:
        blocks = [struct.pack("<2q", 39, 22), struct.pack("<4f", 1.5, 2.5, 3.5, 4.5)]
        head = json.dumps(
            {
                "inputs": [
                    {"name": "age", "shape": [2], "datatype": "INT64", "parameters": {"binary_data_size": 16}},
                    {"name": "city", "shape": [2, 1], "datatype": "BYTES", "data": ["Oslo", "Rom"]},
                    {"name": "x", "shape": [2, 2], "datatype": "FP32", "parameters": {"binary_data_size": 16}},
                ]
            }
        ).encode()
        request = body(head + b"".join(blocks), "application/octet-stream", len(head))
        block = struct.pack("<2f", 0.25, 0.5)
        head = b'{"outputs":[{"name":"p","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":8}}]}'
        source = opened(log, request, body(head + block, "application/octet-stream", len(head)), path=self.ROUTE)
        assert check(source, request, self.ROUTE) == TWO | {"p": [0.25, 0.5]}

    def test_json_that_the_log_put_on_one_line(self, log: Path) -> None:
        """The length that it said of itself is not its length any more."""
        document = {"inputs": [{"name": "age", "shape": [2], "datatype": "INT64", "data": [39, 22]}]}
        text = json.dumps(document, indent=2).encode()
        source = opened(log, body(text, json_length=len(text)), self.ANSWER, path=self.ROUTE)
        assert rows(source) == {"age": [39, 22], "p": [0.25, 0.5]}

    def test_grpc(self, log: Path) -> None:
        raw = (struct.pack("<2q", 39, 22), b"\4\0\0\0Oslo\3\0\0\0Rom", struct.pack("<4f", 1.5, 2.5, 3.5, 4.5))
        tensors = [tensor("age", "INT64", [2]), tensor("city", "BYTES", [2]), tensor("x", "FP32", [2, 2])]
        message = field(1, b"m") + b"".join(field(5, one) for one in tensors) + b"".join(field(7, one) for one in raw)
        answer = infer_response(tensor("p", "FP32", [2]), raw=(struct.pack("<2f", 0.25, 0.5),))
        request, response = (
            body(b"\0" + len(one).to_bytes(4, "big") + one, "application/grpc") for one in (message, answer)
        )
        source = opened(log, request, response, path=INFER)
        assert check(source, request, INFER) == TWO | {"p": [0.25, 0.5]}

    @pytest.mark.parametrize(("count", "expected"), [(1, {"x[0]": [5.0], "x[1]": [6.0]}), (2, {"x": [5.0, 6.0]})])
    def test_one_dimension_is_a_row_where_the_answer_has_one(
        self, count: int, expected: dict[str, Any], log: Path
    ) -> None:
        request = body({"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [5.0, 6.0]}]})
        source = opened(log, request, {"predictions": [0.25] * count}, path="/score")
        found = check(source, request, "/score")
        assert {name: found[name] for name in features(source)} == expected


class TestLanguageModels:
    ROUTE = "/openai/v1/chat/completions"
    REQUEST = {"model": "m", "temperature": 0.5, "messages": [{"role": "user", "content": "12345"}]}  # noqa: RUF012 - read, never written

    def test_whole(self, log: Path) -> None:
        answer = {
            "choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}],
            "usage": {"completion_tokens": 3},
        }
        request = body(self.REQUEST)
        found = check(opened(log, request, answer, path=self.ROUTE), request, self.ROUTE)
        assert found["prompt_chars"] == [5]
        assert found["messages"] == [1]
        assert found["temperature"] == [0.5]
        assert (found["finish_reason"], found["output_tokens"]) == (["stop"], [3.0])

    def test_streamed(self, log: Path) -> None:
        chunks = [
            {"choices": [{"index": 0, "delta": {"content": "y"}}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}], "usage": {"completion_tokens": 7}},
        ]
        stream = b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks) + b"data: [DONE]\n\n"
        answer = body(stream, "text/event-stream; charset=utf-8")
        found = rows(opened(log, self.REQUEST, answer, path=self.ROUTE))
        assert (found["finish_reason"], found["output_tokens"]) == (["length"], [7.0])


class TestPaths:
    REQUEST = {"model": "m7", "customers": [{"age": 39, "home": {"zip": "a"}}, {"age": 22, "home": {"zip": "b"}}]}  # noqa: RUF012 - read, never written
    ANSWER = {"results": [{"p": 0.25, "deep": {"q": 0.75}}, {"p": 0.5, "deep": {"q": 0.5}}]}  # noqa: RUF012 - read, never written

    def test_of_requests_and_answers(self, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        recorded(log, [lines(i, self.REQUEST, self.ANSWER, path="/predict") for i in range(50)])
        made, _ = built(
            capsys, tmp_path / "made.json", log, "--feature", "zip=$.customers[*].home.zip",
            "--feature", "$.customers[*].age:numeric", "--feature", "model=$.model",
            "--score", "$.results[*].deep.q", "--as", "risk=$.results[*].deep.q", "--label", "$.customers[*].home.zip",
            "--positive", "a",
        )  # fmt: skip
        assert list(made.features) == ["zip", "$.customers[*].age", "model"]
        assert made.features["zip"].counts == (50, 50)
        assert list(made.outputs) == ["p", "risk"]
        assert made.performance
        assert made.performance.metrics["auc"].value == 1

    def test_columns_by_their_paths(self, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Also of wide ones, which are not read unless they are asked for; outputs are called as live."""
        request = {"instances": [{"a": [0.5] * 7 + [i, 1 - i]} for i in (0, 1)]}
        answer = {"predictions": [[i, 0.0] + [0.5] * 20 for i in (0.25, 0.75)]}
        recorded(log, [lines(i, request, answer) for i in range(50)])
        made, _ = built(
            capsys, tmp_path / "made.json", log, "--feature", "last=a[8]", "--feature", "a[7]",
            "--score", "predictions[0]",
        )  # fmt: skip
        assert list(made.features) == ["last", "a[7]"]
        assert list(made.outputs) == ["predictions.0"]

    def test_a_wrong_one(self, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        recorded(log, [lines(0, self.REQUEST, self.ANSWER)])
        with pytest.raises(CliError, match=r"path '\$\.\.a': no name after the dot at character 2"):
            open_source([log], Named(version="v3", features=("age=$..a",)))


def test_what_stands_beside_the_rows_is_no_feature_unless_asked_for(log: Path) -> None:
    request = {"signature_name": "serving_default", "instances": ROWS}
    assert features(opened(log, request, {"predictions": [1.5, 2.5]})) == NAMES
    asked = Named(version="v3", features=("signature_name",))
    assert rows(opened(log, request, {"predictions": [1.5, 2.5]}, asked))["signature_name"] == ["serving_default"] * 2


def test_requests_that_nobody_reads_leave_the_outputs(log: Path) -> None:
    pairs = [lines(i, body(b"\x89PNG", "image/png"), {"predictions": [i / 9]}, path="/predictions/x") for i in range(9)]
    source = open_source([recorded(log, pairs)], Named(version="v3"))
    assert rows(source) == {"predictions": [i / 9 for i in range(9)]}
    assert source.notes() == ["9 requests not read: unknown protocol"]


def test_compressed_bodies(log: Path) -> None:
    request = body(gzip.compress(json.dumps({"instances": ROWS}).encode()))
    source = opened(log, request, body(gzip.compress(b'{"predictions": [1, 2]}')))
    assert rows(source) == TWO | {"predictions": [1, 2]}


def test_compressed_bodies_are_bounded(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coalmine_operator.cli.baseline_events._MOST_UNZIPPED", 100)
    pairs = [
        *(lines(i, {"instances": [1]}, {"predictions": [1]}) for i in range(2)),
        lines(2, body(gzip.compress(b" " * 101)), {"predictions": [1]}),
        lines(3, body(gzip.compress(b"{}")[:-9]), {"predictions": [1]}),
    ]
    source = open_source([recorded(log, pairs)], Named(version="v3"))
    assert rows(source)["instances"] == [1, 1]
    assert source.notes() == ["2 exchanges with a body that is compressed in a way that is not read"]


def test_an_event_is_read_back_as_it_was(log: Path) -> None:
    """Byte for byte, but for white space in JSON that had line breaks."""
    request, answer = body(b"\0\1\xff", "application/x", 2), body(b'{"a":1.50}')
    recorded(log, [lines(0, request, answer, path="/x?token=1", status=201)])
    common: dict[str, Any] = {"id": "id-0", "version": "v3", "path": b"/x", "lost": ""}
    assert [event for event, _ in Events([log], Counter())] == [
        Event(asks=True, status="200", content_type=b"application/x", json_length=2, body=b"\0\1\xff", **common),
        Event(
            asks=False, status="201", content_type=b"application/json", json_length=None, body=b'{"a":1.50}', **common
        ),
    ]


def test_very_wide_rows(log: Path) -> None:
    """Of many columns the first are found; any other can be asked for."""
    request = {"instances": [{f"v{i}": [float(i)] * 1500 for i in range(9)} for _ in range(2)]}
    source = opened(
        log, request, {"predictions": [1, 2]}, Named(version="v3", features=("v8[1499]",)), max_bytes=1 << 20
    )
    assert len(features(source)) == MAX_COLUMNS
    (batch,) = [batch for batch, _ in source.batches(["v0[999]", "v8[1499]"])]
    assert batch == {"v0[999]": [0.0, 0.0], "v8[1499]": [8.0, 8.0]}


def test_more_rows_than_a_sidecar_reads_of_one_request(log: Path) -> None:
    count = MAX_ROWS + 5
    pair = lines(0, {"instances": list(range(count))}, {"predictions": [0.5] * count})
    source = open_source([recorded(log, [pair])], Named(version="v3"))
    assert rows(source)["instances"] == list(range(MAX_ROWS))
    assert source.notes() == [f"1 exchanges of which the first {MAX_ROWS} rows are read"]

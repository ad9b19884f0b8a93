"""KServe v1 and TensorFlow Serving, and the choice between the wire formats."""

from typing import Any

import pytest
from msgspec import json

from coalmine_sidecar.protocols import extract, v1
from coalmine_sidecar.protocols.outputs import MAX_COLUMNS, MAX_ROWS

V2 = b'{"outputs":[{"name":"score","shape":[1],"datatype":"FP32","data":[0.5]}]}'
V1 = b'{"predictions":[0.5]}'
JSON = b"application/json"


@pytest.mark.parametrize(
    ("document", "rows", "columns"),
    [
        ({"predictions": [0.5, 0.25]}, 2, {"predictions": [0.5, 0.25]}),
        ({"predictions": [1, "fraud", True, None]}, 4, {"predictions": [1, "fraud", True, None]}),
        ({"predictions": 0.5}, 1, {"predictions": [0.5]}),
        ({"predictions": [[0.5], [0.25]]}, 2, {"predictions": [0.5, 0.25]}),
        ({"predictions": [[0.1, 0.9]]}, 1, {"predictions.0": [0.1], "predictions.1": [0.9]}),
        (
            {"predictions": [{"score": 0.5, "label": "a"}, {"score": 0.25}]},
            2,
            {"score": [0.5, 0.25], "label": ["a", None]},
        ),
        ({"predictions": [{"p": [0.1, 0.9]}]}, 1, {"p.0": [0.1], "p.1": [0.9]}),
        ({"outputs": {"score": [0.5], "label": [3]}}, 1, {"score": [0.5], "label": [3]}),
        ({"outputs": [[0.5], [0.6]]}, 2, {"outputs": [0.5, 0.6]}),
        ({"result": [0.5]}, 1, {"result": [0.5]}),
        ({"results": [0.5]}, 1, {"results": [0.5]}),
        ({"predictions": []}, 0, {}),
        ({"predictions": [[]]}, 1, {}),
    ],
)
def test_rows_and_columns(document: Any, rows: int, columns: dict[str, list[Any]]) -> None:
    answer = v1.read(json.encode(document))
    assert (answer.rows, dict(answer.columns), answer.failures) == (rows, columns, [])


def test_nan_is_what_it_is_called() -> None:
    """Whoever counts it tells it from what is not there."""
    ((name, values),) = v1.read(b'{"predictions": [NaN, 1.0, -Infinity]}').columns
    assert (name, str(values)) == ("predictions", "[nan, 1.0, -inf]")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (b"", "not_json"),
        (b"NaN of the people", "not_json"),
        (b'{"a":' * 100_000, "not_json"),
        (b'{"NaN":' * 10_000, "not_json"),
        (b"[1]", "no_outputs"),
        (b'{"error":"broken"}', "no_outputs"),
        (b'{"predictions":[1,[2]]}', "shape"),
        (b'{"predictions":[[1],[2,3]]}', "shape"),
        (b'{"predictions":[[1],2]}', "shape"),
        (b'{"predictions":[{"a":1},2]}', "shape"),
        (b'{"predictions":[{"a":{"b":1}}]}', "shape"),
        (b'{"predictions":[[[1]]]}', "shape"),
        (b'{"predictions":[[1,2,3,4,5,6,7,8,9]]}', "wide"),
    ],
)
def test_what_cannot_be_read_has_a_reason(given: bytes, reason: str) -> None:
    answer = v1.read(given)
    assert (answer.columns, answer.failures) == ([], [reason])


def test_rows_and_columns_are_bounded() -> None:
    answer = v1.read(json.encode({"predictions": [0.5] * (MAX_ROWS + 1)}))
    assert (answer.rows, len(answer.columns[0][1]), answer.failures) == (MAX_ROWS + 1, MAX_ROWS, ["too_many_rows"])
    many = {f"key {i}": 0.5 for i in range(MAX_COLUMNS + 10)}
    for document in ({"predictions": [many]}, {"outputs": many}):
        answer = v1.read(json.encode(document))
        assert (len(answer.columns), answer.failures) == (MAX_COLUMNS, ["too_many_outputs"])


class TestChoice:
    @pytest.mark.parametrize(
        ("protocol", "path", "body", "column"),
        [
            ("auto", b"/v2/models/fraud/infer", V2, "score"),
            ("auto", b"/v2/models/fraud/versions/3/infer?trace=1", V2, "score"),
            ("auto", b"/v1/models/fraud:predict", V1, "predictions"),
            ("auto", b"/v1/models/fraud/versions/3:predict", V1, "predictions"),
            ("auto", b"/score", V1, "predictions"),
            ("auto", b"/score", V2, "score"),
            ("v1", b"/score", V1, "predictions"),
            ("v2", b"/score", V2, "score"),
        ],
    )
    def test_by_path_else_by_setting_else_by_body(self, protocol: str, path: bytes, body: bytes, column: str) -> None:
        answer = extract(protocol, path, JSON, None, body)
        assert answer.columns == [(column, [0.5])]

    @pytest.mark.parametrize("protocol", ["auto", "v1", "v2"])
    @pytest.mark.parametrize(
        ("path", "content_type"),
        [
            (b"/v2/health/ready", JSON),
            (b"/v2", JSON),
            (b"/v1/models/fraud", JSON),
            (b"/v1/models/score", JSON),
            (b"/docs", b"text/html"),
            (b"/favicon.ico", b""),
        ],
    )
    def test_what_is_no_prediction_is_no_failure(self, protocol: str, path: bytes, content_type: bytes) -> None:
        answer = extract(protocol, path, content_type, None, b"{}")
        assert (answer.rows, answer.columns, answer.failures) == (0, [], [])

    @pytest.mark.parametrize(
        ("body", "reason"),
        [(b"[0.5]", "unknown_protocol"), (b'{"label":"x"}', "unknown_protocol"), (b"?", "not_json")],
    )
    def test_an_unknown_protocol(self, body: bytes, reason: str) -> None:
        assert extract("auto", b"/answer", JSON, None, body).failures == [reason]

    def test_a_json_length_means_binary_tensors(self) -> None:
        assert extract("v1", b"/score", b"application/octet-stream", len(V2), V2).columns == [("score", [0.5])]

"""Answers in the formats of single servers, outputs by path, the prediction among them and what it is called."""

import struct
from typing import Any

import pytest
from msgspec import json
from tests.relay.grpc_model import INFER, field, infer_response, tensor

from coalmine_sidecar.monitoring import Monitoring, Output, Prediction
from coalmine_sidecar.protocols import Answer, extract
from coalmine_sidecar.protocols.columns import column_of, prediction_id, wanted_of_answers
from coalmine_sidecar.protocols.outputs import MAX_COLUMNS, MAX_ROWS
from coalmine_sidecar.protocols.wanted import Wanted

JSON = b"application/json"


def read(document: Any, path: bytes = b"/score", kind: bytes = JSON, **more: Any) -> Answer:
    body = document if isinstance(document, bytes) else json.encode(document)
    return extract("auto", path, kind, None, body, **more)


DATAROBOT = {
    "predictionValues": [{"value": 0.75, "label": 1.0}, {"value": 0.25, "label": 0.0}],
    "predictionThreshold": 0.5,
    "prediction": 1.0,
    "rowId": 0,
}


#: Documents, routes, rows, and the columns that are found.
FORMATS: list[Any] = [
    # Seldon
    (
        {"data": {"names": ["t:0", "t:1"], "ndarray": [[0.25, 0.75], [0.5, 0.5]]}, "meta": {"puid": "p"}},
        b"/api/v1.0/predictions", 2, {"t:0": [0.25, 0.5], "t:1": [0.75, 0.5]},
    ),
    ({"data": {"names": [], "tensor": {"shape": [1, 2], "values": [0.25, 0.75]}}}, b"/x", 1,
     {"data.0": [0.25], "data.1": [0.75]}),
    ({"data": {"names": ["p"], "tensor": {"shape": [2], "values": [1, 2]}}}, b"/x", 2, {"p": [1, 2]}),
    ({"data": {"names": ["proba"], "ndarray": [[0.5]]}}, b"/x", 1, {"proba": [0.5]}),
    ({"jsonData": {"score": 0.5, "why": {"x": 1}}}, b"/x", 1, {"score": [0.5]}),
    # DataRobot
    ({"data": [DATAROBOT]}, b"/predApi/v1.0/deployments/1/predictions", 1,
     {"prediction": [1.0], "predictionValues.1": [0.75], "predictionValues.0": [0.25]}),
    ({"data": [{"prediction": 23.5, "rowId": 0}, {"prediction": 7.5, "rowId": 1}]}, b"/x", 2,
     {"prediction": [23.5, 7.5]}),
    # H2O
    ({"id": "m", "fields": ["bad.0", "bad.1"], "score": [["0.25", "0.75"], ["0.5", "0.5"]]}, b"/model/score", 2,
     {"bad.0": [0.25, 0.5], "bad.1": [0.75, 0.5]}),
    ({"score": [["0.25"], ["0.5"]]}, b"/model/score", 2, {"score": [0.25, 0.5]}),
    # Azure ML: scripts, MLflow, automated ML, the designer
    ([0.5, 0.25], b"/score", 2, {"output": [0.5, 0.25]}),
    ([{"0": 1.5}, {"0": 2.5}], b"/score", 2, {"0": [1.5, 2.5]}),
    ({"result": ["yes", "no"]}, b"/score", 2, {"result": ["yes", "no"]}),
    # A script's own JSON is made JSON once more.
    ('{"result": [0.5]}', b"/score", 1, {"result": [0.5]}),
    ({"Results": [1.5, 2.5]}, b"/score", 2, {"output": [1.5, 2.5]}),
    (
        {"Results": {"WebServiceOutput0": [{"age": 39, "Scored Labels": "1", "Scored Probabilities": 0.75}]}},
        b"/score", 1, {"Scored Labels": [1], "Scored Probabilities": [0.75]},
    ),
    # TorchServe
    ({"tabby": 0.75, "tiger_cat": 0.125, "lynx": 0.0625}, b"/predictions/cats", 1,
     {"label": ["tabby"], "score": [0.75]}),
    ([{"p": 1.5, "kind": "a"}], b"/predictions/m/2.0", 1, {"p": [1.5], "kind": ["a"]}),
    # Ray Serve and whatever else
    (0.75, b"/predict", 1, {"output": [0.75]}),
    ([0.75], b"/v1/predict?trace=1", 1, {"output": [0.75]}),
    ("cat", b"/predict", 1, {"output": ["cat"]}),
    ({"label": "cat", "score": 0.75, "meta": {"ms": 3}}, b"/predict", 1, {"label": ["cat"], "score": [0.75]}),
]  # fmt: skip


@pytest.mark.parametrize(("document", "path", "rows", "columns"), FORMATS)
def test_formats_of_their_own(document: Any, path: bytes, rows: int, columns: dict[str, Any]) -> None:
    answer = read(document, path)
    assert (answer.rows, {name: list(values) for name, values in answer.columns}) == (rows, columns)
    assert answer.failures == []


class TestSageMaker:
    def test_json_lines(self) -> None:
        body = b'{"predicted_label": 1, "probabilities": [0.25, 0.75]}\n{"predicted_label": 0, "probabilities": [1, 0]}'
        answer = read(body, b"/invocations", b"application/jsonlines")
        assert dict(answer.columns) == {
            "predicted_label": [1, 0], "probabilities.0": [0.25, 1], "probabilities.1": [0.75, 0],
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("body", "rows", "columns"),
        [
            (b"0.25\n0.75\n", 2, {"output": [0.25, 0.75]}),
            (b"1,0.75\n0,0.25", 2, {"output.0": [1, 0], "output.1": [0.75, 0.25]}),
            (b"label,p\ncat,0.75\n", 1, {"label": ["cat"], "p": [0.75]}),
            (b"", 0, {}),
        ],
    )
    def test_csv(self, body: bytes, rows: int, columns: dict[str, Any]) -> None:
        answer = read(body, b"/invocations", b"text/csv; charset=utf-8")
        assert (answer.rows, dict(answer.columns), answer.failures) == (rows, columns, [])

    def test_rows_beyond_those_that_are_read(self) -> None:
        answer = read(b"1.5\n" * (MAX_ROWS + 9), b"/invocations", b"text/csv")
        assert (answer.rows, len(answer.columns[0][1]), answer.failures) == (MAX_ROWS + 9, MAX_ROWS, ["too_many_rows"])


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"data": {"tensor": {"shape": [2, 2], "values": [1]}}}, "shape"),
        ({"data": {"tensor": {"shape": [], "values": [1]}}}, "shape"),
        ({"data": {"tensor": {"shape": [2, 0], "values": []}}}, "shape"),
        ({"data": {"ndarray": {"a": 1}}}, "shape"),
        ({"data": {"names": ["a", "b"], "ndarray": [[1, 2], [3]]}}, "shape"),
        ({"data": [{"prediction": 1}, 2]}, "shape"),
        ({"Results": {}}, "no_outputs"),
        ('{"result": ', "not_json"),
        ({}, "unknown_protocol"),
        ([[1.5] * 9], "wide"),
    ],
)
def test_what_cannot_be_read_has_a_reason(document: Any, reason: str) -> None:
    assert read(document).failures == [reason]


def test_columns_of_one_format_are_bounded() -> None:
    values = [{"label": f"class {i}", "value": 0.001} for i in range(1000)]
    answer = read({"data": [{"prediction": "class 1", "predictionValues": values}]})
    assert len(answer.columns) == MAX_COLUMNS
    assert answer.failures == ["too_many_outputs"]


def test_a_page_of_some_other_api_is_no_prediction_but_an_answer_to_a_body_is() -> None:
    page = {"status": "ok"}
    assert read(page, b"/health").failures == ["unknown_protocol"]
    assert read(page, b"/app", posted=True).columns == [("status", ["ok"])]


class TestOutputsByPath:
    def test_before_those_that_are_found_without(self) -> None:
        wanted = Wanted([("risk", "$.predictions[*].detail.risk")])
        document = {"predictions": [{"p": 0.5, "detail": {"risk": 7.5}}, {"p": 0.25, "detail": {"risk": 8.5}}]}
        answer = read(document, outputs=wanted)
        assert answer.columns[0] == ("risk", [7.5, 8.5])
        assert answer.rows == 2

    def test_where_nothing_else_can_be_read(self) -> None:
        wanted = Wanted([("risk", "$.out.items[*].risk"), ("model", "$.out.model")])
        document = {"out": {"model": "m7", "items": [{"risk": 0.5}, {"risk": 0.75}]}}
        answer = read(document, b"/v1/whatever", outputs=wanted)
        assert (answer.rows, dict(answer.columns)) == (2, {"risk": [0.5, 0.75], "model": ["m7", "m7"]})
        assert answer.failures == []

    def test_one_that_is_not_there_is_told(self) -> None:
        wanted = Wanted([("risk", "$.risk")])
        assert read({"x": {}}, b"/other", outputs=wanted).failures == ["unknown_protocol", "no_outputs"]
        assert read({"x": {}}, b"/v2/models/m", outputs=wanted).failures == []

    def test_columns_of_wide_outputs_and_other_names(self) -> None:
        wanted = Wanted([("p_fraud", "predictions[600]"), ("predictions[3]", "predictions[3]")])
        answer = read({"predictions": [[float(i) for i in range(1000)]] * 2}, outputs=wanted)
        assert dict(answer.columns) == {
            "p_fraud": [600.0] * 2, "predictions.3": [3.0] * 2, "predictions.600": [600.0] * 2,
        }  # fmt: skip
        assert (answer.rows, answer.failures) == (2, [])

    def test_of_wide_tensors(self) -> None:
        tensor = {"name": "x", "shape": [1, 9], "datatype": "FP32", "data": [float(i) for i in range(9)]}
        document = {"outputs": [tensor, tensor | {"name": "y"}]}
        answer = read(document, b"/v2/models/m/infer", outputs=Wanted([("x[8]", "x[8]"), ("all", "$.outputs[0].name")]))
        assert dict(answer.columns) == {"all": ["x"], "x.8": [8.0]}

    def test_unnamed_ones_are_picked_not_counted(self) -> None:
        monitoring = Monitoring(
            outputs=(Output(name="why", path="$.why"),), prediction=Prediction(score="$.deep.p", label="$.why")
        )
        wanted = wanted_of_answers(monitoring)
        answer = read({"deep": {"p": 0.5}, "why": "age"}, b"/x", outputs=wanted)
        assert answer.columns == [("why", ["age"])]
        assert column_of(answer, "$.deep.p") == [0.5]
        assert column_of(answer, "$.why", "label") == ["age"]

    def test_nothing_is_wanted_of_most(self) -> None:
        assert wanted_of_answers(Monitoring()) is None

    def test_bodies_that_are_no_json(self) -> None:
        wanted = Wanted([("x", "$.x")])
        assert read(b'{"x"', b"/predict", outputs=wanted).failures == ["not_json"]
        assert extract("auto", b"/v2/models/m/infer", b"", 99, b"{}", outputs=wanted).failures == ["truncated"]


class TestColumnOf:
    ANSWER = Answer(
        2, [("label", ["a", "b"]), ("count", [1, 2]), ("p.0", [0.1, 0.2]), ("p.1", [0.9, 0.8]), ("flag", [True, False])]
    )

    @pytest.mark.parametrize(
        ("path", "kind", "values"),
        [
            ("", "number", [0.1, 0.2]),
            ("", "label", ["a", "b"]),
            ("count", "number", [1, 2]),
            ("p[1]", "number", [0.9, 0.8]),
            ("p.1", "number", [0.9, 0.8]),
            ("[1]", "number", [0.9, 0.8]),
            ("label[0]", "label", ["a", "b"]),
            ("p[2]", "number", None),
            ("p", "number", None),
            ("$.p", "number", None),
        ],
    )
    def test_paths(self, path: str, kind: Any, values: Any) -> None:
        assert column_of(self.ANSWER, path, kind) == values

    @pytest.mark.parametrize("kind", ["number", "label"])
    def test_whole_numbers_are_both_where_nothing_else_is_there(self, kind: Any) -> None:
        assert column_of(Answer(2, [("x", [None, None]), ("y", [None, 1])]), "", kind) == [None, 1]

    def test_nothing(self) -> None:
        assert column_of(Answer(), "", "number") is None
        assert column_of(Answer(1, [("x", ["a"])]), "", "number") is None


class TestPredictionId:
    V2 = b"/v2/models/m/infer"

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            ({"id": "a-1", "inputs": []}, "a-1"),
            ({"id": "a-1", "age": 3}, None),
            ({"inferenceId": "i", "id": "x", "inputs": []}, "i"),
            ({"data": {}, "meta": {"puid": "p"}}, "p"),
            ({"id": 7, "inputs": []}, None),
            ({"id": "x" * 300, "inputs": []}, None),
            ([1], None),
            (b"{", None),
            (b"", None),
        ],
    )
    def test_of_a_request(self, body: Any, expected: str | None) -> None:
        given = body if isinstance(body, bytes) else json.encode(body)
        assert prediction_id(self.V2, JSON, given, Answer()) == expected

    def test_binary_tensors_follow_the_document(self) -> None:
        head = json.encode({"id": "a-1", "inputs": [{"name": "x"}]})
        assert prediction_id(self.V2, b"", head + b"\0\1\2", Answer(), len(head)) == "a-1"

    def test_grpc(self) -> None:
        message = field(1, b"m") + field(3, b"g-1")
        body = b"\0" + len(message).to_bytes(4, "big") + message
        assert prediction_id(INFER.encode(), b"application/grpc", body, Answer()) == "g-1"
        assert prediction_id(INFER.encode(), b"application/grpc", body[:-1], Answer(id="b")) == "b"

    @pytest.mark.parametrize(
        ("path", "document"),
        [
            (V2, {"id": "b-2", "outputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [0.5]}]}),
            (V2, {"id": "b-2", "outputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": ["y"]}]}),
            (b"/api/v1.0/predictions", {"data": {"ndarray": [[1.5]]}, "meta": {"puid": "b-2"}}),
            (b"/v1/chat/completions", {"id": "b-2", "choices": [{"message": {"content": "x"}}]}),
        ],
    )
    def test_else_the_answers(self, path: bytes, document: Any) -> None:
        answer = read(document, path)
        assert prediction_id(path, JSON, b"{}", answer) == "b-2"
        assert prediction_id(path, JSON, b'{"inferenceId":"mine"}', answer) == "mine"

    def test_else_the_answers_in_grpc(self) -> None:
        message = field(3, b"b-2") + infer_response(tensor("p", "FP64", [1]), raw=(struct.pack("<d", 0.5),))
        body = b"\0" + len(message).to_bytes(4, "big") + message
        answer = extract("auto", INFER.encode(), b"application/grpc", None, body)
        assert answer.columns == [("p", [0.5])]
        assert prediction_id(INFER.encode(), b"application/grpc", b"", answer) == "b-2"

"""The rows of requests, in the shapes that the documents of model servers give."""

from typing import Any

import pytest
from msgspec import json

from coalmine_sidecar.protocols.inputs import read_request
from coalmine_sidecar.protocols.outputs import MAX_ROWS
from coalmine_sidecar.protocols.wanted import Asked, Wanted

JSON = b"application/json"
#: Three columns by their names, by JSON paths from each document, or by positions.
NAMED = Wanted([("age", ""), ("city", ""), ("x2", "x[1]")])


def read(
    document: Any, wanted: Wanted = NAMED, path: bytes = b"/predict", kind: bytes = JSON, length: int | None = None
) -> Asked:
    body = document if isinstance(document, bytes) else json.encode(document)
    return read_request("auto", path, kind, length, body, wanted)


def columns(asked: Asked) -> dict[str, list[Any]]:
    return {name: list(values) for name, values in asked.columns.items()}


ROWS = [{"age": 39, "city": "Oslo", "x": [1.5, 2.5]}, {"age": 22, "city": "Rom", "x": [3.5, 4.5]}]
ARRAYS = [[39, "Oslo", [1.5, 2.5]], [22, "Rom", [3.5, 4.5]]]
HEADER = ["age", "city", "x"]


#: Documents and routes; each asks for the two ROWS.
TWO_ROWS: list[Any] = [
    # KServe v1, TensorFlow Serving and Vertex AI; the route of the last is configured.
    ({"instances": ROWS}, b"/v1/models/m:predict"),
    ({"signature_name": "serving_default", "instances": ROWS}, b"/v1/models/m/versions/2:predict"),
    ({"instances": ROWS, "parameters": {"confidence": 0.5}}, b"/anything"),
    ({"inputs": {"age": [39, 22], "city": [["Oslo"], ["Rom"]], "x": [[1.5, 2.5], [3.5, 4.5]]}}, b"/predict"),
    # MLflow
    ({"dataframe_split": {"columns": HEADER, "index": [0, 1], "data": ARRAYS}}, b"/invocations"),
    ({"dataframe_records": ROWS, "params": {}}, b"/invocations"),
    ({"inputs": ROWS}, b"/invocations"),
    # Azure ML: a scoring script, an MLflow model, automated ML and the designer
    ({"data": ROWS, "method": "predict"}, b"/score"),
    ({"input_data": {"columns": HEADER, "index": [1, 2], "data": ARRAYS}}, b"/score"),
    ({"input_data": ROWS}, b"/score"),
    ({"Inputs": {"data": ROWS}, "GlobalParameters": {"method": "predict"}}, b"/score"),
    ({"Inputs": {"WebServiceInput0": ROWS}}, b"/score"),
    ({"Inputs": {"input1": {"ColumnNames": HEADER, "Values": ARRAYS}}}, b"/score"),
    # Seldon
    ({"data": {"names": HEADER, "ndarray": ARRAYS}}, b"/seldon/ns/m/api/v1.0/predictions"),
    ({"jsonData": ROWS}, b"/api/v0.1/predictions"),
    # DataRobot, Ray Serve, TorchServe
    (ROWS, b"/predApi/v1.0/deployments/1/predictions"),
    # H2O's scorer, SageMaker's JSON lines
    (b"\n".join(map(json.encode, ROWS)) + b"\n", b"/invocations"),
]


@pytest.mark.parametrize(("document", "path"), TWO_ROWS)
def test_two_rows_in_each_format(document: Any, path: bytes) -> None:
    kind = b"application/jsonlines" if isinstance(document, bytes) else JSON
    asked = read(document, path=path, kind=kind)
    assert columns(asked) == {"age": [39, 22], "city": ["Oslo", "Rom"], "x2": [2.5, 4.5]}
    assert (asked.rows, asked.failures) == (2, [])


ONE_ROW: list[Any] = [
    (ROWS[0], b"/"),  # Ray Serve
    (ROWS[0], b"/predictions/iris"),  # TorchServe
    ({"jsonData": ROWS[0]}, b"/api/v1.0/predictions"),
    ({"instances": ROWS[:1]}, b"/predict"),
    ({"inputs": {"age": 39, "city": "Oslo", "x": [[1.5, 2.5]]}}, b"/v1/models/m:predict"),
]


@pytest.mark.parametrize(("document", "path"), ONE_ROW)
def test_one_row(document: Any, path: bytes) -> None:
    asked = read(document, path=path)
    assert columns(asked) == {"age": [39], "city": ["Oslo"], "x2": [2.5]}
    assert (asked.rows, asked.failures) == (1, [])


PLACES = Wanted([("first", "[0]"), ("fourth", "[3]")])


#: Two rows of four numbers.
POSITIONS: list[Any] = [
    {"instances": [[1, 2, 3, 4.5], [5, 6, 7, 8.5]]},
    {"inputs": [[1, 2, 3, 4.5], [5, 6, 7, 8.5]]},
    {"data": [[1, 2, 3, 4.5], [5, 6, 7, 8.5]]},
    {"data": {"ndarray": [[1, 2, 3, 4.5], [5, 6, 7, 8.5]]}},
    {"data": {"tensor": {"shape": [2, 4], "values": [1, 2, 3, 4.5, 5, 6, 7, 8.5]}}},
    {"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32", "data": [1, 2, 3, 4.5, 5, 6, 7, 8.5]}]},
    {"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32", "data": [[1, 2, 3, 4.5], [5, 6, 7, 8.5]]}]},
    {"dataframe_split": {"columns": ["a", "b", "c", "d"], "data": [[1, 2, 3, 4.5], [5, 6, 7, 8.5]]}},
    {"fields": ["a", "b", "c", "d"], "rows": [["1", "2", "3", "4.5"], ["5", "6", "7", "8.5"]]},
    [[1, 2, 3, 4.5], [5, 6, 7, 8.5]],
]


@pytest.mark.parametrize("document", POSITIONS)
def test_rows_without_names_by_position(document: Any) -> None:
    asked = read(document, PLACES)
    assert columns(asked) == {"first": [1, 5], "fourth": [4.5, 8.5]}
    assert (asked.rows, asked.failures) == (2, [])


@pytest.mark.parametrize(
    ("document", "wanted", "values"),
    [
        ([1, 2, 3, 4.5], [("x", "[3]")], [4.5]),
        ({"instances": [7, 8]}, [("instances", "")], [7, 8]),
        ({"instances": [7, 8]}, [("x", "[0]")], [7, 8]),
        ({"instances": ["a text", "b"]}, [("text", "instances")], ["a text", "b"]),
        ({"inputs": "a text"}, [("inputs", "")], ["a text"]),
        ({"inputs": [[0.5], [0.25]]}, [("x", "inputs")], [0.5, 0.25]),
        ({"inputs": [[1, 2], [3, 4]]}, [("x", "inputs[1]")], [2, 4]),
        ({"data": {"names": ["a"], "tensor": {"shape": [3], "values": [1, 2, 3]}}}, [("a", "")], [1, 2, 3]),
        ({"data": {"names": ["a"], "ndarray": [1, 2, 3]}}, [("a", "")], [1, 2, 3]),
        ({"instances": [{"features": [1.5, 16.0]}]}, [("x", "features[1]")], [16.0]),  # SageMaker's linear learner
        ({"instances": [{"age": [39.0]}]}, [("age", "")], [39.0]),
        ({"instances": [{"age": None}, {"age": 1}, {}]}, [("age", "")], [None, 1, None]),
        ({"columns": ["a", "b"], "data": [[1, 2]]}, [("x", "b")], [2]),
    ],
)
def test_other_ways_to_write_a_column(document: Any, wanted: list[tuple[str, str]], values: list[Any]) -> None:
    asked = read(document, Wanted(wanted))
    assert columns(asked) == {wanted[0][0]: values}
    assert (asked.rows, asked.failures) == (len(values), [])


@pytest.mark.parametrize(
    ("document", "path", "values"),
    [
        ({"instances": [{"age": 39}, {"age": 22}]}, "$.instances[*].age", [39, 22]),
        ({"instances": [{"age": 39}, {}]}, "$['instances'][*]['age']", [39, None]),
        ({"data": [[0, 0, 0, 7], [0, 0, 0, 8]]}, "$.data[*][3]", [7, 8]),
        ({"features": {"age": 39}}, "$.features.age", [39]),
        ({"rows": [{"a": {"b": 1}}, {"a": 2}, {"a": {"b": 3}}]}, "$.rows[*].a.b", [1, None, 3]),
        ({"rows": [1, 2, 3]}, "$.rows[*]", [1, 2, 3]),
        ({"rows": [1, 2, 3]}, "$.rows", [1, 2, 3]),
        ({"rows": [[1, 2], [3, 4]]}, "$.rows[1]", [3, 4]),
        ([{"a b": 1}, {"a b": 2}], "$[*]['a b']", [1, 2]),
        ([[["x"]]], "$[0][0]", ["x"]),
        (5, "$", [5]),
    ],
)
def test_json_paths(document: Any, path: str, values: list[Any]) -> None:
    asked = read(document, Wanted([("x", path)]))
    assert columns(asked) == {"x": values}
    assert asked.failures == []


def test_a_value_of_the_whole_request_is_every_rows() -> None:
    wanted = Wanted([("age", "$.instances[*].age"), ("region", "$.meta.region"), ("id", "id")])
    asked = read({"instances": [{"age": 1, "id": "a"}, {"age": 2, "id": "b"}], "meta": {"region": "eu"}}, wanted)
    assert columns(asked) == {"age": [1, 2], "region": ["eu", "eu"], "id": ["a", "b"]}
    assert (asked.rows, asked.failures) == (2, [])


def test_what_stands_once_beside_the_rows() -> None:
    wanted = Wanted([("age", ""), ("region", "")])
    asked = read({"instances": [{"age": 1}, {"age": 2}], "region": "eu"}, wanted)
    assert columns(asked) == {"age": [1, 2], "region": ["eu", "eu"]}
    own = read({"instances": [{"age": 1, "region": "us"}], "region": "eu"}, wanted)
    assert columns(own) == {"age": [1], "region": ["us"]}
    none = read({"instances": [], "region": "eu"}, wanted)
    assert (columns(none), none.rows, none.failures) == ({}, 0, [])


def test_a_table_of_very_many_columns() -> None:
    header = [f"c{i}" for i in range(5000)]
    wanted = Wanted([(f"c{i}", "") for i in range(0, 5000, 100)] + [("deep", "c4999[1]")])
    document = {"dataframe_split": {"columns": header, "data": [[*range(4999), [7, 8]]]}}
    asked = read(document, wanted)
    assert columns(asked) == {f"c{i}": [i] for i in range(0, 5000, 100)} | {"deep": [8]}


def test_headers_that_change_are_followed() -> None:
    wanted = Wanted([("age", "")])
    for i in range(40):
        header = [f"c{k}" for k in range(i)] + ["age"]
        asked = read({"dataframe_split": {"columns": header, "data": [[0] * i + [i]]}}, wanted)
        assert columns(asked) == {"age": [i]}
    odd = read({"dataframe_split": {"columns": [["a"], "age"], "data": [[1, 2]]}}, wanted)
    assert (columns(odd), odd.failures) == ({"age": [2]}, [])


def test_columns_of_other_lengths_are_left_out() -> None:
    wanted = Wanted([("age", "$.instances[*].age"), ("other", "$.others[*].x")])
    asked = read({"instances": [{"age": 1}, {"age": 2}, {"age": 3}], "others": [{"x": 1}]}, wanted)
    assert (columns(asked), asked.rows, asked.failures) == ({"age": [1, 2, 3]}, 3, ["shape"])


class TestCsv:
    WANTED = Wanted([("age", ""), ("city", ""), ("third", "[2]")])

    @pytest.mark.parametrize("kind", [b"text/csv", b"text/csv; header=present", b"text/plain; charset=UTF-8"])
    def test_with_a_header(self, kind: bytes) -> None:
        body = '\ufeffage, city,note\r\n39,"Oslo, Norway","a ""b"""\r\n,007,x\r\n'.encode()
        asked = read(body, self.WANTED, b"/predApi/v1.0/deployments/1/predictions", kind)
        assert columns(asked) == {"age": [39, None], "city": ["Oslo, Norway", "007"], "third": ['a "b"', "x"]}
        assert (asked.rows, asked.failures) == (2, [])

    @pytest.mark.parametrize("kind", [b"text/csv", b"text/csv; header=absent", b"text/csv; label_size=0"])
    def test_without_one(self, kind: bytes) -> None:
        asked = read(b"1,2,-3.5e2\n4,5,nope\n", self.WANTED, b"/invocations", kind)
        assert (columns(asked), asked.rows) == ({"third": [-350.0, "nope"]}, 2)

    def test_more_rows_than_are_read(self) -> None:
        asked = read(b"age\n" + b"1\n" * (MAX_ROWS + 7), self.WANTED, kind=b"text/csv")
        assert (asked.rows, len(asked.columns["age"]), asked.failures) == (MAX_ROWS + 7, MAX_ROWS, ["too_many_rows"])

    @pytest.mark.parametrize("body", [b"\xff\xfe,1", b'"' + b"x" * 200_000 + b'"'])
    def test_what_is_none(self, body: bytes) -> None:
        asked = read(body, self.WANTED, kind=b"text/csv")
        assert (columns(asked), asked.failures) == ({}, ["not_csv"])


class TestOpenai:
    WANTED = Wanted([(name, "") for name in ("prompt_chars", "messages", "max_tokens", "temperature", "model")])

    def test_a_chat(self) -> None:
        parts = [{"type": "text", "text": "12345"}, {"type": "image_url", "image_url": {"url": "data:"}}]
        messages = [{"role": "system", "content": "123"}, {"role": "user", "content": parts}, {"role": "assistant"}]
        document = {"model": "m", "messages": messages, "max_completion_tokens": 64, "temperature": 0.5}
        asked = read(document, self.WANTED, b"/v1/chat/completions")
        assert columns(asked) == {
            "prompt_chars": [8], "messages": [3], "max_tokens": [64], "temperature": [0.5], "model": ["m"],
        }  # fmt: skip
        assert (asked.rows, asked.failures) == (1, [])

    @pytest.mark.parametrize(
        ("path", "document", "chars"),
        [
            (b"/v1/completions", {"prompt": "1234"}, [4]),
            (b"/v1/completions", {"prompt": ["12", "3"]}, [3]),
            (b"/v1/completions", {"prompt": [1, 2]}, None),
            (b"/v1/embeddings", {"input": ["1", "23"]}, [3]),
        ],
    )
    def test_a_prompt(self, path: bytes, document: Any, chars: Any) -> None:
        assert columns(read(document, self.WANTED, path)).get("prompt_chars") == chars


@pytest.mark.parametrize(
    ("body", "kind", "path", "reasons"),
    [
        (b"", JSON, b"/predict", []),
        (b"{", JSON, b"/predict", ["not_json"]),
        (b'{"instances":[{"age":1}]', JSON, b"/predict", ["not_json"]),
        (b"\x89PNG", b"image/png", b"/predictions/cat", ["unknown_protocol"]),
        (b'{"instances":[{"weight":1}]}', JSON, b"/predict", ["no_columns"]),
        (b'{"instances":[{"age":1},2]}', JSON, b"/predict", ["shape"]),
        (b'{"instances":[[1],2]}', JSON, b"/predict", ["shape"]),
        (b'{"instances":[{"age":{"years":1}}]}', JSON, b"/predict", ["shape"]),
        (b'{"dataframe_split":{"columns":["age"]}}', JSON, b"/invocations", ["shape"]),
        (b'{"data":{"tensor":{"shape":[2,2],"values":[1]}}}', JSON, b"/predict", ["shape"]),
        (b'{"inputs":3,"x":' + b"[" * 100_000, JSON, b"/predict", ["not_json"]),
        (b'{"name":"m"}', JSON, b"/v2/repository/models/m/load", []),
        (b'{"x":1}', JSON, b"/v1/models", []),
    ],
)
def test_what_cannot_be_read_has_a_reason(body: bytes, kind: bytes, path: bytes, reasons: list[str]) -> None:
    assert read(body, path=path, kind=kind).failures == reasons


def test_a_json_length_beyond_the_body() -> None:
    assert read(b"{}", path=b"/v2/models/m/infer", length=3).failures == ["truncated"]


def test_features_that_change_their_type_are_read_as_they_come() -> None:
    asked = read({"instances": [{"age": 1}, {"age": "x"}, {"age": True}, {"age": 1.5}, {"age": 2**70}]})
    assert columns(asked)["age"] == [1, "x", True, 1.5, 2**70]


def test_nan_is_what_it_is_called() -> None:
    """Whoever counts it tells it from what is not there."""
    found = columns(read(b'{"instances":[{"age":NaN},{"age":-Infinity},{"age":1}]}'))["age"]
    assert str(found) == "[nan, -inf, 1]"


def test_rows_are_bounded() -> None:
    for document in (
        {"instances": [{"age": 1}] * (MAX_ROWS + 5)},
        {"inputs": {"age": [1] * (MAX_ROWS + 5)}},
        {"inputs": [{"name": "age", "shape": [MAX_ROWS + 5], "datatype": "INT64", "data": [1] * (MAX_ROWS + 5)}]},
        {"dataframe_split": {"columns": ["age"], "data": [[1]] * (MAX_ROWS + 5)}},
    ):
        asked = read(document)
        assert (asked.rows, len(asked.columns["age"]), asked.failures) == (MAX_ROWS + 5, MAX_ROWS, ["too_many_rows"])


@pytest.mark.parametrize(
    "document",
    [
        {"instances": []},
        {"inputs": []},
        {"inputs": {"age": []}},
        {"inputs": [{"name": "age", "shape": [0], "datatype": "FP32", "data": []}]},
        {"dataframe_split": {"columns": ["age"], "data": []}},
        {"data": {"names": ["age"], "tensor": {"shape": [0, 1], "values": []}}},
        [],
    ],
)
def test_no_rows_at_all(document: Any) -> None:
    asked = read(document)
    assert (asked.rows, columns(asked), asked.failures) == (0, {}, [])


def test_a_content_type_that_says_nothing() -> None:
    asked = read(b'\n {"instances":[{"age":1}]}', kind=b"application/x-www-form-urlencoded")
    assert columns(asked) == {"age": [1]}


def test_one_column_may_be_wanted_twice() -> None:
    wanted = Wanted([("age", ""), ("slice", "age"), ("again", "$.instances[*].age")])
    assert columns(read({"instances": [{"age": 5}]}, wanted)) == {"age": [5], "slice": [5], "again": [5]}


def test_a_wrong_path_is_refused() -> None:
    with pytest.raises(ValueError, match=r"age: path '\$\.rows\[x\]': \[x\] is neither"):
        Wanted([("age", "$.rows[x]")])


@pytest.mark.parametrize("path", ["", "x[2]"])
def test_a_name_may_say_the_position_itself(path: str) -> None:
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP64", "data": [0.0, 1.0, 2.0, 3.0]}
    body = json.encode({"inputs": [tensor]})
    asked = read_request("auto", b"/v2/models/m/infer", b"application/json", None, body, Wanted([("x[2]", path)]))
    assert [*asked.columns["x[2]"]] == [2.0]
    assert Wanted([("age [years", "")]).plain == (("age [years", "age [years"),)

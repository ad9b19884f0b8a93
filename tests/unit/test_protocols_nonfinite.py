"""Numbers that are none: what Python's writers add to JSON, and what no double holds. Alike in every format."""

from __future__ import annotations

import math

import pytest

from coalmine_sidecar.monitoring import Feature
from coalmine_sidecar.protocols import Answer, extract
from coalmine_sidecar.protocols.columns import prediction_id
from coalmine_sidecar.protocols.inputs import read_request
from coalmine_sidecar.protocols.jsontext import MAX_LENIENT, read_json
from coalmine_sidecar.protocols.wanted import Wanted
from coalmine_sidecar.telemetry.features import FeatureCounter
from coalmine_sidecar.telemetry.outputs import OutputCounter

JSON = b"application/json"
V2 = b"/v2/models/m/infer"
WORDS = {
    "nan": b"NaN",
    "infinity": b"Infinity",
    "-infinity": b"-Infinity",
    "1e400": b"1e400",
    "-1e400": b"-1e400",
    "1 and 400 zeros": b"1" + b"0" * 400,
    "-1 and 400 zeros": b"-1" + b"0" * 400,
    "more digits than int() takes": b"1" * 5000,
}
#: An answer or a request with `%b` for the second of two rows: path, content type, text.
ANSWERS = {
    "v1": (b"/v1/models/m:predict", JSON, b'{"predictions":[0.5,%b]}'),
    "v1, objects": (b"/v1/models/m:predict", JSON, b'{"predictions":[{"x":0.5},{"x":%b}]}'),
    "v2": (V2, JSON, b'{"outputs":[{"name":"x","shape":[2],"datatype":"FP64","data":[0.5,%b]}]}'),
    "v2, nested": (V2, JSON, b'{"outputs":[{"name":"x","shape":[2,1],"datatype":"FP32","data":[[0.5],[%b]]}]}'),
    "v2, whole": (V2, JSON, b'{"outputs":[{"name":"x","shape":[2],"datatype":"INT64","data":[1,%b]}]}'),
    "plain": (b"/predict", JSON, b'[{"x":0.5},{"x":%b}]'),
    "Seldon": (b"/api/v1.0/predictions", JSON, b'{"data":{"names":["x"],"ndarray":[[0.5],[%b]]}}'),
    "lines": (b"/invocations", b"application/jsonlines", b'{"x":0.5}\n{"x":%b}\n'),
}
REQUESTS = {
    "v1": (b"/v1/models/m:predict", JSON, b'{"instances":[{"x":0.5},{"x":%b}]}'),
    "v2": (V2, JSON, b'{"id":"a","inputs":[{"name":"x","shape":[2],"datatype":"FP64","data":[0.5,%b]}]}'),
    "v2, nested": (V2, JSON, b'{"id":"a","inputs":[{"name":"x","shape":[2,1],"datatype":"FP32","data":[[0.5],[%b]]}]}'),
    "v2, whole": (V2, JSON, b'{"id":"a","inputs":[{"name":"x","shape":[2],"datatype":"INT32","data":[1,%b]}]}'),
    "MLflow": (b"/invocations", JSON, b'{"dataframe_split":{"columns":["x"],"data":[[0.5],[%b]]}}'),
    "lines": (b"/invocations", b"application/jsonlines", b'{"x":0.5}\n{"x":%b}\n'),
}


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("form", ANSWERS)
def test_in_an_answer_they_are_counted(form: str, word: str) -> None:
    path, kind, text = ANSWERS[form]
    answer = extract("auto", path, kind, None, text % WORDS[word], posted=True)
    ((_, values),) = answer.columns
    counter = OutputCounter("x", (0.0,))
    counter.add_all(values)
    assert (answer.rows, answer.failures) == (2, [])
    assert (counter.values, counter.missing, counter.nonfinite, sum(counter.bins)) == (2, 1, 1, 1)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("form", REQUESTS)
def test_in_a_request_they_are_counted(form: str, word: str) -> None:
    path, kind, text = REQUESTS[form]
    asked = read_request("auto", path, kind, None, text % WORDS[word], Wanted([("x", "")]))
    counter = FeatureCounter(Feature("x"), None)
    counter.add_all(asked.columns["x"])
    assert (asked.rows, asked.failures) == (2, [])
    assert (counter.values, counter.missing, counter.nonfinite) == (2, 1, 1)


@pytest.mark.parametrize(("datatype", "others"), [("BYTES", [b'"a"', b'"b"']), ("BOOL", [b"true", b"0"])])
def test_of_other_datatypes_they_stand_for_what_is_missing(datatype: str, others: list[bytes]) -> None:
    """As pandas writes a column in which something is missing."""
    data = b",".join([others[0], b"NaN", others[1]])
    tensor = b'[{"name":"x","shape":[3],"datatype":"%b","data":[%b]}]' % (datatype.encode(), data)
    ((_, values),) = extract("v2", V2, JSON, None, b'{"outputs":%b}' % tensor).columns
    asked = read_request("v2", V2, JSON, None, b'{"inputs":%b}' % tensor, Wanted([("x", "")]))
    for found in (values, asked.columns["x"]):
        assert isinstance(found[1], float)
        assert math.isnan(found[1])
        assert [found[0], found[2]] == (["a", "b"] if datatype == "BYTES" else [True, False])
    assert asked.failures == []


def test_a_request_with_one_still_has_its_id() -> None:
    for word in WORDS.values():
        assert prediction_id(V2, JSON, REQUESTS["v2"][2] % word, Answer()) == "a"


@pytest.mark.parametrize("body", [b'{"a":1e400', b"1e400,", b"[1e400,]", b"[NaN", b"[" * 100_000 + b"1e400"])
def test_what_is_no_json_stays_none(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        read_json(body)


@pytest.mark.parametrize("word", [b"NaN", b"1e400"])
def test_the_slow_reader_is_not_for_long_bodies(word: bytes) -> None:
    assert isinstance(read_json(word.ljust(MAX_LENIENT)), float)
    with pytest.raises(ValueError, match="no JSON"):
        read_json(word.ljust(MAX_LENIENT + 1))

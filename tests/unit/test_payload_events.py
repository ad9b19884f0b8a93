"""A request and its answer as CloudEvents: what is in them, what is cut, and what must not be in them."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_sidecar.payload.event import (
    REQUEST,
    RESPONSE,
    Body,
    Event,
    Exchange,
    Source,
    make_events,
    to_headers,
    to_line,
)
from coalmine_sidecar.payload.redact import MAX_READ, REDACTED, Redaction

SOURCE = Source(model="fraud", namespace="ml", deployment="fraud-md", pod="fraud-abc")
JSON = "application/json"


def exchange(request: bytes | Body = b"{}", response: bytes = b"{}", **more: Any) -> Exchange:
    whole: dict[str, Any] = {
        "id": "p-1",
        "revision": "fraud-0123",
        "version": "v 1",
        "track": "canary",
        "started": 1_790_000_000.25,
        "duration": 0.5,
        "path": "/v2/models/fraud/infer?token=s3cret",
        "status": 200,
        "request": request if isinstance(request, Body) else Body(data=request, content_type=JSON),
        "response": Body(data=response, content_type=JSON),
    }
    return Exchange(**whole | more)


def events(one: Exchange, *paths: str, max_bytes: int = 65536) -> tuple[Event, Event]:
    return make_events(one, SOURCE, Redaction(paths), max_bytes)


def read(event: Event) -> dict[str, Any]:
    line = to_line(event)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    return json.loads(line)


def test_the_two_events_are_kserves_with_more_attributes():
    request, response = events(exchange(b'{"a": 1}', b'{"b": 2}'))
    common = {
        "specversion": "1.0",
        "id": "p-1",
        "source": "/namespaces/ml/modeldeployments/fraud-md/pods/fraud-abc",
        "inferenceservicename": "fraud-md",
        "namespace": "ml",
        "component": "predictor",
        "endpoint": "canary",
        "metadata": "{}",
        "model": "fraud",
        "revision": "fraud-0123",
        "version": "v 1",
        "track": "canary",
        "path": "/v2/models/fraud/infer",
    }
    assert request.attributes == common | {"type": REQUEST, "time": "2026-09-21T14:13:20.250000Z"}
    assert response.attributes == common | {
        "type": RESPONSE,
        "time": "2026-09-21T14:13:20.750000Z",
        "status": "200",
        "durationseconds": "0.500000",
    }
    assert (request.data, response.data) == (b'{"a": 1}', b'{"b": 2}')
    # CloudEvents allows lower-case letters and digits in names, and KServe's endpoint is `default` or `canary`.
    assert all(name.isalnum() and name.islower() for name in response.attributes)
    assert events(exchange(track="stable"))[0].attributes["endpoint"] == "default"


def test_headers_are_those_of_the_http_binding():
    headers = to_headers(events(exchange(version='ä "1%"\r\nX-Evil: 1'))[0])
    assert headers["ce-type"] == REQUEST
    assert headers["Content-Type"] == JSON
    assert headers["ce-version"].isascii()
    assert not set(' "\r\n') & set(headers["ce-version"])
    assert unquote(headers["ce-version"]) == 'ä "1%"  X-Evil: 1'


def test_a_line_has_json_as_json_and_the_rest_as_base64():
    request, response = events(
        exchange(b'{"a":\n 1.50,\r\n "b": 123456789012345678901234567890}', b"\x00\xff"), max_bytes=100
    )
    assert b'"data":{"a":1.50,"b":123456789012345678901234567890}' in to_line(request)
    told = read(response)
    assert base64.b64decode(told["data_base64"]) == b"\x00\xff"
    assert told["datacontenttype"] == JSON
    assert "data" not in told


@pytest.mark.parametrize(
    "body", [b'{"a": NaN}', b'{"a": 1', b"", b'{"a": "\xff"}', b"[" * 100_000, gzip.compress(b"{}", mtime=0)]
)
def test_what_is_no_json_is_base64_as_it_was(body: bytes):
    told = read(events(exchange(body), max_bytes=1 << 20)[0])
    assert base64.b64decode(told["data_base64"]) == body


def test_a_compressed_body_is_not_called_json():
    assert events(exchange(gzip.compress(b"{}", mtime=0)))[0].content_type == "application/gzip"


def test_a_long_body_is_cut_and_said_to_be():
    request, response = events(exchange(b'{"a": "%s"}' % (b"x" * 100), b"[1]"), max_bytes=50)
    assert request.change == "truncated"
    assert request.data == b'{"a": "' + b"x" * 43
    assert request.attributes["truncated"] == "true"
    assert request.attributes["size"] == "109"
    assert request.content_type == "application/octet-stream", "half a document is none"
    assert base64.b64decode(read(request)["data_base64"]) == request.data
    assert response.change == ""
    assert "truncated" not in response.attributes
    # JSON may be JSON when it is cut as well.
    assert "data_base64" in read(events(exchange(b"12345"), max_bytes=3)[0])


def test_of_a_body_that_was_not_kept_whole_the_beginning_is_told():
    body = Body(data=b'{"a": 1', content_type=JSON, size=1000)
    request, _ = events(exchange(request=body))
    assert (request.change, request.attributes["size"], request.data) == ("truncated", "1000", b'{"a": 1')
    request, _ = events(exchange(request=body), "$.a")
    assert (request.change, request.data) == ("omitted_size", None)


def test_the_length_of_the_json_before_tensors_is_told():
    body = Body(data=b"{}\x00\x01", content_type="application/octet-stream", json_length=2)
    assert events(exchange(request=body))[0].attributes["jsonlength"] == "2"


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        ("$.a", {"a": {"b": 1}, "c": 2}, {"a": REDACTED, "c": 2}),
        ("$.a.b[*].c", {"a": {"b": [{"c": 1, "d": 2}, {"d": 3}, 4, {"c": []}]}}, None),
        ("$.a[1]", {"a": [1, 2, 3]}, {"a": [1, REDACTED, 3]}),
        ("$.a[9]", {"a": [1, 2, 3]}, {"a": [1, 2, 3]}),
        ("$[*].ssn", [{"ssn": "1"}, {"ssn": "2", "x": 0}], [{"ssn": REDACTED}, {"ssn": REDACTED, "x": 0}]),
        ("$['a b'][*]", {"a b": {"x": 1, "y": [2]}}, {"a b": {"x": REDACTED, "y": REDACTED}}),
        ("$[*][*]", [[1, 2], {"a": 3}], [[REDACTED, REDACTED], {"a": REDACTED}]),
        ("$", {"a": 1}, REDACTED),
        ("$.a.b", {"a": "b"}, {"a": "b"}),
        ("$.missing.b", {"a": 1}, {"a": 1}),
    ],
)
def test_values_are_replaced_where_paths_say_so(path: str, before: Any, after: Any):
    if after is None:
        after = {"a": {"b": [{"c": REDACTED, "d": 2}, {"d": 3}, 4, {"c": REDACTED}]}}
    for event in events(exchange(json.dumps(before).encode(), json.dumps(before).encode()), path):
        assert json.loads(event.data or b"") == after


@pytest.mark.parametrize(
    "body",
    [
        b'{"ssn": "s3cret", "ssn": "s3cret"}',
        b'{"ss\\u006e": "s3cret"}',
        b'{"ssn": "s3cret"} trailing s3cret',
        b'\xef\xbb\xbf{"ssn": "s3cret"}',
        b'{"ssn": "s3cret", "a": NaN}',
        b'{"ssn": "s3cret", "a": ' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'{"ssn": "s3cret"',
        b"ssn=s3cret",
        json.dumps({"ssn": "s3cret"}).encode("utf-16"),
        gzip.compress(b'{"ssn": "s3cret"}', mtime=0),
        b'{"ssn": "s3cret", "a": "' + b"x" * MAX_READ + b'"}',
        b'{"ssn": {"deeper": ["s3cret"]}}',
    ],
)
def test_no_secret_gets_out(body: bytes):
    for event in events(exchange(body, body), "$.ssn", max_bytes=1 << 24):
        assert b"s3cret" not in to_line(event)
        assert b"s3cret" not in (event.data or b"")
        assert "s3cret" not in str(to_headers(event))
        if event.data is None:
            assert event.change in ("omitted_not_json", "omitted_size")
            assert event.attributes["omitted"] in ("notjson", "size")
        else:
            assert json.loads(event.data)["ssn"] == REDACTED


def test_a_secret_behind_the_cut_is_redacted_before_the_cut():
    request, _ = events(exchange(b'{"ssn": "s3cret", "a": "%s"}' % (b"x" * 100)), "$.ssn", max_bytes=20)
    assert request.data == b'{"ssn":"[redacted]",'
    assert request.change == "truncated"


def test_a_request_without_a_body_is_told_with_a_redaction_too():
    request, _ = events(exchange(b""), "$.ssn")
    assert (request.data, request.change) == (b"", "")


@pytest.mark.parametrize("path", ["age", "$.", "$.a[", "$.a[x]", "$a"])
def test_a_wrong_path_is_one_clear_line(path: str):
    with pytest.raises(ValueError, match=r"^path '[^\n]+$"):
        Redaction([path])


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=20,
)


@given(_JSON, st.lists(st.sampled_from([".a", ".b", "[0]", "[1]", "[*]"]), max_size=4))
def test_redaction_replaces_exactly_what_the_path_names(document: Any, steps: list[str]):
    def expected(value: Any, left: list[str]) -> Any:
        if not left:
            return REDACTED
        step, *rest = left
        if isinstance(value, dict):
            return {k: expected(v, rest) if step in ("[*]", f".{k}") else v for k, v in value.items()}
        if isinstance(value, list):
            return [expected(v, rest) if step in ("[*]", f"[{i}]") else v for i, v in enumerate(value)]
        return value

    assert Redaction(["$" + "".join(steps)]).apply(json.dumps(document).encode()) == expected(document, steps)

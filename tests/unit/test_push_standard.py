"""OpenTelemetry's variables of an exporter: what is taken, what is left out and told; no value is ever told."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_operator.platforms.local.launch import sidecar_environment
from coalmine_operator.render.injection import OTLP_HEADERS
from coalmine_sidecar.push.settings import PushSettings, push_settings
from coalmine_sidecar.push.standard import VARIABLES, read_standard

ANY = "OTEL_EXPORTER_OTLP_"
METRICS = f"{ANY}METRICS_"
SOMEWHERE = {f"{ANY}ENDPOINT": "http://otel:4318"}
WRITE = "write NAME=VALUE, and what is not ASCII as %XX"


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, ""),
        ({f"{ANY}ENDPOINT": ""}, ""),
        ({f"{ANY}ENDPOINT": "http://otel:4318"}, "http://otel:4318/v1/metrics"),
        ({f"{ANY}ENDPOINT": "http://otel:4318/base/"}, "http://otel:4318/base/v1/metrics"),
        ({f"{METRICS}ENDPOINT": "http://otel:4318/taken/as/it/is"}, "http://otel:4318/taken/as/it/is"),
        ({f"{METRICS}ENDPOINT": "http://a/x", f"{ANY}ENDPOINT": "http://b"}, "http://a/x"),
        ({f"{METRICS}ENDPOINT": " ", f"{ANY}ENDPOINT": "http://b"}, "http://b/v1/metrics"),
        ({f"{ANY}ENDPOINT": "http://b", f"{ANY}PROTOCOL": "http/protobuf"}, "http://b/v1/metrics"),
        (
            {f"{ANY}ENDPOINT": "http://b", f"{ANY}PROTOCOL": "grpc", f"{METRICS}PROTOCOL": "http/json"},
            "http://b/v1/metrics",
        ),
        ({f"{ANY}ENDPOINT": "http://b", "OTEL_METRICS_EXPORTER": "none"}, ""),
        ({f"{ANY}ENDPOINT": "http://b", "OTEL_METRICS_EXPORTER": "console,otlp"}, "http://b/v1/metrics"),
    ],
)
def test_where_metrics_go(variables: dict[str, str], url: str):
    assert (read_standard(variables).url, read_standard(variables).remarks) == (url, ())


def test_what_is_nearer_to_us_wins_and_gets_the_headers():
    variables = {**SOMEWHERE, f"{ANY}HEADERS": "api-key=k", "COALMINE_OTLP": "http://prometheus/otlp"}
    assert push_settings(variables) == PushSettings(
        otlp="http://prometheus/otlp/v1/metrics", headers=(("api-key", "k"),)
    )


@pytest.mark.parametrize(
    ("text", "headers"),
    [
        ("", ()),
        ("api-key=k", (("api-key", "k"),)),
        (" Api-Key = k ,, b=c,", (("api-key", "k"), ("b", "c"))),
        ("authorization=Basic%20dTpw,a=b=c==", (("authorization", "Basic dTpw"), ("a", "b=c=="))),
        ("x%2Dkey=a%2Cb", (("x-key", "a,b"),)),
        ("a=1,A=2", (("a", "2"),)),
    ],
)
def test_headers(text: str, headers: tuple[tuple[str, str], ...]):
    found = read_standard({**SOMEWHERE, f"{ANY}HEADERS": text})
    assert (found.headers, found.remarks) == (headers, ())


def test_headers_of_metrics_take_the_place_of_all_others():
    found = read_standard({**SOMEWHERE, f"{ANY}HEADERS": "a=b", f"{METRICS}HEADERS": "c=d"})
    assert found.headers == (("c", "d"),)


@pytest.mark.parametrize(
    ("variables", "remark"),
    [
        (
            {f"{ANY}ENDPOINT": "otel:4318"},
            f"{ANY}ENDPOINT: left out: no URL: write http://HOST:PORT/PATH or https://HOST/",
        ),
        (
            {f"{METRICS}ENDPOINT": "http://u:s3cret@:1"},
            f"{METRICS}ENDPOINT: left out: no URL: write http://HOST:PORT/PATH",
        ),
        (
            {**SOMEWHERE, f"{ANY}PROTOCOL": "grpc"},
            f"{ANY}ENDPOINT: left out, since {ANY}PROTOCOL is grpc: metrics go over HTTP, mostly to port 4318",
        ),
        ({**SOMEWHERE, f"{ANY}HEADERS": "s3cret"}, f"{ANY}HEADERS: entry 1 is left out: {WRITE}"),
        ({**SOMEWHERE, f"{ANY}HEADERS": "a=b,k=s3cret%0d%0aX:y"}, f"{ANY}HEADERS: entry 2 is left out: {WRITE}"),
        ({**SOMEWHERE, f"{METRICS}HEADERS": "a b=s3cret"}, f"{METRICS}HEADERS: entry 1 is left out: {WRITE}"),
        ({**SOMEWHERE, f"{METRICS}HEADERS": "k=%E4s3cret"}, f"{METRICS}HEADERS: entry 1 is left out: {WRITE}"),
        ({**SOMEWHERE, f"{METRICS}HEADERS": "k="}, f"{METRICS}HEADERS: entry 1 is left out: {WRITE}"),
        (
            {**SOMEWHERE, f"{ANY}HEADERS": "Content-Length=7"},
            f"{ANY}HEADERS: entry 1 is left out: content-length is not for others to say",
        ),
        (
            {**SOMEWHERE, f"{ANY}HEADERS": ",".join(f"k{i}=s3cret" for i in range(40))},
            f"{ANY}HEADERS: entries from 33 on are left out: at most 32 are taken",
        ),
        ({**SOMEWHERE, f"{ANY}TIMEOUT": "5s"}, f"{ANY}TIMEOUT: '5s' is left out: write milliseconds, 1 to 300000"),
        ({**SOMEWHERE, f"{ANY}TIMEOUT": "0"}, f"{ANY}TIMEOUT: '0' is left out: write milliseconds, 1 to 300000"),
        (
            {**SOMEWHERE, f"{METRICS}TIMEOUT": "9" * 30},
            f"{METRICS}TIMEOUT: '{'9' * 20}' is left out: write milliseconds, 1 to",
        ),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line_without_its_value(variables: dict[str, str], remark: str):
    (said,) = read_standard(variables).remarks
    assert said.startswith(remark)
    assert "s3cret" not in said
    assert "\n" not in said


def test_who_pushes_nothing_is_told_nothing_of_headers():
    assert read_standard({f"{ANY}HEADERS": "nonsense", f"{ANY}TIMEOUT": "soon"}).remarks == ()


def test_timeouts_are_milliseconds():
    assert push_settings(SOMEWHERE).timeout == 5
    assert push_settings({**SOMEWHERE, f"{ANY}TIMEOUT": "10000", f"{METRICS}TIMEOUT": "250"}).timeout == 0.25


NAME = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=12).filter(
    lambda name: name not in ("connection", "content-encoding", "content-length", "content-type", "transfer-encoding")
)
VALUE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)).map(str.strip).filter(bool)


@given(headers=st.dictionaries(NAME, VALUE, min_size=1, max_size=8))
def test_whatever_is_encoded_arrives(headers: dict[str, str]):
    text = ",".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in headers.items())
    found = read_standard({**SOMEWHERE, f"{ANY}HEADERS": text})
    assert (dict(found.headers), found.remarks) == (headers, ())


@given(text=st.text(max_size=60))
def test_no_text_whatever_makes_a_header_of_two_lines(text: str):
    found = read_standard({**SOMEWHERE, f"{ANY}HEADERS": text})
    assert all((value.isascii() and value.isprintable()) or "\t" in value for _, value in found.headers)
    assert not any({"\r", "\n", "\0"} & set(name + value) for name, value in found.headers)


def test_a_laptops_sidecars_get_them(monkeypatch: pytest.MonkeyPatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, f"of {name}")
    assert {name: text for name, text in sidecar_environment().items() if name in VARIABLES} == {
        name: f"of {name}" for name in VARIABLES
    }
    assert OTLP_HEADERS in VARIABLES

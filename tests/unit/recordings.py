"""Recordings of live traffic for the tests of baselines, made by the payload log's own functions."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from tests.local.running import said

from coalmine_operator.api.baseline import Baseline, decode_baseline
from coalmine_sidecar.payload.event import Body, Event, Exchange, Source, make_events, to_line
from coalmine_sidecar.payload.redact import Redaction

POD = Source(model="fraud", namespace="default", deployment="fraud", pod="fraud-0")
IDENTITY = ("--model", "fraud", "--version", "v3")
V1 = "/v1/models/fraud:predict"


def body(content: Any, kind: str = "application/json", json_length: int | None = None) -> Body:
    """Of anything but bytes JSON is made."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Body(data=data, content_type=kind, json_length=json_length)


def events(number: int, request: Any, answer: Any, *, max_bytes: int = 65536, **more: Any) -> tuple[Event, Event]:
    """A request and its answer, each a Body or what `body` takes; `more` are fields of Exchange."""
    about: dict[str, Any] = {
        "id": f"id-{number}",
        "revision": "fraud-1",
        "version": "v3",
        "track": "stable",
        "started": 1_795_300_000.0 + number,
        "duration": 0.02,
        "path": V1,
        "status": 200,
    }
    bodies = [one if isinstance(one, Body) else body(one) for one in (request, answer)]
    exchange = Exchange(**about | more, request=bodies[0], response=bodies[1])
    return make_events(exchange, POD, Redaction(()), max_bytes)


def lines(number: int, request: Any, answer: Any, **more: Any) -> tuple[bytes, bytes]:
    """The same as the payload log writes them."""
    one, other = events(number, request, answer, **more)
    return to_line(one), to_line(other)


def v1(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    row = {"amount": float(number % 90), "kind": ["web", "shop"][number % 2]}
    return {"instances": [row, {"amount": None, "kind": "web"}]}, {"predictions": [number % 100 / 100, 0.5]}


def recorded(path: Path, parts: Iterable[tuple[bytes, bytes]]) -> Path:
    path.write_bytes(b"".join(line for pair in parts for line in pair))
    return path


def built(capsys: pytest.CaptureFixture[str], target: Path, *words: str | Path) -> tuple[Baseline, list[str]]:
    """`words`: data and options. The baseline, and what was said of it."""
    code, out, err = said(capsys, "baseline", "build", *map(str, words), "-o", str(target), *IDENTITY)
    assert (code, err) == (0, ""), err
    return decode_baseline(target.read_bytes()), out.splitlines()

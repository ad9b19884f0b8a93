"""`mirror` of the routing file: absent where it is off, so that older sidecars go on reading it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import UNSET

from coalmine_sidecar.contract import Mirror, RoutingError, decode_routing, encode_routing

REVISIONS = [
    {"name": "a", "version": "v1", "track": "stable", "weight": 100},
    {"name": "b", "version": "v2", "track": "canary"},
]


def decoded(**more: Any):
    document = {"deployment": "d", "model": "m", "generation": 1, "revisions": REVISIONS} | more
    return decode_routing(json.dumps(document).encode())


def test_off_it_is_not_in_the_file() -> None:
    assert decoded().mirror is UNSET
    assert b"mirror" not in encode_routing(decoded())


def test_on() -> None:
    routing = decoded(mirror={"source": "a", "target": "b", "percent": 20})
    assert routing.mirror == Mirror(source="a", target="b", percent=20, tolerance=0.05, output="")
    assert decode_routing(encode_routing(routing)) == routing


@pytest.mark.parametrize(
    ("mirror", "message"),
    [
        ({"source": "a", "target": "c", "percent": 1}, "c is no revision of this file"),
        ({"source": "c", "target": "a", "percent": 1}, "c is no revision of this file"),
        ({"source": "a", "target": "a", "percent": 1}, "mirror: a cannot be mirrored to itself"),
        ({"source": "a", "target": "b", "percent": 0}, "Expected `int` >= 1"),
        ({"source": "a", "target": "b", "percent": 101}, "Expected `int` <= 100"),
        ({"source": "a", "target": "b", "percent": 1, "tolerance": -0.1}, "Expected `float` >= 0"),
    ],
)
def test_what_makes_no_sense(mirror: dict[str, Any], message: str) -> None:
    with pytest.raises(RoutingError, match=message.replace("`", ".")):
        decoded(mirror=mirror)

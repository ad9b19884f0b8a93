"""The cases that wrk measures, and the one of half the load."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from .messages import BODY, REQUEST, tensor
from .wrk import Figures, Load

_SMALL = Load("/v2/models/m/infer", REQUEST)
#: Milliseconds between an answer and the next request where the load is not all that can be served.
PAUSE = 10


@dataclass
class Case:
    """`model`: which of them answers (peers.lab)."""

    name: str
    title: str
    load: Load
    connections: int
    model: str = "nginx"


CASES = (
    Case("c1", "95-byte POST, 130-byte answer, 1 connection", _SMALL, 1),
    Case("c32", "95-byte POST, 130-byte answer, 32 connections", _SMALL, 32),
    Case("c256", "95-byte POST, 130-byte answer, 256 connections", _SMALL, 256),
    Case("tensor", "64 KiB of JSON both ways, 32 connections", Load("/v2/models/tensor/infer", tensor("inputs")), 32),
    Case("new_connection", "a connection for each request, 32 at a time",
         Load("/v2/models/m/infer", REQUEST, close=True), 32),
    Case("body", "10 MB POST, 130-byte answer, 4 connections", Load("/body", BODY), 4, model="python"),
)  # fmt: skip
HALF = "half_load"
HALF_TITLE = "95-byte POST at half of what each served at 32 connections"


def half_of(full: Figures) -> Case:
    """Connections that pause between requests, as many as make half of the requests a second of `full`."""
    load = Load(_SMALL.path, _SMALL.body, pause_ms=PAUSE)
    # An answer under half the load takes about as long as without any; wrk adds half a millisecond by its clock.
    return Case(HALF, HALF_TITLE, load, ceil(full.rps / 2 * (PAUSE + 0.5) / 1e3))

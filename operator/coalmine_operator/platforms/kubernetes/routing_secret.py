"""The routing file as it stands in its Secret."""

from __future__ import annotations

import base64
import binascii

from coalmine_sidecar.contract import Routing, RoutingError, decode_routing

from ...render.injection import ROUTING_KEY
from ...render.routing import same_but_generation
from .held import Held


def routing_of(secret: Held | None) -> Routing | None:
    """What a Secret says; None where there is none or nothing usable in it."""
    if secret is None:
        return None
    try:
        return decode_routing(base64.b64decode(secret.body.get("data", {}).get(ROUTING_KEY, ""), validate=True))
    except (RoutingError, binascii.Error, ValueError):
        return None


def next_generation(wanted: Routing, present: Routing | None, known: int) -> int:
    """The generation `wanted` has or gets; `known`: the largest that anybody has seen."""
    if present is not None and present.generation >= known and same_but_generation(present, wanted):
        return present.generation
    return max(known, present.generation if present else 0) + 1

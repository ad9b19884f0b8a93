"""Answers in the sidecar's own name: which there are. A closed list, all of them counted from zero."""

from __future__ import annotations

from typing import Final

from .outputs import OTHER

#: Who failed. `both`: the model did, and that nobody else was asked is the sidecar's doing.
WHO: Final = ("sidecar", "upstream", "both")

#: Who, status, why.
Refused = tuple[str, int, str]

REFUSALS: Final[tuple[Refused, ...]] = (
    ("sidecar", 400, "malformed"),
    ("sidecar", 408, "slow_request"),
    ("sidecar", 413, "body_too_long"),
    ("sidecar", 417, "unsupported"),
    ("sidecar", 431, "head_too_long"),
    ("sidecar", 501, "unsupported"),
    ("sidecar", 503, "no_routing"),
    ("sidecar", 503, "queue_full"),
    ("sidecar", 503, "too_far_ahead"),
    ("sidecar", 503, "too_many_connections"),
    ("sidecar", 504, "deadline"),
    ("sidecar", 505, "unsupported"),
    ("upstream", 502, "refused"),
    ("upstream", 502, "reset"),
    ("upstream", 502, "status"),
    ("upstream", 503, "no_endpoint"),
    ("upstream", 504, "timeout"),
    ("both", 502, "reset"),
    ("both", 503, "breaker"),
    ("both", 504, "timeout"),
)
_BY_STATUS: Final = {
    400: "malformed", 408: "slow_request", 413: "body_too_long", 417: "unsupported", 431: "head_too_long",
    501: "unsupported", 504: "deadline", 505: "unsupported",
}  # fmt: skip
_WORDS: Final = frozenset(why for _, _, why in REFUSALS)
_CODES: Final = frozenset(code for _, code, _ in REFUSALS)


def reason_of(status: int) -> str:
    """Why the sidecar itself refuses with a status, for those that have one reason only."""
    return _BY_STATUS.get(status, OTHER)


def counted_as(who: str, status: int, why: str) -> Refused:
    """The place of a refusal that is not in the list: still one of a bounded number."""
    return who, status if status in _CODES else 500, why if why in _WORDS else OTHER

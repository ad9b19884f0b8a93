"""Feedback on predictions that another pod keeps: a question to all, and the labels to the one that knows.

Asking first keeps a label from counting twice where two pods know one id (a client that sent its request again).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import msgspec

from .result import Tally
from .store import Item

#: A post with it is another pod's: no further hops.
HOP_HEADER: Final = "coalmine-feedback-hop"
#: Posts that are passed on at a time; labels of others wait and are tried again.
_PASSING: Final = 4
#: Pods that are asked at a time for one post.
_ASKED: Final = 8
#: Items that are asked about at a time.
_QUESTION: Final = 1000
#: Items that a pod is handed at a time: it has an answer within a second, whatever else it does.
_HANDED: Final = 250


class Peer(Protocol):
    """Another pod of the model deployment."""

    async def post(self, body: bytes) -> bytes:
        """The body of the answer to a POST of `body` to its feedback path with HOP_HEADER: 1. Raises OSError."""


class _Answer(msgspec.Struct):
    unknown: list[str]
    outcomes: dict[str, int] = {}


class _Question(msgspec.Struct):
    ask: list[str]


_decode = msgspec.json.Decoder(_Answer).decode
_decode_question = msgspec.json.Decoder(_Question).decode


def asked_ids(body: bytes) -> list[str] | None:
    """The ids of a question, as many as one may ask for; None if it is none."""
    try:
        return _decode_question(body).ask[:_QUESTION]
    except (ValueError, RecursionError):
        return None


class Peers:
    """`all_peers`: the other pods as they are now."""

    def __init__(self, all_peers: Callable[[], Sequence[Peer]]) -> None:
        self._all = all_peers
        self._passing = 0

    async def pass_on(self, items: list[Item], tally: Tally, *, last: bool = False) -> list[Item]:
        """Hand items to the pods that know their predictions; the items of which nobody does.

        `last`: whoever does not pass them on now never will.
        """
        peers = self._all()
        if not peers or (self._passing >= _PASSING and not last):
            return items
        self._passing += 1
        left: list[Item] = []
        try:
            for start in range(0, len(items), _QUESTION):
                left += await _pass_on(peers, items[start : start + _QUESTION], tally)
        finally:
            self._passing -= 1
        return left


async def _pass_on(peers: Sequence[Peer], items: list[Item], tally: Tally) -> list[Item]:
    ids = list(dict.fromkeys(item.id for item in items))
    body = _question(ids)
    slots = asyncio.Semaphore(_ASKED)

    async def ask(peer: Peer) -> set[str]:
        async with slots:
            answer = await _post(peer, body)
        return set() if answer is None else set(ids).difference(answer.unknown)

    knows = await asyncio.gather(*map(ask, peers))
    left = items
    for peer, known in zip(peers, knows, strict=True):
        mine = [item for item in left if item.id in known]
        if not mine:
            continue
        left = [item for item in left if item.id not in known]
        for start in range(0, len(mine), _HANDED):
            left += await _hand(peer, mine[start : start + _HANDED], tally)
    return left


async def _hand(peer: Peer, items: list[Item], tally: Tally) -> list[Item]:
    """The items that it does not know after all."""
    answer = await _post(peer, _several(items))
    if answer is None:
        # It may have counted them: another try could count them twice.
        tally.count("peer_error", sum(item.given for item in items))
        return []
    tally.add(answer.outcomes)
    unknown = set(answer.unknown)
    return [item for item in items if item.id in unknown]


async def _post(peer: Peer, body: bytes) -> _Answer | None:
    try:
        return _decode(await peer.post(body))
    except (OSError, ValueError, RecursionError):
        return None


def _question(ids: list[str]) -> bytes:
    """The body by which another pod is asked which of these predictions it keeps."""
    return msgspec.json.encode({"ask": ids})


def _several(items: list[Item]) -> bytes:
    """Items as a post to another pod."""
    entries: list[dict[str, Any]] = []
    for item in items:
        brings = {"outcome": item.outcome, "value": item.value} if item.outcome else {"labels": item.truths}
        entries.append({"predictionId": item.id, "timestamp": item.at, **brings})
    return msgspec.json.encode(entries)

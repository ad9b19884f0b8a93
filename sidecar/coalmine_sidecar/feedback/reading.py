"""From the body of a post to labels and outcomes. Pure, and never raises: what can't be read is counted and told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from math import isfinite, nan
from typing import Any, Final

import msgspec

from . import seldon
from .labels import Truths
from .store import Item

MAX_BODY: Final = 1 << 20
#: Of a post from another pod, which writes the same feedback at greater length.
MAX_HOP_BODY: Final = 2 << 20
MAX_LABELS: Final = 10_000
MAX_ID_LENGTH: Final = 256
MAX_OUTCOME_LENGTH: Final = 64
#: Beyond it a value's sums lose the others' digits.
_LARGEST: Final = 1e15
#: So many complaints are told.
_TOLD: Final = 5
_NOTHING: Final = "neither label, labels nor outcome"
_SHAPE: Final = '{"predictionId": ID, "label": LABEL}'
_decode = msgspec.json.Decoder().decode


class Post:
    """A post's entries, which `read` makes items of: some at a time, as a post may take as long as many requests do.

    `status`: 202, or 400 or 413 where nothing of it can be read. `refused`: labels or entries that are none, by
    outcome; `reasons`: the first few, a line each.
    """

    __slots__ = ("_where", "entries", "reasons", "refused", "status")

    def __init__(self, body: bytes, limit: int = MAX_BODY) -> None:
        """`body`: an entry, a list of entries, {"feedback": [...]}, or Seldon's; `limit`: its bytes."""
        self.status = 202
        self.refused: dict[str, int] = {}
        self.reasons: list[str] = []
        self.entries: list[Any] = []
        self._where = ""
        if len(body) > limit:
            self._reject(413, "too_many", f"{len(body)} bytes are over {limit}: send several posts")
            return
        try:
            entries, self._where = _entries(_json(body))
        except (ValueError, RecursionError):
            self._reject(400, "malformed", f"not JSON: send {_SHAPE}, or a list of these")
            return
        if not entries:
            self._reject(400, "malformed", f"no feedback in it: send {_SHAPE}, or a list of these")
            return
        given = len(entries)
        if given <= MAX_LABELS:
            entries = [seldon.plain(entry) if seldon.wrote(entry) else entry for entry in entries]
            given = sum(map(_given, entries))
        if given > MAX_LABELS:
            self._reject(413, "too_many", f"{given} labels are over {MAX_LABELS}: send several posts", given)
            return
        self.entries = entries

    def read(self, start: int, stop: int, truths: Truths) -> list[Item]:
        """What the entries from `start` to before `stop` bring."""
        items: list[Item] = []
        for number, entry in enumerate(self.entries[start:stop], start):
            items += _read_entry(self, entry, self._where.format(number), truths)
        return items

    def refuse(self, outcome: str, reason: str, count: int = 1) -> None:
        self.refused[outcome] = self.refused.get(outcome, 0) + count
        if len(self.reasons) < _TOLD:
            self.reasons.append(reason)

    def _reject(self, status: int, outcome: str, reason: str, count: int = 1) -> None:
        self.status = status
        self.refuse(outcome, reason, count)


def valid_id(name: str) -> bool:
    return 0 < len(name) <= MAX_ID_LENGTH and name.isprintable()


def _json(body: bytes) -> Any:
    try:
        return _decode(body)
    except (ValueError, RecursionError):
        if b"NaN" not in body and b"Infinity" not in body:
            raise
    # As Python writes them: then the entry that has one can be told.
    return json.loads(body)


def _entries(document: object) -> tuple[list[Any], str]:
    """Entries, and how each is called in a reason."""
    if isinstance(document, list):
        return document, "[{}]"
    if not isinstance(document, dict):
        return [], ""
    if isinstance(several := document.get("feedback"), list):
        return several, "feedback[{}]"
    return ([document], "feedback") if document else ([], "")


def _given(entry: object) -> int:
    """At least how many labels an entry will be counted as."""
    if isinstance(entry, dict) and isinstance(labels := entry.get("labels"), list):
        return max(1, len(labels))
    return 1


def _read_entry(post: Post, entry: object, where: str, of: Truths) -> Iterator[Item]:
    if not isinstance(entry, dict):
        post.refuse("malformed", f"{where}: {_short(entry)} is no feedback: send {_SHAPE}")
        return
    given, single = entry.get("labels"), "label" in entry
    labels = [entry["label"]] if single else []
    labels += given if isinstance(given, list) else []
    business = "outcome" in entry
    # Whatever is wrong with an entry is wrong with all that it brings.
    brings = sum(label is not None for label in labels) + business
    name = entry.get("predictionId")
    if not isinstance(name, str) or not valid_id(name):
        path = "response.meta.puid" if seldon.PUID in entry else "predictionId"
        problem = f"{_short(name)} is no id: send a text of 1 to {MAX_ID_LENGTH} printable characters"
        post.refuse("malformed", f"{where}.{path}: {problem}", max(1, brings))
        return
    if not brings or (single and given is not None):
        problem = "both label and labels: send one of them" if brings else f"{_NOTHING}: send {_SHAPE}"
        post.refuse("malformed", f"{where}: {problem}", max(1, brings))
        return
    try:
        at = _time(entry.get("timestamp"))
    except (ValueError, OverflowError, OSError):
        problem = f"{_short(entry['timestamp'])} is no time: write it like 2026-11-22T16:00:00Z, or as Unix seconds"
        post.refuse("malformed", f"{where}.timestamp: {problem}", brings)
        return
    if business and (outcome := _read_outcome(post, entry, where)):
        yield Item(name, outcome=outcome[0], value=outcome[1], at=at)
    truths = [None if label is None else of.text(label) for label in labels]
    for row, (label, truth) in enumerate(zip(labels, truths, strict=True)):
        if label is not None and truth is None:
            path = f"{where}.label" if single else f"{where}.labels[{row}]"
            post.refuse("malformed", f"{path}: {_short(label)} is no label of a {of.task} model: {of.remedy}")
    if any(truth is not None for truth in truths):
        yield Item(name, tuple(truths), at=at)


def _read_outcome(post: Post, entry: dict[str, Any], where: str) -> tuple[str, float] | None:
    outcome, value = entry["outcome"], entry.get("value", 1)
    if not (isinstance(outcome, str) and 0 < len(outcome) <= MAX_OUTCOME_LENGTH and outcome.isprintable()):
        problem = f"{_short(outcome)} is no name: send a text of 1 to {MAX_OUTCOME_LENGTH} printable characters"
        post.refuse("malformed", f"{where}.outcome: {problem}")
        return None
    if not (isinstance(value, int | float) and -_LARGEST <= value <= _LARGEST):
        post.refuse("malformed", f"{where}.value: {_short(value)} is no number within {_LARGEST:g}")
        return None
    return outcome, float(value)


def _time(value: object) -> float | None:
    """Unix seconds. Raises ValueError, OverflowError or OSError if it is no time."""
    if value is None:
        return None
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError("no zone")
        seconds = moment.timestamp()
    else:
        seconds = nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    if not isfinite(seconds) or abs(seconds) > 1e11:
        raise ValueError("out of range")
    return seconds


def _short(value: object) -> str:
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _LARGEST:
        return "a number that large"
    return json.dumps(value[:40] if isinstance(value, str) else value)

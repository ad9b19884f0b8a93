"""What happened, from the load's own records: who answered how, what clients saw, how fast bad versions were out."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from examples.load import Record
from msgspec import Struct

from coalmine_operator.api.status import LastRollback

from .stage import Clients
from .story import Story, last_request


class VersionScore(Struct, frozen=True, kw_only=True):
    """Milliseconds. `accuracy`: share of right answers among the `labels` that arrived (None: none did)."""

    version: str
    answered: int
    p50_ms: float
    p99_ms: float
    labels: int
    accuracy: float | None


class RollbackScore(Struct, frozen=True, kw_only=True):
    """`decided_by`: verdict or alert. `seconds_to_last_request`: from that to the last request the version got."""

    version: str
    to: str
    decided_by: str
    seconds_to_last_request: float
    answered: int
    message: str
    evidence: dict[str, Any]


class ErrorScore(Struct, frozen=True, kw_only=True):
    """What a client saw instead of an answer, to a request sent at `sent` (Unix seconds)."""

    sent: float
    done: float
    error: str


class Scoreboard(Struct, frozen=True, kw_only=True):
    """`held_back`: requests not sent because too many were in flight. `first_errors`: at most ten."""

    sent: int
    client_errors: int
    errors: dict[str, int]
    first_errors: list[ErrorScore] = []
    held_back: int
    versions: list[VersionScore]
    rollbacks: list[RollbackScore]
    fallback_seconds: float
    fallback_answers: int

    def accuracy(self, version: str) -> float:
        """0 where no label arrived for it."""
        return next((v.accuracy or 0.0 for v in self.versions if v.version == version), 0.0)


def score(story: Story) -> Scoreboard:
    load = story.load
    killed = story.killed
    stood_in = [r for r in load.records if killed and r.version == "v1" and r.sent > killed.at and not r.error]
    return Scoreboard(
        sent=len(load.records),
        client_errors=len(load.errors),
        errors=dict(Counter(r.error for r in load.errors).most_common(5)),
        first_errors=[ErrorScore(sent=r.sent, done=r.done, error=r.error) for r in load.errors[:10]],
        held_back=load.held_back,
        versions=[_version(load, v) for v in sorted({r.version for r in load.records if r.version})],
        rollbacks=[_rollback(story, version, last) for version, last in story.rollbacks.items()],
        fallback_seconds=round(killed.back_after, 2) if killed else 0.0,
        fallback_answers=len(stood_in),
    )


def _version(load: Clients, version: str) -> VersionScore:
    milliseconds = [r.seconds * 1000 for r in load.records if r.version == version and not r.error]
    p50, p99 = np.quantile(milliseconds, (0.5, 0.99)) if milliseconds else (0.0, 0.0)
    return VersionScore(
        version=version,
        answered=len(milliseconds),
        p50_ms=round(float(p50), 1),
        p99_ms=round(float(p99), 1),
        labels=load.labels.right[version] + load.labels.wrong[version],
        accuracy=load.labels.accuracy().get(version),
    )


def _rollback(story: Story, version: str, last: LastRollback) -> RollbackScore:
    records: list[Record] = story.load.records
    return RollbackScore(
        version=version,
        to=last.target_version,
        decided_by="alert" if last.alert else "verdict",
        seconds_to_last_request=round(max(0.0, last_request(records, version) - story.decided(version)), 3),
        answered=sum(r.version == version and not r.error for r in records),
        message=last.message,
        evidence=_evidence(story, version, last),
    )


def _evidence(story: Story, version: str, last: LastRollback) -> dict[str, Any]:
    if last.alert:
        fired = next((f for f in story.pager.fired if f.version == version), None)
        measured = {"slow_share": round(fired.share, 3), "answers": fired.answers} if fired else {}
        return {"alert": last.alert.name, "labels": last.alert.labels, **measured}
    return {
        v.metric: {"logE": v.statistic, "threshold": v.threshold, "reason": v.reason, **v.evidence}
        for v in last.evidence
        if v.verdict == "Fail"
    }

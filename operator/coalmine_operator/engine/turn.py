"""One call of `step` in the making: what came in, and status and events as they take shape."""

from __future__ import annotations

from typing import Any, Literal

from msgspec.structs import replace

from ..analysis import baseline_bins, freeze_bins
from ..api import conditions as reasons
from ..api.spec import Metadata, ModelDeploymentSpec
from ..api.status import (
    MAX_HISTORY,
    MAX_QUARANTINED,
    AlertStatus,
    HistoryEntry,
    LastRollback,
    Quarantined,
    Rollout,
    Status,
    TrackStatus,
    Verdict,
)
from .model import Event, Observed, RevisionRecord
from .revisions import own_fallback_of, target_of, version_conflicts


class Turn:
    """Inputs (never changed) and the status being written. Lives for one call of `step` and never leaves it."""

    def __init__(
        self, spec: ModelDeploymentSpec, status: Status, observed: Observed, now: float, metadata: Metadata
    ) -> None:
        self.spec = spec
        self.observed = observed
        self.now = now
        self.metadata = metadata
        self.status = status
        self.events: list[Event] = []
        self.refused: dict[str, str] = {}
        self.wakes: list[float] = []
        self.waiting_for = ""  # why the rollout stands still, for people
        self.records = {name: state.record for name, state in observed.revisions.items()}
        self.target = self._keep(target_of(metadata, spec, now))
        self.own_fallback = own_fallback_of(metadata, spec, now)
        problems = observed.problems
        if not problems:
            problems = version_conflicts(self.target, observed.revisions, "spec.model.version")
            if self.own_fallback is not None:
                self.own_fallback = self._keep(self.own_fallback)
                problems += version_conflicts(self.own_fallback, observed.revisions, "spec.fallback.version")
        self.problems = problems

    def _keep(self, record: RevisionRecord) -> RevisionRecord:
        known = self.records.get(record.name)
        if known is None or known.lost:
            return record
        return known if known.baseline == record.baseline else replace(known, baseline=record.baseline)

    def record(self, name: str) -> RevisionRecord | None:
        """The record of a revision that exists or is asked for now."""
        for record in (self.target, self.own_fallback):
            if record is not None and record.name == name:
                return record
        return self.records.get(name)

    def version(self, name: str) -> str:
        record = self.record(name)
        return record.version if record else name

    def ready(self, name: str) -> int:
        state = self.observed.revisions.get(name)
        return state.ready if state else 0

    def failure(self, name: str) -> str:
        state = self.observed.revisions.get(name)
        return state.failure if state else ""

    @property
    def rollout(self) -> Rollout | None:
        return self.status.rollout

    @property
    def stable(self) -> str:
        """The stable revision; empty while the first one is still to prove that it starts."""
        if self.rollout is not None and not self.rollout.previous:
            return ""
        return self.status.stable.revision if self.status.stable else ""

    @property
    def canary(self) -> str:
        """The revision that is being tried beside stable, or empty."""
        rollout = self.rollout
        return rollout.revision if rollout and rollout.previous and not rollout.promoted_at else ""

    @property
    def fallback(self) -> str:
        """The revision that stands by for stable, or empty."""
        if self.own_fallback is not None:
            return self.own_fallback.name
        previous = self.status.previous
        if self.spec.fallback is None or previous == self.stable or self.quarantined(previous):
            return ""
        return previous if previous in self.records else ""

    def update(self, **changes: Any) -> None:
        self.status = replace(self.status, **changes)

    def move(self, rollout: Rollout, **changes: Any) -> Rollout:
        """Change fields of the rollout under way."""
        rollout = replace(rollout, **changes)
        self.update(rollout=rollout)
        return rollout

    def tell(self, reason: str, message: str, *, warning: bool = False) -> None:
        self.events.append(Event(reason=reason, message=message, warning=warning))

    def wake(self, at: float) -> None:
        self.wakes.append(at)

    def quarantined(self, name: str) -> Quarantined | None:
        return next((q for q in self.status.quarantined if q.revision == name), None)

    def begin(self) -> None:
        """Start the rollout of the target."""
        number = self.status.rollouts + 1
        self.update(
            rollouts=number,
            verdicts=(),
            bins=self.status.bins | freeze_bins(self.observed.values) | baseline_bins(self.spec.analysis),
            rollout=Rollout(
                id=number,
                revision=self.target.name,
                previous=self.stable,
                before=self.status.previous,
                started_at=self.now,
                waiting_at=self.now,
                preexisting=tuple(alert.fingerprint for alert in self.status.alerts if not alert.resolved_at),
            ),
        )
        came_from = f" beside {self.version(self.stable)}" if self.stable else ""
        self.tell("RolloutStarted", f"rollout {number}: {self.target.version} ({self.target.name}) starts{came_from}")

    def _close(
        self,
        rollout: Rollout,
        result: Literal["Promoted", "RolledBack", "Withdrawn"],
        reason: str,
        message: str,
        *,
        verdicts: tuple[Verdict, ...],
        alert: AlertStatus | None = None,
        actor: str = "",
    ) -> None:
        entry = HistoryEntry(
            id=rollout.id,
            revision=rollout.revision,
            version=self.version(rollout.revision),
            previous=rollout.previous,
            previous_version=self.version(rollout.previous) if rollout.previous else "",
            started_at=rollout.started_at,
            ended_at=self.now,
            result=result,
            reason=reason,
            message=message,
            verdicts=verdicts,
            alert=alert,
            actor=actor,
        )
        self.update(history=(*self.status.history, entry)[-MAX_HISTORY:])

    def withdraw(self, rollout: Rollout, message: str) -> None:
        """The spec asks for something else: the rollout ends without a judgement."""
        if not rollout.promoted_at:
            self._close(rollout, "Withdrawn", reasons.WITHDRAWN, message, verdicts=self.status.verdicts)
            version = self.version(rollout.revision)
            self.tell("RolloutWithdrawn", f"rollout {rollout.id}: {version} withdrawn: {message}")
        self.update(rollout=None, stable=self.status.stable if rollout.previous else None)

    def promote(self, rollout: Rollout) -> None:
        """The canary carries everything: from now on it is stable."""
        version = self.version(rollout.revision)
        if not rollout.previous:
            reason = reasons.FIRST_REVISION
        else:
            reason = reasons.PROMOTED_BY_ORDER if rollout.full else reasons.PROMOTED_BY_STEPS
        self._close(rollout, "Promoted", reason, f"{version} is stable", verdicts=self.status.verdicts)
        self.tell("Promoted", f"rollout {rollout.id}: {version} is stable")
        bakes = rollout.previous and self.spec.auto_rollback is not None and self.spec.auto_rollback.bake_time > 0
        self.update(
            stable=TrackStatus(revision=rollout.revision, version=version),
            previous=rollout.previous,
            rollout=replace(rollout, promoted_at=self.now, weight=100) if bakes else None,
        )

    def roll_back(
        self,
        rollout: Rollout,
        reason: str,
        message: str,
        *,
        evidence: tuple[Verdict, ...] = (),
        alert: AlertStatus | None = None,
        actor: str = "",
    ) -> None:
        """Take the rollout's revision out: traffic back to where it came from, and quarantine."""
        verdicts = self.status.verdicts
        self._close(rollout, "RolledBack", reason, message, verdicts=verdicts, alert=alert, actor=actor)
        self._retreat(rollout.revision, rollout.previous, reason, message, evidence, alert, bool(rollout.promoted_at))
        if rollout.promoted_at:
            self.update(previous=rollout.before)
        self.update(rollout=None)

    def retreat_from_stable(self, message: str, actor: str) -> None:
        """An order to go back from a stable revision whose rollout is long over."""
        source, target = self.stable, self.status.previous
        promotions = [e.id for e in self.status.history if e.revision == source and e.result == "Promoted"]
        number = promotions[-1] if promotions else self.status.rollouts
        undone = Rollout(id=number, revision=source, previous=target, started_at=self.now)
        self._close(undone, "RolledBack", reasons.ROLLED_BACK_BY_ORDER, message, verdicts=(), actor=actor)
        self.update(previous="")
        self._retreat(source, target, reasons.ROLLED_BACK_BY_ORDER, message, (), None, promoted=True)

    def _retreat(
        self,
        source: str,
        target: str,
        reason: str,
        message: str,
        evidence: tuple[Verdict, ...],
        alert: AlertStatus | None,
        promoted: bool,
    ) -> None:
        entry = Quarantined(revision=source, version=self.version(source), reason=reason, at=self.now)
        others = tuple(q for q in self.status.quarantined if q.revision != source)
        self.update(
            quarantined=(*others, entry)[-MAX_QUARANTINED:],
            stable=TrackStatus(revision=target, version=self.version(target)),
            last_rollback=LastRollback(
                source=source,
                target=target,
                source_version=self.version(source),
                target_version=self.version(target),
                reason=reason,
                message=message,
                at=self.now,
                evidence=evidence,
                alert=alert,
                promoted=promoted,
                shifted_at=0.0 if promoted else self.now,
            ),
        )
        self.tell(
            "RolledBack",
            f"{self.version(source)} rolled back to {self.version(target)}: {message}",
            warning=True,
        )

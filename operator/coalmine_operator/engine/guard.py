"""What takes a revision out: an alert, a verdict, a deadline. Watched in every phase of a rollout, paused or not."""

from __future__ import annotations

from ..analysis import BINS_CANNOT_TELL, Looked, bank, baseline_bins, epoch_boundaries, judge, recut
from ..api import conditions as reasons
from ..api.duration import show_seconds
from ..api.status import Rollout, Status
from .actions import action
from .alerts import innocent
from .gate import on_baseline, tell_mismatch
from .steps import epoch_name, pods_needed, step_requests
from .turn import Turn


def guard(turn: Turn) -> None:
    """Roll the rollout's revision back where there is reason to."""
    for check in (_alerts, _verdicts, _deadline):
        if turn.rollout is None:
            return
        check(turn, turn.rollout)


def _alerts(turn: Turn, rollout: Rollout) -> None:
    if not rollout.previous:
        return
    for alert in turn.status.alerts:
        if alert.resolved_at or alert.fingerprint in rollout.preexisting:
            continue
        if action(turn, alert) not in ("rollback", "fallback"):
            continue
        if innocent(alert, rollout, turn.record(rollout.revision)):
            rollout = turn.move(rollout, preexisting=(*rollout.preexisting, alert.fingerprint)[-100:])
            continue
        turn.roll_back(
            rollout, reasons.ALERT_FIRING, f"alert {alert.name} fires", evidence=turn.status.verdicts, alert=alert
        )
        return


def looked(turn: Turn, rollout: Rollout) -> Looked | None:
    """The counts of the present epoch, canary beside the stable it started from; None before anything was counted."""
    counts = turn.observed.epochs.get(epoch_name(rollout), {})
    canary, stable = counts.get(rollout.revision), counts.get(rollout.previous)
    if canary is None or stable is None:
        return None
    age = max(0.0, rollout.epoch_at - rollout.ready_at)
    return Looked(canary=canary, stable=stable, weight=rollout.epoch_weight, age=age)


def _verdicts(turn: Turn, rollout: Rollout) -> None:
    if not turn.canary:
        return
    verdicts = (*judge(turn.spec.analysis, looked(turn, rollout), rollout.banked), *on_baseline(turn))
    tell_mismatch(turn, turn.status.verdicts)
    if verdicts != turn.status.verdicts:
        turn.update(verdicts=verdicts)
    failed = [v for v in verdicts if v.verdict == "Fail"]
    if failed:
        names = ", ".join(v.metric for v in failed)
        turn.roll_back(rollout, reasons.ANALYSIS_FAILED, f"verdict Fail: {names}", evidence=tuple(failed))


def _deadline(turn: Turn, rollout: Rollout) -> None:
    baking = bool(rollout.promoted_at)
    ready = turn.ready(rollout.revision)
    enough = ready >= min(1, turn.spec.replicas) if baking else ready >= pods_needed(turn, rollout)
    if enough:
        if rollout.waiting_at:
            turn.move(rollout, waiting_at=0.0, ready_at=rollout.ready_at or turn.now)
        return
    if not rollout.waiting_at:
        turn.move(rollout, waiting_at=turn.now)
        return
    deadline = turn.spec.progress_deadline_seconds
    left = rollout.waiting_at + deadline - turn.now
    if left > 0:
        turn.wake(turn.now + left)
        return
    failure = turn.failure(rollout.revision)
    message = f"not ready within {show_seconds(deadline)}" + (f": {failure}" if failure else "")
    if rollout.previous:
        turn.roll_back(rollout, reasons.PROGRESS_DEADLINE_EXCEEDED, message)
    else:
        turn.waiting_for = message


def turn_epoch(turn: Turn, canary_weight: int, mirror: int) -> None:
    """Begin a new epoch where shares, conditions or bins change, and bank the evidence of the one that ends."""
    rollout = turn.rollout
    if rollout is None or not turn.canary:
        return
    due = 0.0
    if rollout.ready_at:
        ends = [rollout.ready_at + after for after in epoch_boundaries(turn.spec.analysis)]
        due = max((end for end in ends if end <= turn.now), default=0.0)
        for end in ends:
            if end > turn.now:
                turn.wake(end)
    kept = baseline_bins(turn.spec.analysis)
    bins = {name: edges for name, edges in recut(turn.status.bins, turn.observed.values).items() if name not in kept}
    shares = (rollout.epoch_weight, rollout.epoch_mirror)
    if shares == (canary_weight, mirror) and rollout.epoch_at >= due and not bins:
        return
    turn.move(
        rollout,
        banked=bank(turn.spec.analysis, looked(turn, rollout), rollout.banked),
        step_requests=step_requests(turn, rollout),
        epoch=rollout.epoch + 1,
        epoch_at=turn.now,
        epoch_weight=canary_weight,
        epoch_mirror=mirror,
    )
    if bins:
        turn.update(bins=turn.status.bins | bins)
        turn.tell("BinsCut", f"rollout {rollout.id}: bins are cut from stable's answers anew: {', '.join(bins)}")


def wants_values(status: Status) -> bool:
    """Whether stable's raw answers are of use: a rollout may begin, or the bins of the one under way tell nothing."""
    return status.rollout is None or any(verdict.reason == BINS_CANNOT_TELL for verdict in status.verdicts)

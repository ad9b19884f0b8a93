"""What alerts do beside rolling back: hold a rollout where it is, or let the fallback answer for stable."""

from __future__ import annotations

from typing import Final

from ..api.monitoring import Action
from ..api.status import AlertStatus
from .alerts import action_of, has_action, is_about_another, matches
from .turn import Turn

#: Seconds for which the fallback goes on answering after the alert resolved: without requests to stable there is
#: nothing to complain of, so that it may fire again as soon as they are back.
SETTLE: Final = 60.0


def action(turn: Turn, alert: AlertStatus) -> Action:
    """What an alert of the status does by the spec of now.

    It came there by `autoRollback`, whose list may be another one since, or by `spec.monitoring`.
    """
    spec = turn.spec
    found = action_of(spec.auto_rollback, spec.monitoring, alert.name, alert.labels)
    if found == "none" and spec.auto_rollback is not None and not has_action(alert.name, alert.labels):
        return "rollback"
    return found


def acting(turn: Turn) -> tuple[AlertStatus, ...]:
    """Alerts of the status, resolved ones too, that do something to the canary.

    One of `spec.monitoring` that names another revision does nothing to it: the canary may be the mend of just that.
    """
    record = turn.record(turn.canary)

    def mends(alert: AlertStatus) -> bool:
        guarded = matches(turn.spec.auto_rollback, alert.name, alert.labels)
        ours = has_action(alert.name, alert.labels) and not guarded
        return ours and record is not None and is_about_another(alert, record)

    return tuple(alert for alert in turn.status.alerts if action(turn, alert) != "none" and not mends(alert))


def holding(turn: Turn) -> tuple[AlertStatus, ...]:
    """Alerts that keep the canary from going on: those that hold, and those for which the fallback answers.

    An ordered promotion waits for none.
    """
    rollout = turn.rollout
    if rollout is None or not turn.canary or rollout.full:
        return ()
    held = (alert for alert in acting(turn) if not alert.resolved_at and action(turn, alert) == "hold")
    return (*held, *standing_in(turn))


def standing_in(turn: Turn) -> tuple[AlertStatus, ...]:
    """Alerts about stable for which the fallback answers everything; empty where it cannot, or stable is leaving.

    Not before weights have left a revision that was rolled back: one thing at a time.
    """
    last, rollout = turn.status.last_rollback, turn.rollout
    if not turn.spec.replicas or not turn.stable or not turn.fallback or not turn.ready(turn.fallback):
        return ()
    if turn.fallback == turn.stable or turn.quarantined(turn.fallback) or (last is not None and not last.done_at):
        return ()
    if rollout is not None and turn.canary and rollout.weight == 100:
        return ()
    return tuple(
        alert
        for alert in turn.status.alerts
        if (not alert.resolved_at or turn.now - alert.resolved_at < SETTLE)
        and action(turn, alert) == "fallback"
        and _about_stable(turn, alert)
    )


def _about_stable(turn: Turn, alert: AlertStatus) -> bool:
    """It names stable or nobody, began while stable was stable, and no revision was rolled back for it since."""
    record, last = turn.record(turn.stable), turn.status.last_rollback
    if record is not None and is_about_another(alert, record, "stable"):
        return False
    since = [e.ended_at for e in turn.status.history if e.revision == turn.stable and e.result == "Promoted"]
    if last is not None and (
        (last.promoted and last.target == turn.stable)
        or (last.alert is not None and last.alert.fingerprint == alert.fingerprint)
    ):
        since.append(last.at)
    return alert.starts_at > max(since, default=0.0)

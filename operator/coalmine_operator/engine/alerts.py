"""Alerts as the webhook tells them: which of them do what, folded into the set that fires, charged to the rollout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, cast, get_args

from coalmine_sidecar.contract import Track

from ..api.monitoring import Action, AlertName, Monitoring
from ..api.spec import AutoRollback
from ..api.status import MAX_ALERTS, AlertStatus, Rollout
from .model import RevisionRecord

#: Seconds for which a resolved alert is remembered.
REMEMBERED = 300.0
#: The label by which a rule says what its alert does.
ACTION_LABEL: Final = "action"
_NAMES: Final = frozenset(get_args(AlertName))
_ACTIONS: Final = frozenset(get_args(Action))


def matches(auto_rollback: AutoRollback | None, name: str, labels: Mapping[str, str]) -> bool:
    """Whether one of `autoRollback.alerts` names this alert. As in Alertmanager an empty value matches no label."""
    return auto_rollback is not None and any(
        (wanted.name is not None or wanted.match_labels)
        and (wanted.name is None or wanted.name == name)
        and all(labels.get(label, "") == value for label, value in wanted.match_labels.items())
        for wanted in auto_rollback.alerts
    )


def action_of(
    auto_rollback: AutoRollback | None, monitoring: Monitoring | None, name: str, labels: Mapping[str, str]
) -> Action:
    """What an alert does that is about this model deployment.

    Alerts of `spec.monitoring`, known by their names, do what an override says, or else their label `action`. One that
    `autoRollback` names rolls back whatever else is said of it; `fallback` does that too, and then more.
    """
    action = _told(monitoring, name, labels) if monitoring is not None else "none"
    return "rollback" if action in ("none", "hold") and matches(auto_rollback, name, labels) else action


def has_action(name: str, labels: Mapping[str, str]) -> bool:
    """It looks like an alert of `spec.monitoring`, and says what it does."""
    return name in _NAMES and labels.get(ACTION_LABEL) in _ACTIONS


def _told(monitoring: Monitoring, name: str, labels: Mapping[str, str]) -> Action:
    override = next((one for one in monitoring.alerts.overrides if one.name == name), None)
    if override is None and not monitoring.alerts.defaults:
        return "none"
    if override is not None and override.action is not None:
        return override.action
    return cast(Action, labels[ACTION_LABEL]) if has_action(name, labels) else "none"


def fold(known: Iterable[AlertStatus], events: Iterable[AlertStatus], now: float) -> tuple[AlertStatus, ...]:
    """The alerts after `events`: a firing one is added or goes on, a resolved one is kept a while, then forgotten."""
    alerts = {alert.fingerprint: alert for alert in known}
    for event in events:
        before = alerts.get(event.fingerprint)
        if event.resolved_at and before is None:
            continue
        if before is not None and not before.resolved_at and not event.resolved_at:
            continue  # Alertmanager repeats itself: nothing new, nothing to write
        alerts[event.fingerprint] = event
    kept = [alert for alert in alerts.values() if not alert.resolved_at or now - alert.resolved_at < REMEMBERED]
    # Over the bound the resolved and then the oldest go: what fires newest matters most.
    kept.sort(key=lambda alert: (bool(alert.resolved_at), -alert.received_at))
    return tuple(sorted(kept[:MAX_ALERTS], key=lambda alert: (alert.received_at, alert.fingerprint)))


def is_about_another(alert: AlertStatus, record: RevisionRecord, track: Track = "canary") -> bool:
    """The alert's own labels name another revision than `record`, or another track than its own."""
    labels = alert.labels
    return (
        labels.get("version", record.version) != record.version
        or labels.get("revision", record.name) != record.name
        or labels.get("track", track) not in (track, "")
    )


def innocent(alert: AlertStatus, rollout: Rollout, record: RevisionRecord | None) -> bool:
    """The rollout cannot have caused the alert: it began before the canary's first request, or names another.

    Copies are requests too: they take what the models share, such as a database.
    """
    if record is not None and not rollout.promoted_at and is_about_another(alert, record):
        return True
    never_served = not rollout.weight and not rollout.mirror and not rollout.promoted_at
    return never_served or alert.starts_at < rollout.started_at


def blocking(alerts: Iterable[AlertStatus], settle: float, now: float) -> tuple[AlertStatus, ...]:
    """Alerts that keep a promotion waiting: firing, or resolved for less than `settle` seconds (they may flap)."""
    return tuple(alert for alert in alerts if not alert.resolved_at or now - alert.resolved_at < settle)

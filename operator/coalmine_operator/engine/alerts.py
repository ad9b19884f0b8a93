"""Alerts as the webhook tells them: folded into the set that fires, and charged to the rollout or not."""

from __future__ import annotations

from collections.abc import Iterable

from ..api.status import MAX_ALERTS, AlertStatus, Rollout
from .model import RevisionRecord

#: Seconds for which a resolved alert is remembered.
REMEMBERED = 300.0


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


def is_about_another(alert: AlertStatus, record: RevisionRecord) -> bool:
    """The alert's own labels name another revision than `record`, or stable: not this canary's fault."""
    labels = alert.labels
    return (
        labels.get("version", record.version) != record.version
        or labels.get("revision", record.name) != record.name
        or labels.get("track", "canary") not in ("canary", "")
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

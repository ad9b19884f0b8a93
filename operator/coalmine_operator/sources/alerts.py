"""Alertmanager's webhook, version 4: bytes -> alerts -> events for the model deployments they are about. Pure."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from ..api.monitoring import Monitoring
from ..api.spec import AutoRollback
from ..api.status import AlertStatus
from ..engine import alerts as engine

MAX_BODY: Final = 1 << 20
MAX_ALERTS: Final = 200
#: Labels of an alert that are kept in a status: how many, and characters of each value.
KEPT_LABELS: Final = 32
KEPT_LABEL_LENGTH: Final = 256

#: Labels by which an alert says which model deployment it is about.
NAMESPACE_LABEL: Final = "namespace"
DEPLOYMENT_LABEL: Final = "modeldeployment"
MODEL_LABEL: Final = "model"
#: Labels that say more than others, here and in the engine: kept before all others.
_FIRST: Final = (
    "alertname",
    NAMESPACE_LABEL,
    DEPLOYMENT_LABEL,
    MODEL_LABEL,
    "version",
    "revision",
    "track",
    "severity",
    engine.ACTION_LABEL,
)

_Time = Annotated[dt.datetime, Meta(tz=True)]
_NEVER: Final = dt.datetime(1, 1, 1, tzinfo=dt.UTC)
_PLACE = re.compile(r"^(?P<what>.*?)(?: - at `(?:key in )?\$\.?(?P<path>.*)`)?$")


class AlertsError(ValueError):
    """A body that is no webhook of Alertmanager; the message is one line: path, value, remedy."""


class TooManyAlertsError(AlertsError):
    """A webhook over MAX_ALERTS."""


class _Alert(Struct, frozen=True, rename="camel"):
    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    starts_at: _Time = _NEVER
    ends_at: _Time = _NEVER
    fingerprint: Annotated[str, Meta(max_length=64)] = ""


class _Version(Struct, frozen=True):
    version: str


class _Webhook(Struct, frozen=True, rename="camel"):
    alerts: list[_Alert]
    group_labels: dict[str, str] = {}
    common_labels: dict[str, str] = {}
    truncated_alerts: Annotated[int, Meta(ge=0)] = 0


class Alert(Struct, frozen=True, kw_only=True):
    """One alert as heard. Times are Unix seconds; `ends_at` is 0 while it fires."""

    name: str
    labels: Mapping[str, str]
    fingerprint: str
    starts_at: float = 0.0
    ends_at: float = 0.0
    firing: bool = True


class Webhook(Struct, frozen=True, kw_only=True):
    """`truncated`: alerts that the sender left out because of its own `max_alerts`."""

    alerts: tuple[Alert, ...]
    truncated: int = 0


class Target(Struct, frozen=True, kw_only=True):
    """A model deployment as far as alerts go. `model`: the model's name, already defaulted to the deployment's."""

    namespace: str
    name: str
    model: str
    auto_rollback: AutoRollback | None = None
    monitoring: Monitoring | None = None

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


class Sorted(Struct, frozen=True, kw_only=True):
    """What a webhook means here. `matched`: alerts that do something; `unattributed`: about no deployment."""

    received: int
    matched: int
    events: Mapping[str, tuple[AlertStatus, ...]]
    unattributed: int


def decode(body: bytes) -> Webhook:
    """Read a webhook's body. Unknown fields pass: Alertmanager adds some now and then.

    Raises AlertsError (TooManyAlertsError among them) with one line that names the path.
    """
    if len(body) > MAX_BODY:
        raise AlertsError(f"body: {len(body)} bytes are over {MAX_BODY}: set max_alerts in the webhook receiver")
    try:
        version = msgspec.json.decode(body, type=_Version).version
        if version != "4":
            raise AlertsError(f"version: {version[:20]!r} is not supported: send Alertmanager's webhook version '4'")
        webhook = msgspec.json.decode(body, type=_Webhook)
    except msgspec.MsgspecError as error:
        raise AlertsError(_one_line(error)) from error
    except RecursionError as error:
        raise AlertsError("body: is nested too deep to be a webhook of Alertmanager") from error
    except UnicodeDecodeError as error:
        raise AlertsError("body: is no UTF-8: send the webhook as JSON") from error
    if len(webhook.alerts) > MAX_ALERTS:
        raise TooManyAlertsError(
            f"alerts: {len(webhook.alerts)} are over {MAX_ALERTS}: set max_alerts: {MAX_ALERTS} in the webhook receiver"
        )
    shared = webhook.common_labels | webhook.group_labels
    return Webhook(
        alerts=tuple(_alert(alert, shared) for alert in webhook.alerts),
        truncated=webhook.truncated_alerts,
    )


def attribute(alert: Alert, targets: Iterable[Target]) -> list[str]:
    """Keys of the model deployments an alert is about.

    The label `namespace`, where there is one, must be the deployment's. Then `modeldeployment` decides by its name;
    only without that label, `model` by its model's name. An alert with neither is about none.
    """
    namespace = alert.labels.get(NAMESPACE_LABEL)
    name = alert.labels.get(DEPLOYMENT_LABEL)
    model = alert.labels.get(MODEL_LABEL)

    def about(target: Target) -> bool:
        if namespace and namespace != target.namespace:
            return False
        return name == target.name if name else bool(model) and model == target.model

    return [target.key for target in targets if about(target)]


def matches(auto_rollback: AutoRollback | None, alert: Alert) -> bool:
    """Whether one of `autoRollback.alerts` names this alert."""
    return engine.matches(auto_rollback, alert.name, alert.labels)


def sort_out(webhook: Webhook, targets: Iterable[Target], now: float) -> Sorted:
    """Which alerts concern which model deployments: those attributed to one that do something to it.

    Its `autoRollback` names them, or they are of its `monitoring` and their action is not `none`.
    """
    by_key = {target.key: target for target in targets}
    events: dict[str, list[AlertStatus]] = {}
    matched = unattributed = 0
    for alert in webhook.alerts:
        keys = attribute(alert, by_key.values())
        unattributed += not keys
        guarded = [key for key in keys if _acts(by_key[key], alert)]
        matched += bool(guarded)
        for key in guarded:
            events.setdefault(key, []).append(_event(alert, now))
    return Sorted(
        received=len(webhook.alerts),
        matched=matched,
        events={key: tuple(found) for key, found in events.items()},
        unattributed=unattributed,
    )


def _acts(target: Target, alert: Alert) -> bool:
    return engine.action_of(target.auto_rollback, target.monitoring, alert.name, alert.labels) != "none"


def fingerprint(labels: Mapping[str, str]) -> str:
    """Alertmanager's identity of a label set: 64-bit FNV-1a over sorted names and values, each closed by 0xff.

    Source: `labelSetToFingerprint` of prometheus/common, model/signature.go.
    """
    digest = 0xCBF29CE484222325
    for name, value in sorted(labels.items()):
        for byte in b"%b\xff%b\xff" % (name.encode(), value.encode()):
            digest = (digest ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{digest:016x}"


def _alert(raw: _Alert, shared: Mapping[str, str]) -> Alert:
    labels = {**shared, **raw.labels}
    firing = raw.status == "firing"
    return Alert(
        name=labels.get("alertname", ""),
        labels=labels,
        fingerprint=raw.fingerprint or fingerprint(labels),
        starts_at=_seconds(raw.starts_at),
        ends_at=0.0 if firing else _seconds(raw.ends_at),
        firing=firing,
    )


def _event(alert: Alert, now: float) -> AlertStatus:
    kept = sorted(alert.labels.items(), key=lambda label: (label[0] not in _FIRST, label))[:KEPT_LABELS]
    return AlertStatus(
        fingerprint=alert.fingerprint,
        name=alert.name[:KEPT_LABEL_LENGTH],
        labels={name[:KEPT_LABEL_LENGTH]: value[:KEPT_LABEL_LENGTH] for name, value in kept},
        starts_at=min(alert.starts_at or now, now),
        received_at=now,
        # The sender's clock may be ahead of ours, and nothing that was heard lies in the future.
        resolved_at=0.0 if alert.firing else min(alert.ends_at or now, now),
    )


def _seconds(time: dt.datetime) -> float:
    return 0.0 if time.year == 1 else time.timestamp()


def _one_line(error: msgspec.MsgspecError) -> str:
    text = " ".join(str(error).split())[:300]
    found = _PLACE.match(text)
    what, path = (found["what"], found["path"]) if found else (text, None)
    if not isinstance(error, msgspec.ValidationError):
        return f"body: is no JSON: {what}"
    return f"{path or 'body'}: {what[:1].lower()}{what[1:]}"

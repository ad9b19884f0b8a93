"""Alertmanager's webhook: what it says, which model deployments it is about, and what malformed bodies are told."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coalmine_operator.api.spec import AlertMatch, AutoRollback
from coalmine_operator.sources import alerts

NEVER = "0001-01-01T00:00:00Z"
NOW = 1_795_300_000.0

#: As Alertmanager 0.25 sends a group with one alert that fires and one that resolved.
GROUPED: dict[str, Any] = {
    "receiver": "coalmine",
    "status": "firing",
    "alerts": [
        {
            "status": "firing",
            "labels": {
                "alertname": "ModelLatencyHigh",
                "model": "breast-cancer",
                "namespace": "default",
                "severity": "critical",
                "version": "v4",
            },
            "annotations": {"summary": "p99 is 0.9 s"},
            "startsAt": "2026-11-21T22:00:00.123456789Z",
            "endsAt": NEVER,
            "generatorURL": "http://prometheus:9090/graph?g0.expr=1",
            "fingerprint": "0b8a1d7c8d1f2b3a",
        },
        {
            "status": "resolved",
            "labels": {
                "alertname": "ModelLatencyHigh",
                "model": "breast-cancer",
                "namespace": "default",
                "severity": "critical",
                "version": "v3",
            },
            "annotations": {"summary": "p99 was 0.9 s"},
            "startsAt": "2026-11-21T23:00:00+02:00",
            "endsAt": "2026-11-21T23:30:00+02:00",
            "generatorURL": "http://prometheus:9090/graph?g0.expr=1",
            "fingerprint": "1c9b2e8d9e203c4b",
        },
    ],
    "groupLabels": {"alertname": "ModelLatencyHigh"},
    "commonLabels": {
        "alertname": "ModelLatencyHigh",
        "model": "breast-cancer",
        "namespace": "default",
        "severity": "critical",
    },
    "commonAnnotations": {},
    "externalURL": "http://alertmanager:9093",
    "version": "4",
    "groupKey": '{}:{alertname="ModelLatencyHigh"}',
    "truncatedAlerts": 0,
}


def webhook(*raw: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"version": "4", "alerts": list(raw), **fields}).encode()


def firing(**labels: str) -> dict[str, Any]:
    return {"status": "firing", "labels": labels, "startsAt": "2026-11-21T22:00:00Z"}


def one(**labels: str) -> alerts.Alert:
    return alerts.decode(webhook(firing(**labels))).alerts[0]


def target(name: str = "fraud", namespace: str = "default", model: str = "", *match: AlertMatch) -> alerts.Target:
    guard = AutoRollback(alerts=match) if match else None
    return alerts.Target(namespace=namespace, name=name, model=model or name, auto_rollback=guard)


def test_reads_a_group_with_firing_and_resolved_alerts() -> None:
    first, second = alerts.decode(json.dumps(GROUPED).encode()).alerts
    assert (first.name, first.firing, first.fingerprint) == ("ModelLatencyHigh", True, "0b8a1d7c8d1f2b3a")
    assert first.starts_at == pytest.approx(1795298400.123456, abs=1e-5)
    assert first.ends_at == 0
    assert (second.firing, second.starts_at, second.ends_at) == (False, 1795294800.0, 1795296600.0)
    assert second.labels["version"] == "v3"


def test_group_and_common_labels_reach_every_alert_and_its_own_win() -> None:
    body = webhook(
        firing(version="v2", severity="page"),
        groupLabels={"alertname": "Slow"},
        commonLabels={"model": "fraud", "severity": "critical"},
    )
    (alert,) = alerts.decode(body).alerts
    assert alert.name == "Slow"
    assert alert.labels == {"alertname": "Slow", "model": "fraud", "severity": "page", "version": "v2"}


def test_a_missing_fingerprint_is_alertmanagers_own_hash() -> None:
    # As Alertmanager 0.25 shows it for an alert posted with these labels.
    assert one(model="fraud", alertname="Slow").fingerprint == "818b5d196bb74042"
    assert alerts.fingerprint({}) == "cbf29ce484222325"


def test_a_firing_alert_has_not_ended_whatever_ends_at_says() -> None:
    body = webhook({**firing(alertname="A"), "endsAt": "2026-11-21T23:00:00Z"})
    assert alerts.decode(body).alerts[0].ends_at == 0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "body: is no JSON: Input data was truncated"),
        (b"alertname=Slow", "body: is no JSON: JSON is malformed: invalid character (byte 0)"),
        (b"[]", "body: expected `object`, got `array`"),
        (b'{"alerts": []}', "body: object missing required field `version`"),
        (
            b'{"version": "3", "alerts": []}',
            "version: '3' is not supported: send Alertmanager's webhook version '4'",
        ),
        (b'{"version": "4"}', "body: object missing required field `alerts`"),
        (webhook({"status": "pending", "labels": {}}), "alerts[0].status: invalid enum value 'pending'"),
        (webhook({"status": "firing", "labels": {"a": 1}}), "alerts[0].labels[...]: expected `str`, got `int`"),
        (
            webhook({**firing(), "startsAt": "yesterday"}),
            "alerts[0].startsAt: invalid RFC3339 encoded datetime",
        ),
        (
            webhook({**firing(), "startsAt": "2026-11-21T22:00:00"}),
            "alerts[0].startsAt: expected `datetime` with a timezone component",
        ),
        (b'{"version": "4", "alerts": ' + b"[" * 50_000, "body: is nested too deep to be a webhook of Alertmanager"),
        (b'{"version": "\xff"}', "body: is no UTF-8: send the webhook as JSON"),
        (b" " * (alerts.MAX_BODY + 1), "body: 1048577 bytes are over 1048576: set max_alerts in the webhook receiver"),
    ],
)
def test_a_malformed_body_gets_one_line_with_the_path(body: bytes, message: str) -> None:
    with pytest.raises(alerts.AlertsError) as caught:
        alerts.decode(body)
    assert str(caught.value) == message


def test_too_many_alerts_are_refused_with_the_remedy() -> None:
    assert len(alerts.decode(webhook(*[firing()] * 200)).alerts) == 200
    with pytest.raises(alerts.TooManyAlertsError, match=r"^alerts: 201 are over 200: set max_alerts: 200 in the"):
        alerts.decode(webhook(*[firing()] * 201))


_values = st.recursive(st.none() | st.integers() | st.text(), st.lists)
_bodies = st.one_of(
    st.binary(max_size=200),
    st.builds(lambda text: json.dumps({"version": text, "alerts": []}).encode(), st.text()),
    st.builds(lambda text: webhook({"status": text, "labels": {}}), st.text()),
    st.builds(lambda value: json.dumps({"version": "4", "alerts": value}).encode(), _values),
    st.builds(lambda labels: webhook({"status": "firing", "labels": labels}), st.dictionaries(st.text(), st.text())),
)


@given(_bodies)
@settings(max_examples=100, deadline=None)
def test_any_body_is_read_or_refused_in_one_line(body: bytes) -> None:
    message = ""
    try:
        alerts.decode(body)
    except alerts.AlertsError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1


def test_attribution_by_name_then_by_model_within_the_namespace() -> None:
    known = [target("fraud"), target("fraud", "shop"), target("scorer", model="fraud"), target("other")]

    def about(**labels: str) -> list[str]:
        return alerts.attribute(one(**labels), known)

    assert about(modeldeployment="fraud") == ["default/fraud", "shop/fraud"]
    assert about(modeldeployment="fraud", namespace="shop") == ["shop/fraud"]
    assert about(model="fraud", namespace="default") == ["default/fraud", "default/scorer"]
    assert about(modeldeployment="scorer", model="other") == ["default/scorer"]
    assert about(modeldeployment="nobody", model="fraud") == []
    assert about(alertname="Slow", namespace="default") == []


def test_matching_needs_name_and_all_labels_of_one_entry() -> None:
    guard = AutoRollback(
        alerts=(
            AlertMatch(name="Slow", match_labels={"severity": "critical"}),
            AlertMatch(match_labels={"team": "ml", "muted": ""}),
        )
    )
    assert alerts.matches(guard, one(alertname="Slow", severity="critical"))
    assert not alerts.matches(guard, one(alertname="Slow", severity="page"))
    assert not alerts.matches(guard, one(alertname="Fast", severity="critical"))
    assert alerts.matches(guard, one(alertname="Any", team="ml"))
    assert not alerts.matches(guard, one(alertname="Any", team="ml", muted="yes"))
    assert not alerts.matches(None, one(alertname="Slow"))
    assert not alerts.matches(AutoRollback(), one(alertname="Slow"))
    assert not alerts.matches(AutoRollback(alerts=(AlertMatch(),)), one(alertname="Slow"))


def test_only_attributed_and_matching_alerts_become_events() -> None:
    guard = AlertMatch(name="ModelLatencyHigh")
    known = [target("cancer", "default", "breast-cancer", guard), target("fraud", "default", "fraud", guard)]
    body = {**GROUPED, "alerts": [*GROUPED["alerts"], firing(alertname="Slow", model="fraud"), firing(alertname="X")]}
    # Common labels would reach the added alerts as well, which Alertmanager never sends.
    body["commonLabels"] = body["groupLabels"] = {}
    found = alerts.sort_out(alerts.decode(json.dumps(body).encode()), known, NOW)
    assert (found.received, found.unattributed) == (4, 1)
    assert list(found.events) == ["default/cancer"]
    fires, resolved = found.events["default/cancer"]
    assert (fires.name, fires.resolved_at, fires.received_at) == ("ModelLatencyHigh", 0, NOW)
    assert resolved.resolved_at == 1795296600.0
    assert msgspec.convert(msgspec.to_builtins(fires), type(fires)) == fires


def test_a_resolved_alert_has_resolved_by_now_whatever_the_senders_clock_says() -> None:
    guard = target("fraud", "default", "fraud", AlertMatch(name="Slow"))
    for ends_at, resolved_at in (
        (NEVER, NOW),
        ("2030-01-01T00:00:00Z", NOW),
        ("2026-11-21T22:00:00Z", 1795298400.0),
    ):
        raw = {**firing(alertname="Slow", model="fraud"), "status": "resolved", "endsAt": ends_at}
        found = alerts.sort_out(alerts.decode(webhook(raw)), [guard], NOW)
        assert [event.resolved_at for event in found.events["default/fraud"]] == [resolved_at]


def test_what_is_kept_of_an_alert_is_bounded() -> None:
    guard = target("fraud", "default", "fraud", AlertMatch(match_labels={"model": "fraud"}))
    labels = {f"label{i:03}": "x" * 5000 for i in range(100)} | {"model": "fraud", "version": "v2", "track": "canary"}
    found = alerts.sort_out(alerts.decode(webhook(firing(**labels))), [guard], NOW)
    (event,) = found.events["default/fraud"]
    assert len(event.labels) == alerts.KEPT_LABELS
    assert max(map(len, event.labels.values())) == alerts.KEPT_LABEL_LENGTH
    # What the engine reads survives whatever else there is.
    assert (event.labels["version"], event.labels["track"]) == ("v2", "canary")

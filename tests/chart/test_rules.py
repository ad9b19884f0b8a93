"""The rules for Prometheus, fired and not fired by promtool, and charged by Coalmine to whom they are about."""

from __future__ import annotations

import json
from math import log
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.chart.chart import Chart, named, of_kind
from tests.chart.promtool import LOOK, V1, V2, WHERE, alerts, grows, needs_promtool, run, stays, tool

from coalmine_operator.api.spec import AlertMatch, AutoRollback
from coalmine_operator.render.rules import Parameters, groups
from coalmine_operator.sources.alerts import Target, decode, sort_out

RULES = {"rulesConfigMap": {"enabled": True}, "prometheusRule": {"enabled": True}}


def rules_text(chart: Chart, values: dict[str, Any] | None = None) -> str:
    (config,) = [
        one
        for one in of_kind(chart.render({**RULES, **(values or {})}), "ConfigMap")
        if "coalmine.rules.yaml" in one["data"]
    ]
    text: str = config["data"]["coalmine.rules.yaml"]
    return text


@pytest.fixture
def rules(chart: Chart) -> str:
    return rules_text(chart)


def requests(version: dict[str, str], per_minute: float, outcome: str = "ok", code: str = "200") -> dict[str, str]:
    return grows("coalmine_requests_total", per_minute, WHERE, version, role="ingress", outcome=outcome, code=code)


def weights(canary: int = 50) -> list[dict[str, str]]:
    return [
        stays("coalmine_route_weight", weight, WHERE, version, pod=pod)
        for version, weight in ((V1, 100 - canary), (V2, canary))
        for pod in ("a", "b")
    ]


def rescued(per_minute: float) -> dict[str, str]:
    return grows(
        "coalmine_fallbacks_total", per_minute, WHERE, from_version="v2", to_version="v1", reason="status", pod="a"
    )


def durations(version: dict[str, str], per_minute: float, seconds: float) -> list[dict[str, str]]:
    bounds = ("0.1", "0.5", "1.0", "2.5", "+Inf")
    return [
        grows(
            "coalmine_request_duration_seconds_bucket",
            per_minute if seconds <= float(bound) else 0,
            WHERE, version, role="ingress", le=bound, pod="a",
        )
        for bound in bounds
    ]  # fmt: skip


CANARY_IS_BAD = {**WHERE, **V2, "severity": "critical"}
DEPLOYMENT = {"namespace": "shop", "name": "fraud"}
CRITICAL = {"namespace": "shop", "modeldeployment": "fraud", "severity": "critical"}
WARNING = {**CRITICAL, "severity": "warning"}
ABOUT_V1 = {**WHERE, **V1, "severity": "warning"}


def available(value: int, phase: str = "Degraded") -> list[dict[str, str]]:
    return [
        stays("coalmine_deployment_available", value, DEPLOYMENT),
        stays("coalmine_deployment_phase", 1, DEPLOYMENT, phase=phase),
        stays("coalmine_deployment_phase", 0, DEPLOYMENT, phase="Healthy" if phase != "Healthy" else "Pending"),
    ]


#: The model deployment's own rules, which `coalmine rules` prints, are loaded.
OWN_RULES = stays("coalmine:rules_window:seconds", 3600, namespace="shop", modeldeployment="fraud")

SCENARIOS: dict[str, dict[str, Any]] = {
    "a canary that fails": alerts(
        "ModelErrorRateHigh", CANARY_IS_BAD,
        series=[*weights(), requests(V1, 60), requests(V2, 94), requests(V2, 6, "model_error")],
    ),
    "a canary that times out": alerts(
        "ModelErrorRateHigh", CANARY_IS_BAD,
        series=[*weights(), requests(V1, 60), requests(V2, 50), requests(V2, 10, "timeout")],
    ),
    "a canary whose failures stable answers": alerts(
        "ModelErrorRateHigh", CANARY_IS_BAD,
        series=[*weights(), requests(V1, 60), requests(V2, 50), rescued(10)],
    ),
    "a canary that answers nothing at all": alerts(
        "ModelErrorRateHigh", CANARY_IS_BAD,
        series=[*weights(), requests(V1, 60), requests(V2, 0), rescued(10)],
    ),
    "failures under the threshold": alerts(
        "ModelErrorRateHigh", series=[*weights(), requests(V2, 96), requests(V2, 4, "model_error")]
    ),
    "requests that are wrong": alerts(
        "ModelErrorRateHigh", series=[*weights(), requests(V2, 50), requests(V2, 50, "client_error")]
    ),
    "failures under the threshold among requests that are wrong": alerts(
        "ModelErrorRateHigh",
        series=[*weights(), requests(V2, 46), requests(V2, 50, "client_error"), requests(V2, 4, "model_error")],
    ),
    "failures that answers handed on do not hide": alerts(
        "ModelErrorRateHigh", CANARY_IS_BAD,
        series=[
            *weights(), requests(V2, 94), requests(V2, 6, "model_error"),
            grows("coalmine_requests_total", 100, WHERE, V2, role="local", outcome="ok", code="200"),
        ],
    ),
    "a queue that is full": alerts(
        "ModelErrorRateHigh", CANARY_IS_BAD, series=[*weights(), requests(V2, 90), requests(V2, 10, "rejected", "503")]
    ),
    "requests too long for the sidecar": alerts(
        "ModelErrorRateHigh", series=[*weights(), requests(V2, 50), requests(V2, 50, "rejected", "413")]
    ),
    "clients that leave": alerts(
        "ModelErrorRateHigh", series=[*weights(), requests(V2, 50), requests(V2, 50, "cancelled")]
    ),
    "too few requests to say": alerts(
        "ModelErrorRateHigh", series=[*weights(), requests(V2, 1), requests(V2, 1, "model_error")]
    ),
    "no requests": alerts("ModelErrorRateHigh", series=[*weights(), requests(V2, 0)]),
    "what was handed on counts once": alerts(
        "ModelErrorRateHigh",
        series=[
            *weights(), requests(V2, 60),
            grows("coalmine_requests_total", 60, WHERE, V2, role="local", outcome="model_error", code="500"),
        ],
    ),
    "a slow canary": alerts(
        "ModelLatencyHigh", {**CANARY_IS_BAD, "quantile": "0.99"},
        series=[*weights(), requests(V1, 60), requests(V2, 60), *durations(V1, 60, 0.2), *durations(V2, 60, 2)],
    ),
    "a fast canary": alerts(
        "ModelLatencyHigh", series=[*weights(), requests(V2, 60), *durations(V2, 60, 0.9)]
    ),
    "two slow requests": alerts("ModelLatencyHigh", series=[*weights(), requests(V2, 2), *durations(V2, 2, 2)]),
    "nobody answers": alerts("ModelUnavailable", CRITICAL, series=available(0)),
    "nobody answers, as the model deployment's own rules tell": alerts(
        "ModelUnavailable", series=[*available(0), OWN_RULES]
    ),
    "nobody answers for two, one of which has rules of its own": alerts(
        "ModelUnavailable", {**CRITICAL, "namespace": "lab"},
        series=[
            *available(0), OWN_RULES,
            stays("coalmine_deployment_available", 0, {**DEPLOYMENT, "namespace": "lab"}),
        ],
    ),
    "somebody answers": alerts("ModelUnavailable", series=available(1)),
    "the first version still loads": alerts("ModelUnavailable", series=available(0, "Pending")),
    "stable answers for the canary": alerts(
        "ModelFallbacksHigh", {**WHERE, "severity": "warning"},
        series=[*weights(), requests(V1, 50), requests(V2, 44), rescued(6)],
    ),
    "stable answers now and then": alerts(
        "ModelFallbacksHigh", series=[*weights(), requests(V1, 50), requests(V2, 46), rescued(4)]
    ),
    "memory runs out": alerts(
        "ModelMemoryHigh", {**ABOUT_V1, "pod": "a"},
        series=[
            stays("coalmine_model_memory_bytes", 91, WHERE, V1, pod="a", kind="rss"),
            stays("coalmine_model_memory_bytes", 100, WHERE, V1, pod="a", kind="limit"),
            stays("coalmine_model_memory_bytes", 89, WHERE, V1, pod="b", kind="rss"),
            stays("coalmine_model_memory_bytes", 100, WHERE, V1, pod="b", kind="limit"),
        ],
    ),
    "memory without a limit": alerts(
        "ModelMemoryHigh", series=[stays("coalmine_model_memory_bytes", 95, WHERE, V1, pod="a", kind="rss")]
    ),
    "no operator": alerts("CoalmineOperatorDown", {"severity": "warning"}, series=weights()),
    "an operator": alerts("CoalmineOperatorDown", series=[grows("coalmine_operator_reconciles_total", 1, result="ok")]),
    "reconciles fail": alerts(
        "CoalmineReconcilesFailing", {"severity": "warning"},
        series=[grows("coalmine_operator_reconciles_total", 1, result="error")],
    ),
    "reconciles failed once": alerts(
        "CoalmineReconcilesFailing", series=[stays("coalmine_operator_reconciles_total", 1, result="error")]
    ),
    "webhooks refused": alerts(
        "CoalmineAlertsRefused", {"severity": "warning", "result": "refused"},
        series=[grows("coalmine_operator_alerts_received_total", 1, result="refused")],
    ),
    "webhooks taken": alerts(
        "CoalmineAlertsRefused",
        series=[
            grows("coalmine_operator_alerts_received_total", 1, result="matched"),
            stays("coalmine_operator_alerts_received_total", 0, result="refused"),
        ],
    ),
    "sidecars that nobody scrapes": alerts("MonitoringBlind", WARNING, series=available(1, "Healthy")),
    "sidecars that nobody scrapes, as the model deployment's own rules tell": alerts(
        "MonitoringBlind", series=[*available(1, "Healthy"), OWN_RULES]
    ),
    "sidecars that are scraped": alerts("MonitoringBlind", series=[*available(1, "Healthy"), *weights()]),
    "answers that cannot be read": alerts(
        "OutputsUnread", ABOUT_V1,
        series=[
            requests(V1, 60),
            grows("coalmine_extract_failures_total", 40, WHERE, V1, reason="no_json"),
            stays("coalmine_observations_skipped_total", 0, WHERE, V1, reason="budget"),
            stays("coalmine_predictions_total", 7, WHERE, V1),
        ],
    ),
    "answers that are read": alerts(
        "OutputsUnread",
        series=[
            requests(V1, 60),
            grows("coalmine_extract_failures_total", 20, WHERE, V1, reason="no_json"),
            stays("coalmine_observations_skipped_total", 0, WHERE, V1, reason="budget"),
            grows("coalmine_predictions_total", 40, WHERE, V1),
        ],
    ),
    "answers that never could be read": alerts(
        "OutputsUnread",
        series=[
            requests(V1, 60),
            grows("coalmine_extract_failures_total", 60, WHERE, V1, reason="no_json"),
            stays("coalmine_observations_skipped_total", 0, WHERE, V1, reason="budget"),
            stays("coalmine_predictions_total", 0, WHERE, V1),
        ],
    ),
    "a routing file that does not arrive": alerts(
        "RoutingBehind", WARNING,
        series=[
            stays("coalmine_routing_generation", value, namespace="shop", modeldeployment="fraud", pod=pod)
            for pod, value in (("a", 7), ("b", 6))
        ],
    ),
    "routing files that arrive": alerts(
        "RoutingBehind",
        series=[
            stays("coalmine_routing_generation", 7, namespace="shop", modeldeployment="fraud", pod=pod) for pod in "ab"
        ],
    ),
}  # fmt: skip


ALERTS = sorted({scenario["alert_rule_test"][0]["alertname"] for scenario in SCENARIOS.values()})


@needs_promtool
@pytest.mark.parametrize("alert", ALERTS)
def test_alerts(rules: str, alert: str, tmp_path: Path) -> None:
    scenarios = [
        {"name": name, **scenario}
        for name, scenario in SCENARIOS.items()
        if scenario["alert_rule_test"][0]["alertname"] == alert
    ]
    assert run(tmp_path, only(rules, alert), *scenarios) == ""


@needs_promtool
@pytest.mark.parametrize(
    ("alert", "series", "ours"),
    [
        ("ModelUnavailable", available(0), {**CRITICAL, "action": "fallback"}),
        (
            "MonitoringBlind",
            available(1, "Healthy"),
            {**WARNING, "model": "fraud", "action": "hold", "reason": "unscraped"},
        ),
    ],
)
def test_an_outage_is_one_alert_where_both_rules_are_loaded(
    rules: str, alert: str, series: list[dict[str, str]], ours: dict[str, str], tmp_path: Path
) -> None:
    """The chart's, and those that `coalmine rules` renders for the model deployment."""
    parameters = Parameters(namespace="shop", deployment="fraud", model="fraud")
    both = {"groups": [*yaml.safe_load(rules)["groups"], *groups(parameters)]}
    assert run(tmp_path, only(yaml.safe_dump(both), alert), alerts(alert, ours, series=series)) == ""


def only(rules: str, alert: str) -> str:
    """All records and one alert without its annotations, which promtool would compare."""
    found = yaml.safe_load(rules)["groups"]
    for group in found:
        group["rules"] = [rule for rule in group["rules"] if rule.get("alert", alert) == alert]
        for rule in group["rules"]:
            rule.pop("annotations", None)
    return yaml.safe_dump({"groups": [group for group in found if group["rules"]]})


def test_every_alert_is_fired_and_not_fired(rules: str) -> None:
    every = [rule for group in yaml.safe_load(rules)["groups"] for rule in group["rules"]]
    alerts_known = {rule["alert"] for rule in every if "alert" in rule}
    tests = [scenario["alert_rule_test"][0] for scenario in SCENARIOS.values()]
    assert {test["alertname"] for test in tests if test["exp_alerts"]} == alerts_known
    assert {test["alertname"] for test in tests if not test["exp_alerts"]} == alerts_known


@needs_promtool
def test_promtool_finds_nothing_wrong(rules: str, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(rules)
    assert tool(tmp_path, "check", "rules", "--lint=all", "--lint-fatal", "rules.yaml") == ""


@needs_promtool
def test_messages_are_read_by_prometheus(rules: str, tmp_path: Path) -> None:
    """An annotation that Prometheus cannot expand says so in its text."""
    series = SCENARIOS["a slow canary"]["input_series"]
    wanted = {
        "exp_labels": {**CANARY_IS_BAD, "quantile": "0.99"},
        "exp_annotations": {
            "summary": "fraud v2 (canary) answers in 2.485s (quantile 0.99)",
            "description": "Compare coalmine_upstream_duration_seconds, the model's part, with "
            "coalmine_overhead_seconds, the sidecar's; and the model's CPU with its limit.",
        },
    }
    test = {"eval_time": LOOK, "alertname": "ModelLatencyHigh", "exp_alerts": [wanted]}
    assert run(tmp_path, rules, {"interval": "1m", "input_series": series, "alert_rule_test": [test]}) == ""


@needs_promtool
def test_the_moment_of_a_changing_track_breaks_no_rule(rules: str, tmp_path: Path) -> None:
    """While a promotion spreads, one pod calls the version canary and another one stable."""
    series = [*weights(), stays("coalmine_route_weight", 50, WHERE, version="v2", track="stable", pod="b"), rescued(10)]
    expr = 'count(coalmine:requests:increase{result="rescued", version="v2"})'
    test = {"expr": expr, "eval_time": LOOK, "exp_samples": [{"value": 1}]}
    assert run(tmp_path, rules, {"interval": "1m", "input_series": series, "promql_expr_test": [test]}) == ""


@needs_promtool
def test_drift_of_the_canary(rules: str, tmp_path: Path) -> None:
    """The index by hand: three quarters and one against half and half, with half a count in each bin."""
    counts = {("stable", "a"): 40, ("stable", "b"): 40, ("canary", "a"): 60, ("canary", "b"): 20}
    series = [
        grows(
            "coalmine_output_bin_total",
            per_minute,
            WHERE,
            track=track,
            version=track,
            output="score",
            bin=name,
            pod=pod,
        )
        for (track, name), per_minute in counts.items()
        for pod in ("a", "b")
    ]
    shares = {key: (count * 2 * 5 + 0.5) / (80 * 2 * 5 + 1) for key, count in counts.items()}
    psi = sum(
        (shares["canary", name] - shares["stable", name]) * log(shares["canary", name] / shares["stable", name])
        for name in "ab"
    )
    expr = f"abs(coalmine:output_psi:canary - {psi}) < bool 1e-9"
    labels = "{" + ", ".join(f"{key}={json.dumps(value)}" for key, value in {**WHERE, "output": "score"}.items()) + "}"
    test = {"expr": expr, "eval_time": LOOK, "exp_samples": [{"labels": labels, "value": 1}]}
    assert run(tmp_path, rules, {"interval": "1m", "input_series": series, "promql_expr_test": [test]}) == ""


def test_coalmine_charges_them_to_the_canary(rules: str) -> None:
    """The labels that a firing alert carries are those that the webhook attributes it by."""
    auto = AutoRollback(alerts=(AlertMatch(match_labels={"severity": "critical"}),))
    target = Target(namespace="shop", name="fraud", model="fraud", auto_rollback=auto)
    other = Target(namespace="lab", name="fraud", model="fraud", auto_rollback=auto)
    for name, labels in (("ModelErrorRateHigh", CANARY_IS_BAD), ("ModelUnavailable", CRITICAL)):
        alert = {"status": "firing", "labels": {"alertname": name, **labels}, "startsAt": "2026-11-21T20:00:00Z"}
        webhook = decode(json.dumps({"version": "4", "alerts": [alert]}).encode())
        ((key, (event,)),) = sort_out(webhook, [target, other], 2e9).events.items()
        assert key == "shop/fraud"
        assert event.labels.get("track") == labels.get("track")


def test_every_value_of_the_rules(chart: Chart, rules: str) -> None:
    values = {
        "window": "30s",
        "interval": "15s",
        "labels": {"team": "risk"},
        "minRequests": 321,
        "errors": {"ratio": 0.21, "for": "11s"},
        "latency": {"quantile": 0.5, "seconds": 0.22, "for": "12s"},
        "unavailable": {"for": "13s"},
        "fallbacks": {"ratio": 0.23, "for": "14s"},
        "memory": {"ratio": 0.75},
    }
    parts = (
        "[30s]",
        "interval: 15s",
        "team: risk",
        ">= 321",
        "coalmine:failed:ratio > 0.21",
        "for: 11s",
        'quantile{quantile="0.5"} > 0.22',
        "for: 12s",
        "for: 13s",
        "coalmine:rescued:ratio > 0.23",
        "for: 14s",
        "> 0.75",
    )
    changed = rules_text(chart, {"rules": values})
    assert [part for part in parts if part in rules] == []
    assert [part for part in parts if part not in changed] == []


def test_alerts_can_be_left_out(chart: Chart, rules: str) -> None:
    left = rules_text(chart, {"rules": {"disabled": ["ModelLatencyHigh", "RoutingBehind"]}})
    gone = {"ModelLatencyHigh", "RoutingBehind"}
    assert {name for name in gone if f"alert: {name}" in rules} == gone
    assert not [name for name in gone if f"alert: {name}" in left]


def test_both_forms_are_the_same(chart: Chart, rules: str) -> None:
    custom = named(chart.render(RULES), "PrometheusRule", "coalmine")
    assert custom["spec"] == yaml.safe_load(rules)

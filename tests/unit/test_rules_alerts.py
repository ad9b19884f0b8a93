"""Every alert, fired and not fired by promtool; what overrides make of them; and whom Coalmine charges them to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from msgspec.structs import replace
from tests.chart.promtool import needs_promtool, tool
from tests.unit.alert_cases import BLIND, CASES, TIMES
from tests.unit.alert_series import DEPLOYMENT, LABELS, drop, seen
from tests.unit.rulebook import EVERYTHING, FRAUD, MINUTES, OWN, Series, counted, gauge, run

from coalmine_operator.api.spec import AlertMatch, AutoRollback
from coalmine_operator.render.rules import Parameters, alerts_of, groups
from coalmine_operator.render.rules.parameters import Override, SliceRules, Statistic
from coalmine_operator.sources.alerts import Target, decode, sort_out
from coalmine_sidecar.monitoring import Task

REGRESSION = replace(EVERYTHING, task="regression", slices=())


def parameters_for(alert: str) -> Parameters:
    return REGRESSION if alert == "ErrorRise" else EVERYTHING


def only(parameters: Parameters, alert: str) -> list[dict[str, Any]]:
    """One alert without its annotations, which promtool would compare."""
    rules = [rule for group in groups(parameters) for rule in group["rules"] if rule.get("alert") == alert]
    return [{"name": "only", "rules": [{key: rule[key] for key in rule if key != "annotations"} for rule in rules]}]


def scenario(alert: str, series: list[Series], *labels: dict[str, str], name: str = "") -> dict[str, Any]:
    times = TIMES.get(alert, {"interval": "1m", "at": "70m"})
    wanted = {"eval_time": times["at"], "alertname": alert, "exp_alerts": [{"exp_labels": one} for one in labels]}
    return {"name": name, "interval": times["interval"], "input_series": series, "alert_rule_test": [wanted]}


def fired(alert: str, **more: str) -> dict[str, str]:
    (found,) = {one.action for one in alerts_of(parameters_for(alert)) if one.name == alert}
    severity = "critical" if found in ("rollback", "fallback") else "warning"
    about = {} if alert == "ModelUnavailable" else {"model": "fraud"}
    return {**OWN, **about, "severity": severity, "action": found, **more}


@needs_promtool
@pytest.mark.parametrize("alert", CASES)
def test_fires_and_does_not(alert: str, tmp_path: Path) -> None:
    (series, labels), quiet = CASES[alert]
    tests = [scenario(alert, series, fired(alert, **labels), name="fires")]
    tests += [scenario(alert, each, name=why) for why, each in quiet.items()]
    step = "1m" if alert not in TIMES else "10m"
    assert run(tmp_path, only(parameters_for(alert), alert), *tests, step=step) == ""


def test_every_alert_has_a_case() -> None:
    known = {one.name for parameters in (EVERYTHING, REGRESSION) for one in alerts_of(parameters)}
    assert set(CASES) == known
    assert all(quiet for _, quiet in CASES.values())


@needs_promtool
@pytest.mark.parametrize("reason", BLIND)
def test_blind_for_each_reason(reason: str, tmp_path: Path) -> None:
    test = scenario("MonitoringBlind", BLIND[reason], fired("MonitoringBlind", version="v3", reason=reason))
    assert run(tmp_path, only(EVERYTHING, "MonitoringBlind"), test) == ""


@needs_promtool
def test_blind_where_nothing_is_scraped_or_labels_are_lost(tmp_path: Path) -> None:
    lost = seen(lost=counted("coalmine_feedback", 60, {**FRAUD, "pod": "p0"}, {"outcome": "store_error"}))
    up = [gauge("coalmine_deployment_available", 1, DEPLOYMENT), gauge("coalmine_deployment_phase", 1, DEPLOYMENT)]
    tests = [
        scenario("MonitoringBlind", [gauge("up", 1, OWN)], fired("MonitoringBlind", reason="unscraped")),
        scenario("MonitoringBlind", up, fired("MonitoringBlind", reason="unscraped")),
        scenario("MonitoringBlind", lost, fired("MonitoringBlind", reason="feedback")),
    ]
    assert run(tmp_path, only(EVERYTHING, "MonitoringBlind"), *tests) == ""


@needs_promtool
def test_overrides(tmp_path: Path) -> None:
    changed = replace(EVERYTHING, overrides={"RecallDrop": Override(threshold=0.05, hold=3600.0, action="none")})
    series = [*drop("recall", 0.85, 0.88, 0.9), LABELS]
    labels = {**fired("RecallDrop", version="v3"), "severity": "warning", "action": "none"}
    early = scenario("RecallDrop", series)
    early["alert_rule_test"][0]["eval_time"] = "50m"
    assert run(tmp_path, only(EVERYTHING, "RecallDrop"), scenario("RecallDrop", series)) == ""
    assert run(tmp_path, only(changed, "RecallDrop"), early, scenario("RecallDrop", series, labels)) == ""


def names(parameters: Parameters) -> set[str]:
    return {rule["alert"] for group in groups(parameters) for rule in group["rules"] if "alert" in rule}


def test_alerts_are_turned_off() -> None:
    wanted = {"RecallDrop": Override(action="rollback")}
    assert names(replace(EVERYTHING, defaults=False, overrides=wanted)) == {"RecallDrop"}
    without = replace(EVERYTHING, overrides={"RecallDrop": Override(enabled=False)})
    assert names(without) == names(EVERYTHING) - {"RecallDrop"}


def test_messages_are_sentences_with_values() -> None:
    for parameters in (EVERYTHING, REGRESSION):
        for group in groups(parameters):
            for rule in group["rules"]:
                if "alert" in rule:
                    summary, description = rule["annotations"]["summary"], rule["annotations"]["description"]
                    assert "THRESHOLD" not in summary + description
                    assert "PERCENT" not in summary + description
                    assert "{{ $" in summary
                    assert description.endswith((".", "}}"))
                    assert "\n" not in summary + description


@needs_promtool
@pytest.mark.parametrize("alert", CASES)
def test_messages_are_read_by_prometheus(alert: str, tmp_path: Path) -> None:
    """What cannot be expanded says so in its text. Nothing is expected, so that promtool tells what it got."""
    (series, _), _ = CASES[alert]
    rules = [rule for group in groups(parameters_for(alert)) for rule in group["rules"] if rule.get("alert") == alert]
    step = "1m" if alert not in TIMES else "10m"
    told = run(tmp_path, [{"name": "only", "rules": rules}], scenario(alert, series), step=step)
    assert "summary" in told
    assert "<error" not in told
    assert "<no value>" not in told


def webhook(alert: str, labels: dict[str, str]) -> bytes:
    one = {"status": "firing", "labels": {"alertname": alert, **labels}, "fingerprint": "f"}
    return json.dumps({"version": "4", "alerts": [one]}).encode()


@pytest.mark.parametrize("alert", sorted(CASES))
def test_coalmine_charges_them_to_the_model_deployment(alert: str) -> None:
    """By `autoRollback`, which may name the action itself."""
    labels = fired(alert, **CASES[alert][0][1])
    guard = AutoRollback(alerts=(AlertMatch(match_labels={"action": labels["action"]}),))
    targets = [
        Target(namespace="shop", name="fraud", model="fraud", auto_rollback=guard),
        Target(namespace="shop", name="other", model="fraud", auto_rollback=guard),
        Target(namespace="elsewhere", name="fraud", model="fraud", auto_rollback=guard),
    ]
    found = sort_out(decode(webhook(alert, labels)), targets, now=1.0)
    assert (set(found.events), found.unattributed) == ({"shop/fraud"}, 0)


@needs_promtool
@pytest.mark.parametrize("task", get_args(Task))
def test_promtool_finds_nothing_wrong(task: Task, tmp_path: Path) -> None:
    files = []
    for statistic in get_args(Statistic):
        for feedback in (True, False):
            parameters = replace(EVERYTHING, task=task, statistic=statistic, feedback=feedback)
            files.append(f"{statistic}-{feedback}.yaml")
            (tmp_path / files[-1]).write_text(json.dumps({"groups": groups(parameters)}))
    assert len(files) == 12
    assert tool(tmp_path, "check", "rules", "--lint=all", "--lint-fatal", *files) == ""


def test_minutes_are_longer_than_any_alert_waits() -> None:
    longest = max(one.hold for one in alerts_of(EVERYTHING))
    assert longest / 60 <= MINUTES - 10


@needs_promtool
def test_names_that_need_quoting(tmp_path: Path) -> None:
    odd = 'a"b\\c{{}}\n\x01ü'
    slices = (SliceRules(attribute=odd, privileged=odd),)
    parameters = replace(EVERYTHING, model=odd, slices=slices, overrides={"AucDrop": Override(hold=1.5)})
    (tmp_path / "rules.yaml").write_text(json.dumps({"groups": groups(parameters)}))
    assert tool(tmp_path, "check", "rules", "--lint=all", "--lint-fatal", "rules.yaml") == ""
    waits = {rule["alert"]: rule["for"] for group in groups(parameters) for rule in group["rules"] if "alert" in rule}
    assert waits["AucDrop"] == "1500ms"

"""Queries of the dashboards, asked by promtool of rules and of counters of two pods: no error, and data for each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.chart.promtool import needs_promtool
from tests.queries import Query, queries
from tests.unit import test_rules_drift as drift
from tests.unit import test_rules_fairness as fairness
from tests.unit import test_rules_performance as performance
from tests.unit import test_rules_service as service
from tests.unit.alert_series import DEPLOYMENT, OPERATOR, SIDECAR
from tests.unit.rulebook import EVERYTHING, FRAUD, LOOK, OWN, Series, counted, gauge, pods, run

from coalmine_operator.render.rules import groups

#: What this scenario has not: see `tests.queries.needs`.
ABSENT = {"canary", "chart rules", "regression", "a week"}
_POD = {**FRAUD, "pod": "p0"}


def operators() -> Iterator[Series]:
    for metric in ("auc", "accuracy", "precision", "recall", "f1"):
        yield gauge("coalmine_baseline_performance", 0.8, OPERATOR, {"metric": metric})
        yield gauge("coalmine_baseline_performance_stddev", 0.01, OPERATOR, {"metric": metric})
    for name in ("run_length_log_mean", "log_e_mean", "alarm_threshold_log"):
        yield gauge(f"coalmine_drift_{name}", 3, OPERATOR)
    yield gauge("coalmine_drift_run_length_log", 3, OPERATOR, {"kind": "output", "name": "score"})
    yield gauge("coalmine_baseline_loaded", 1, OPERATOR, {"reason": ""})
    yield gauge("coalmine_deployment_available", 1, DEPLOYMENT)
    yield gauge("coalmine_deployment_phase", 1, DEPLOYMENT, {"phase": "Progressing"})
    yield counted("coalmine_operator_reconciles", 60, {"result": "ok"})
    yield counted("coalmine_operator_alerts_received", 60, {"result": "matched"})
    yield counted("coalmine_operator_rollbacks", 6)
    for le in ("0.1", "+Inf"):
        yield service.bucket(counted("coalmine_operator_reconcile_duration_seconds_bucket", 60, {"le": le}))


def sidecars() -> Iterator[Series]:
    for name in ("observations_skipped", "extract_failures", "request_read_failures"):
        yield counted(f"coalmine_{name}", 60, SIDECAR, {"reason": "any"})
    for name in ("series", "series_limit", "left_out"):
        yield gauge(f"coalmine_monitoring_{name}", 9, SIDECAR, {"kind": "feature"} if name == "left_out" else {})
    yield counted("coalmine_feedback", 60, _POD, {"outcome": "joined"})
    yield counted("coalmine_feedback_lost", 60, _POD, {"reason": "expired"})
    yield gauge("coalmine_feedback_pending", 60, _POD)
    yield counted("coalmine_payload_log", 60, {**OWN, "pod": "p0"}, {"outcome": "sent"})
    yield from pods("coalmine_output_class", (60, 30), {"output": "label", "class": "yes"})
    for le in ("0.001", "+Inf"):
        yield from map(service.bucket, pods("coalmine_overhead_seconds_bucket", (60, 30), {"le": le}))


def everything() -> list[Series]:
    data = (drift.AGE.series("feature", "age"), drift.SEX.series(), drift.SCORE.series("output", "score"))
    others = (performance.ROWS.series(), fairness.series(), service.series(), sidecars(), operators())
    return [one for part in (*data, *others) for one in part]


def asked(folder: Path, found: list[Query]) -> dict[str, str]:
    """What promtool says of each query, which is only told where it is not what was expected: nothing."""
    tests = [{"expr": query.expr, "eval_time": LOOK, "exp_samples": []} for query in found]
    rules = [{**group, "interval": "10m"} for group in groups(EVERYTHING)]
    told = run(folder, rules, {"interval": "1m", "input_series": everything(), "promql_expr_test": tests})
    answers = re.split(r"^ +expr: ", told, flags=re.MULTILINE)[1:]
    by_text = {re.sub(r"\s+", " ", _unquoted(answer)): answer for answer in answers}
    return {query.expr: by_text.get(re.sub(r"\s+", " ", query.expr), "") for query in found}


def _unquoted(answer: str) -> str:
    (text,) = re.findall(r'^"((?:[^"\\]|\\.)*)", time: ', answer)
    return text.replace('\\"', '"').replace("\\n", " ").replace("\\\\", "\\")


@needs_promtool
def test_every_query_returns_data(tmp_path: Path) -> None:
    found = queries(__rate_interval="5m", __range="1h")
    told = asked(tmp_path, found)
    assert {expr: answer for expr, answer in told.items() if "err:" in answer} == {}
    empty = [query for query in found if "got:" not in told[query.expr]]
    assert [query for query in empty if not query.needs & ABSENT] == []
    assert 5 < len(empty) < len(found) / 5
    assert all("NaN" not in answer for answer in told.values())

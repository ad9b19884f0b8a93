"""Alerts about what a model is asked and answers: incomplete, unknown, drifted values; and about being blind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ...api.monitoring import Action
from .alerts import SHARE, VALUE, WHO, Alert
from .drift import Kind, drifted
from .parameters import Parameters
from .promql import VERSION, Scope, number
from .service import requests

#: Rows of a window under which shares and variances say nothing.
_FEW_ROWS: Final = 100
#: Of five minutes, without a single prediction: nobody reads them.
_FEW_ANSWERS: Final = 20
_FEATURE: Final = f"{VERSION}, feature"


def data_alerts(scope: Scope, parameters: Parameters) -> Iterator[Alert]:
    yield _excess(
        scope,
        name="FeatureIncomplete",
        what="missing",
        threshold=0.05,
        summary=f"{WHO}: feature {{{{ $labels.feature }}}} is missing in {SHARE} more rows than in its baseline",
        description="Its path may be wrong, or who sends the requests has stopped to fill it.",
    )
    yield _excess(
        scope,
        name="FeatureUnseen",
        what="unseen",
        threshold=0.01,
        summary=f"{WHO}: feature {{{{ $labels.feature }}}} has values that its baseline never saw in {SHARE} more rows",
        description="New categories, or another type than before: the model guesses there.",
    )
    yield _drift(scope, parameters, "feature", "FeatureDrift", "none")
    yield _drift(scope, parameters, "output", "OutputDrift", "hold")
    yield Alert(
        name="DatasetDrift",
        expr=lambda share: f"{scope.recorded('coalmine:drifted_features:ratio')} >= {number(share)}",
        threshold=0.5,
        hold=1800,
        action="hold",
        summary=f"{WHO}: {SHARE} of the features have drifted from the baseline",
        description="That many at once are mostly a broken source of data. coalmine:feature_*:baseline tells which.",
    )
    yield _anytime(scope)
    yield _variance(scope)
    yield _blind(scope, parameters)


def _excess(scope: Scope, *, name: str, what: str, threshold: float, summary: str, description: str) -> Alert:
    """More of something than the baseline has of it; without a baseline, more than nothing."""
    found = scope.recorded(f"coalmine:feature_{what}:ratio", _FEATURE)
    usual = scope.gauge("coalmine_feature_baseline_ratio", _FEATURE, f'bin="{what}"')
    rows = scope.increase("coalmine_feature_values_total", _FEATURE)
    return Alert(
        name=name,
        expr=lambda share: f"({found} - {usual} or {found}) > {number(share)}\nand {rows} >= {_FEW_ROWS}",
        threshold=threshold,
        hold=900,
        action="none",
        summary=summary,
        description=description,
    )


def _drift(scope: Scope, parameters: Parameters, kind: Kind, name: str, action: Action) -> Alert:
    return Alert(
        name=name,
        expr=lambda threshold: drifted(scope, kind, parameters, threshold),
        threshold=parameters.critical,
        hold=1800,
        action=action,
        summary=f"{WHO}: {kind} {{{{ $labels.{kind} }}}} has drifted from the baseline: "
        f"{parameters.statistic} {VALUE}, over THRESHOLD",
        description=f"coalmine:{kind}_bin:ratio against coalmine_{kind}_baseline_ratio shows which values there are "
        "more of now.",
    )


def _anytime(scope: Scope) -> Alert:
    """The features' mean, which is one test however many they are, and each output."""
    mean = scope.gauge("coalmine_drift_run_length_log_mean")
    features = f'label_replace(label_replace({mean}, "kind", "feature", "", ""), "name", "all", "", "")'
    outputs = scope.gauge("coalmine_drift_run_length_log", f"{VERSION}, kind, name", 'kind="output"')
    bar = scope.gauge("coalmine_drift_alarm_threshold_log")
    return Alert(
        name="DriftAnytimeValid",
        expr=lambda more: f"({features}\nor {outputs})\n- on ({VERSION}) group_left () {bar} >= {number(more)}",
        threshold=0,
        hold=0,
        action="none",
        summary=f"{WHO}: {{{{ $labels.kind }}}} {{{{ $labels.name }}}} drifts from the baseline, by a test that may be "
        "looked at any time",
        description=f"Its log-evidence is {VALUE} over the bar, which without a drift is reached once in "
        "spec.monitoring.drift.averageRunLength in the mean.",
    )


def _variance(scope: Scope) -> Alert:
    by = f"{VERSION}, output"
    change = scope.recorded("coalmine:output_variance:baseline_ratio", by)
    rows = scope.recorded("coalmine:output_numbers:increase", by)
    return Alert(
        name="OutputVarianceChange",
        expr=lambda times: f"({change} > {number(times)} or {change} < {number(1 / times)})\nand {rows} >= {_FEW_ROWS}",
        threshold=2.0,
        hold=1800,
        action="none",
        summary=f"{WHO}: the variance of output {{{{ $labels.output }}}} is {VALUE} times that of the baseline",
        description="Answers all alike, or wilder than before: a feature may be constant, or scaled otherwise.",
    )


def _blind(scope: Scope, parameters: Parameters) -> Alert:
    """By reason, so that each is an alert of its own."""
    asked = requests(scope)
    answered = scope.increase("coalmine_requests_total", VERSION, 'role="ingress", outcome="ok"', "5m")
    # What the budget leaves out is a sample like any other.
    unread = (
        f"sum by ({VERSION}) (increase({scope.raw('coalmine_observations_skipped_total', _UNREAD)}[5m])\n"
        f"or increase({scope.raw('coalmine_extract_failures_total')}[5m]))"
    )
    unreadable = scope.increase("coalmine_request_read_failures_total", window="5m")
    rows = scope.increase("coalmine_predictions_total", window="5m")
    # Scaled to nothing it has no sidecar, and the operator says so.
    wanted = (
        f"(count(coalmine_deployment_available{{{scope.deployed}}})\n"
        f"or absent(coalmine_deployment_phase{{{scope.deployed}}}))"
    )
    loaded = f"max by ({VERSION}) ({scope.raw('coalmine_baseline_loaded')})"
    lost = (
        f"sum by (model) (rate({scope.raw('coalmine_feedback_total', _REFUSED)}[5m])\n"
        f"or rate({scope.raw('coalmine_feedback_lost_total', _LOST)}[5m]))"
    )

    def expr(share: float) -> str:
        reasons = {
            "unscraped": f"absent({scope.raw('coalmine_route_weight')}) and on () {wanted}",
            "answers": f"{unread} / ({answered} > 0) > {number(share)}",
            "requests": f"{unreadable} / ({asked} > 0) > {number(share)}",
            "silent": f"{rows} == 0\nand {answered} >= {_FEW_ANSWERS}",
            "series": f"max by ({VERSION}) ({scope.raw('coalmine_monitoring_left_out')}) > 0",
            "feedback": f"{lost} > 0",
        }
        if parameters.baseline:
            reasons["baseline"] = f"{loaded} == 0"
        return "\nor ".join(
            f'label_replace(({found}), "reason", "{reason}", "", "")' for reason, found in reasons.items()
        )

    return Alert(
        name="MonitoringBlind",
        expr=expr,
        threshold=0.5,
        hold=600,
        action="hold",
        summary="{{ $labels.modeldeployment }} in {{ $labels.namespace }} is not fully watched: {{ $labels.reason }}",
        description="unscraped: no sidecar tells anything; baseline: none is loaded; answers, requests: more than "
        "PERCENT are not read; silent: answers without a prediction; series: over maxSeries; feedback: labels are "
        "lost.",
        retired=True,
    )


_UNREAD: Final = 'reason!="budget"'
#: Labels, and predictions that can have none any more, of which neither a client nor time is the cause.
_REFUSED: Final = 'outcome=~"busy|peer_error|store_error|too_many"'
_LOST: Final = 'reason=~"evicted|no_store|queue"'

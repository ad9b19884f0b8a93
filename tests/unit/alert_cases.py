"""Of every alert: series by which it fires, and such by which it does not."""

from __future__ import annotations

from tests.unit.alert_series import (
    DEPLOYMENT,
    FEW_LABELS,
    LABELS,
    OPERATOR,
    RETIRED,
    SERVING,
    SIDECAR,
    anytime,
    burn,
    column,
    concept,
    daily,
    drift,
    drop,
    estimated,
    figure,
    impact,
    requests,
    seen,
    usual,
    weekly,
)
from tests.unit.rulebook import OWN, Series, counted, gauge

DAYS = {"interval": "30m", "at": "71h"}
WEEKS = {"interval": "10m", "at": "7d12h"}

#: Of each alert: the series by which it fires, with the labels that it adds; and those by which it does not, by reason.
Fired = tuple[list[Series], dict[str, str]]
CASES: dict[str, tuple[Fired, dict[str, list[Series]]]] = {
    "ModelUnavailable": (
        ([gauge("coalmine_deployment_available", 0, DEPLOYMENT)], {}),
        {
            "somebody answers": [gauge("coalmine_deployment_available", 1, DEPLOYMENT)],
            "the first version still loads": [
                gauge("coalmine_deployment_available", 0, DEPLOYMENT),
                gauge("coalmine_deployment_phase", 1, DEPLOYMENT, {"phase": "Pending"}),
            ],
            "it is another one": [gauge("coalmine_deployment_available", 0, {**DEPLOYMENT, "name": "other"})],
        },
    ),
    "ModelErrorBudgetBurn": (
        ([SERVING, *burn("availability", ("5m", "1h"), (0.02, 0.015)), requests(600)], {"version": "v3"}),
        {
            "only for a moment": [SERVING, *burn("availability", ("5m", "1h"), (0.5, 0.005)), requests(600)],
            "it is over": [SERVING, *burn("availability", ("5m", "1h"), (0.001, 0.2)), requests(600)],
            "too few requests": [SERVING, *burn("availability", ("5m", "1h"), (0.5, 0.5)), requests(60)],
            "taken out already": [RETIRED, *burn("availability", ("5m", "1h"), (0.5, 0.5)), requests(600)],
            "slow is not failed": [SERVING, *burn("latency", ("5m", "1h"), (0.5, 0.5)), requests(600)],
        },
    ),
    "ModelErrorBudgetSlowBurn": (
        ([SERVING, *burn("availability", ("30m", "6h"), (0.007, 0.0061)), requests(600)], {"version": "v3"}),
        {"within the budget": [SERVING, *burn("availability", ("30m", "6h"), (0.007, 0.0059)), requests(600)]},
    ),
    "ModelLatencyBudgetBurn": (
        ([SERVING, *burn("latency", ("5m", "1h"), (0.2, 0.15)), requests(600)], {"version": "v3"}),
        {"within the budget": [SERVING, *burn("latency", ("5m", "1h"), (0.2, 0.14)), requests(600)]},
    ),
    "ModelLatencyP99": (
        (
            [SERVING, figure("coalmine:latency_seconds:quantile", 1.2, quantile="0.99"), requests(6000)],
            {"version": "v3"},
        ),
        {
            "fast": [SERVING, figure("coalmine:latency_seconds:quantile", 0.9, quantile="0.99"), requests(6000)],
            "too few": [SERVING, figure("coalmine:latency_seconds:quantile", 1.2, quantile="0.99"), requests(600)],
            "the median": [SERVING, figure("coalmine:latency_seconds:quantile", 1.2, quantile="0.5"), requests(6000)],
        },
    ),
    "ModelThroughputDrop": (
        (
            [
                gauge("coalmine:throughput:week_ratio", 0.4, OWN, {"model": "fraud"}),
                gauge("coalmine:throughput:rate15m", 0.8, OWN, {"model": "fraud"}),
            ],
            {},
        ),
        {
            "enough": [
                gauge("coalmine:throughput:week_ratio", 0.6, OWN, {"model": "fraud"}),
                gauge("coalmine:throughput:rate15m", 0.8, OWN, {"model": "fraud"}),
            ],
            "never many": [
                gauge("coalmine:throughput:week_ratio", 0.4, OWN, {"model": "fraud"}),
                gauge("coalmine:throughput:rate15m", 0.01, OWN, {"model": "fraud"}),
            ],
        },
    ),
    "ModelMemoryPressure": (
        ([SERVING, figure("coalmine:memory:limit_ratio", 0.93, pod="p0")], {"version": "v3", "pod": "p0"}),
        {"room": [SERVING, figure("coalmine:memory:limit_ratio", 0.89, pod="p0")]},
    ),
    "ModelThrottled": (
        ([SERVING, figure("coalmine:cpu_throttled:ratio", 0.3, pod="p0")], {"version": "v3", "pod": "p0"}),
        {"now and then": [SERVING, figure("coalmine:cpu_throttled:ratio", 0.2, pod="p0")]},
    ),
    "FeatureIncomplete": (
        ([SERVING, *column("missing", 0.08, 0.01)], {"version": "v3", "feature": "age"}),
        {
            "as in the baseline": [SERVING, *column("missing", 0.08, 0.05)],
            "too few rows": [SERVING, *column("missing", 0.5, 0.01, rows=80)],
            "some, without a baseline": [SERVING, *column("missing", 0.04, None)],
        },
    ),
    "FeatureUnseen": (
        ([SERVING, *column("unseen", 0.03, None)], {"version": "v3", "feature": "age"}),
        {"as in the baseline": [SERVING, *column("unseen", 0.03, 0.025)]},
    ),
    "FeatureDrift": (
        ([SERVING, *drift("feature", "age", 0.25, 0.05)], {"version": "v3", "feature": "age"}),
        {
            "only a warning": [SERVING, *drift("feature", "age", 0.19, 0.05)],
            "too few rows": [SERVING, *drift("feature", "age", 0.9, 0.21)],
            "taken out already": [RETIRED, *drift("feature", "age", 0.9, 0.05)],
        },
    ),
    "OutputDrift": (
        ([SERVING, *drift("output", "score", 0.25, 0.05)], {"version": "v3", "output": "score"}),
        {"as ever": [SERVING, *drift("output", "score", 0.05, 0.05)]},
    ),
    "DatasetDrift": (
        ([SERVING, figure("coalmine:drifted_features:ratio", 0.5)], {"version": "v3"}),
        {"some of them": [SERVING, figure("coalmine:drifted_features:ratio", 0.4)]},
    ),
    "DriftAnytimeValid": (
        (anytime(3.0, 6.7), {"version": "v3", "kind": "output", "name": "score"}),
        {"under the bar, but for one feature": anytime(6.5, 6.5)},
    ),
    "OutputVarianceChange": (
        (
            [
                SERVING,
                figure("coalmine:output_variance:baseline_ratio", 0.4, output="score"),
                figure("coalmine:output_numbers:increase", 500, output="score"),
            ],
            {"version": "v3", "output": "score"},
        ),
        {
            "alike": [
                SERVING,
                figure("coalmine:output_variance:baseline_ratio", 1.9, output="score"),
                figure("coalmine:output_numbers:increase", 500, output="score"),
            ],
            "too few rows": [
                SERVING,
                figure("coalmine:output_variance:baseline_ratio", 9, output="score"),
                figure("coalmine:output_numbers:increase", 50, output="score"),
            ],
        },
    ),
    "MonitoringBlind": (
        (seen(loaded=gauge("coalmine_baseline_loaded", 0, OPERATOR, {"reason": "gone"})),
         {"version": "v3", "reason": "baseline"}),
        {
            "all is seen": seen(),
            "scaled to nothing": [gauge("coalmine_deployment_phase", 1, DEPLOYMENT, {"phase": "Healthy"})],
            "all fails, which others tell": seen(
                requests=requests(6000, "model_error"), predictions=counted("coalmine_predictions", 0, SIDECAR)
            ),
        },
    ),
    "AccuracyDrop": (
        ([*drop("accuracy", 0.8, 0.83, 0.9), LABELS], {"version": "v3"}),
        {"by chance": [*drop("accuracy", 0.8, 0.91, 0.9), LABELS]},
    ),
    "PrecisionDrop": (
        ([*drop("precision", 0.8, 0.83, 0.9), LABELS], {"version": "v3"}),
        {
            "a little": [*drop("precision", 0.82, 0.83, 0.9), LABELS],
            "too few labels": [*drop("precision", 0.8, 0.83, 0.9), FEW_LABELS],
        },
    ),
    "RecallDrop": (
        ([*drop("recall", 0.8, 0.83, 0.9), LABELS], {"version": "v3"}),
        {"by chance": [*drop("recall", 0.8, 0.95, 0.9), LABELS], "no baseline": drop("recall", 0.8, 0.83, 0.9)[:2]},
    ),
    "F1Drop": (
        ([*drop("f1", 0.8, None, 0.9), LABELS], {"version": "v3"}),
        {"a little": [*drop("f1", 0.82, None, 0.9), LABELS]},
    ),
    "AucDrop": (
        ([SERVING, figure("coalmine:auc:upper", 0.88, truth="label"), *usual("auc", 0.91), LABELS], {"version": "v3"}),
        {"by chance": [SERVING, figure("coalmine:auc:upper", 0.9, truth="label"), *usual("auc", 0.91), LABELS]},
    ),
    "EstimatedPerformanceDrop": (
        (estimated(0.885, 5000), {"version": "v3"}),
        {"within three": estimated(0.895, 5000), "fewer rows spread more": estimated(0.885, 1000)},
    ),
    "ConceptDrift": (
        ([*concept(0.03, 0.006), LABELS], {"version": "v3"}),
        {
            "by chance": [*concept(0.03, 0.012), LABELS],
            "small": [*concept(0.015, 0.001), LABELS],
            "too few labels": [*concept(0.03, 0.006), FEW_LABELS],
        },
    ),
    "Miscalibrated": (
        (
            [SERVING, figure("coalmine:calibration_error:ratio", 0.09), *usual("ece", 0.03),
             figure("coalmine:labels:increase", 3000)],
            {"version": "v3"},
        ),
        {"too few labels": [SERVING, figure("coalmine:calibration_error:ratio", 0.09), *usual("ece", 0.03), LABELS]},
    ),
    "ErrorRise": (
        ([SERVING, figure("coalmine:rmse:mean", 112), *usual("rmse", 100), LABELS], {"version": "v3"}),
        {"a little": [SERVING, figure("coalmine:rmse:mean", 108), *usual("rmse", 100), LABELS]},
    ),
    "DisparateImpact": (
        (impact(0.7, 0.9), {"version": "v3", "attribute": "sex", "group": "f"}),
        {"by chance": impact(0.7, 1.1), "four fifths": impact(0.81, 0.9)},
    ),
    "EqualizedOdds": (
        ([SERVING, figure("coalmine:equalized_odds:difference", 0.25, attribute="sex")],
         {"version": "v3", "attribute": "sex"}),
        {"near": [SERVING, figure("coalmine:equalized_odds:difference", 0.15, attribute="sex")]},
    ),
    "FeedbackStalled": (
        ([daily("coalmine_labels", (300, 300, 50)), daily("coalmine_predictions", (1000, 1000, 1000))], {}),
        {
            "enough": [daily("coalmine_labels", (300, 300, 150)), daily("coalmine_predictions", (1000, 1000, 1000))],
            "nothing was predicted": [daily("coalmine_labels", (0, 0, 0)), daily("coalmine_predictions", (50, 50, 50))],
        },
    ),
    "OutcomeDrop": (
        (weekly(0.2, 0.15), {"version": "v3", "outcome": "clicked"}),
        {"a little": weekly(0.2, 0.17)},
    ),
}  # fmt: skip
TIMES = {"FeedbackStalled": DAYS, "OutcomeDrop": WEEKS}

BLIND = {
    "answers": seen(failures=counted("coalmine_extract_failures", 3000, SIDECAR, {"reason": "no_json"})),
    "requests": seen(unread=counted("coalmine_request_read_failures", 3100, SIDECAR, {"reason": "no_json"})),
    "silent": seen(predictions=counted("coalmine_predictions", 0, SIDECAR)),
    "series": seen(series=gauge("coalmine_monitoring_left_out", 2, SIDECAR, {"kind": "feature"})),
}

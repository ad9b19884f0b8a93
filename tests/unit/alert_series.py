"""What scenarios of alerts are made of: records, gauges of the operator, counters of a sidecar."""

from __future__ import annotations

from tests.unit.rulebook import FRAUD, RECORDED, V3, Series, counted, gauge, selector

SIDECAR = {**FRAUD, **V3, "pod": "p0"}
OPERATOR = {"namespace": "shop", "model": "fraud", "version": "v3"}
DEPLOYMENT = {"namespace": "shop", "name": "fraud"}


def figure(name: str, value: float, **labels: str) -> Series:
    """A record; what is recorded of counters has tests of its own."""
    return gauge(name, value, RECORDED, labels)


def usual(metric: str, value: float, stddev: float | None = None) -> list[Series]:
    found = [gauge("coalmine_baseline_performance", value, OPERATOR, {"metric": metric})]
    if stddev is not None:
        found.append(gauge("coalmine_baseline_performance_stddev", stddev, OPERATOR, {"metric": metric}))
    return found


SERVING = figure("coalmine:version:serving", 100)
RETIRED = gauge("coalmine:version:serving", 100, RECORDED, {"version": "v2"})
LABELS = figure("coalmine:labels:increase", 500)
FEW_LABELS = figure("coalmine:labels:increase", 150)
SCRAPED = gauge("coalmine_route_weight", 100, SIDECAR)


def requests(per_hour: float, outcome: str = "ok") -> Series:
    return counted("coalmine_requests", per_hour, SIDECAR, {"role": "ingress", "outcome": outcome, "code": "200"})


def burn(slo: str, windows: tuple[str, str], shares: tuple[float, float]) -> list[Series]:
    return [
        figure(f"coalmine:budget_spent:ratio{window}", share, slo=slo)
        for window, share in zip(windows, shares, strict=True)
    ]


def drift(kind: str, name: str, psi: float, noise: float) -> list[Series]:
    label = {kind: name}
    return [
        figure(f"coalmine:{kind}_psi:baseline", psi, **label),
        figure(f"coalmine:{kind}_drift:noise", noise, **label),
    ]


def column(what: str, share: float, before: float | None, rows: float = 900) -> list[Series]:
    found = [
        figure(f"coalmine:feature_{what}:ratio", share, feature="age"),
        counted("coalmine_feature_values", rows, SIDECAR, {"feature": "age"}),
    ]
    if before is not None:
        found.append(gauge("coalmine_feature_baseline_ratio", before, OPERATOR, {"feature": "age", "bin": what}))
    return found


def drop(metric: str, now: float, upper: float | None, before: float) -> list[Series]:
    found = [SERVING, figure(f"coalmine:{metric}:ratio", now, truth="label"), *usual(metric, before)]
    if upper is not None:
        found.append(figure(f"coalmine:{metric}:upper", upper, truth="label"))
    return found


def estimated(auc: float, rows: float) -> list[Series]:
    return [
        SERVING,
        figure("coalmine:auc:ratio", auc, truth="estimate"),
        figure("coalmine:score_positives:increase", rows / 4, truth="estimate"),
        figure("coalmine:score_negatives:increase", rows * 3 / 4, truth="estimate"),
        *usual("auc", 0.91, 0.006),
    ]


def concept(gap: float, stderr: float) -> list[Series]:
    return [
        SERVING,
        figure("coalmine:concept_drift:difference", gap, metric="auc"),
        figure("coalmine:auc:stderr", stderr, truth="label"),
    ]


def impact(ratio: float, upper: float) -> list[Series]:
    where = {"attribute": "sex", "group": "f"}
    return [
        SERVING,
        figure("coalmine:disparate_impact:ratio", ratio, **where),
        figure("coalmine:disparate_impact:upper", upper, **where),
    ]


def anytime(features: float, output: float, bar: float = 6.6) -> list[Series]:
    return [
        SERVING,
        gauge("coalmine_drift_run_length_log_mean", features, OPERATOR),
        gauge("coalmine_drift_run_length_log", output, OPERATOR, {"kind": "output", "name": "score"}),
        gauge("coalmine_drift_run_length_log", 99, OPERATOR, {"kind": "feature", "name": "age"}),
        gauge("coalmine_drift_alarm_threshold_log", bar, OPERATOR),
    ]


def seen(**more: Series) -> list[Series]:
    """A deployment that is fully watched, but for what is said otherwise."""
    found = {
        "scraped": SCRAPED,
        "requests": requests(6000),
        "predictions": counted("coalmine_predictions", 6000, SIDECAR),
        "loaded": gauge("coalmine_baseline_loaded", 1, OPERATOR, {"reason": ""}),
        "skipped": counted("coalmine_observations_skipped", 600, SIDECAR, {"reason": "size"}),
        "sampled": counted("coalmine_observations_skipped", 5000, SIDECAR, {"reason": "budget"}),
        "failures": counted("coalmine_extract_failures", 600, SIDECAR, {"reason": "no_json"}),
        "unread": counted("coalmine_request_read_failures", 600, SIDECAR, {"reason": "no_json"}),
        "series": gauge("coalmine_monitoring_left_out", 0, SIDECAR, {"kind": "feature"}),
        "evicted": counted("coalmine_feedback_lost", 0, {**FRAUD, "pod": "p0"}, {"reason": "evicted"}),
        "late": counted("coalmine_feedback", 500, {**FRAUD, "pod": "p0"}, {"outcome": "late"}),
        "lost": counted("coalmine_feedback", 0, {**FRAUD, "pod": "p0"}, {"outcome": "store_error"}),
    }
    return list((found | more).values())


def daily(name: str, per_day: tuple[float, ...]) -> Series:
    """A counter of days, a sample every half hour."""
    total, parts = 0.0, []
    for amount in per_day:
        parts.append(f"{total!r}+{amount / 48!r}x47")
        total += amount
    return {"series": selector(f"{name}_total", SIDECAR), "values": " ".join(parts)}


def weekly(before: float, now: float) -> list[Series]:
    """An outcome, a sample in ten minutes, for a week and a day."""
    where = {**RECORDED, "outcome": "clicked"}
    mean = f"{before!r}x1007 {now!r}x143"
    return [
        {"series": selector("coalmine:outcome:mean", where), "values": mean},
        {"series": selector("coalmine:outcome:increase", where), "values": "900x1151"},
        {"series": selector("coalmine:version:serving", RECORDED), "values": "100x1151"},
    ]

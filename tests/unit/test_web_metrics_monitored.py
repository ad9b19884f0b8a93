"""Baselines and drift as Prometheus reads them from the operator, beside what sidecars tell of the same bins."""

from __future__ import annotations

import math

import pytest
from msgspec.structs import replace
from tests.unit.test_web_metrics import samples

from coalmine_operator.analysis.monitored import Drifted, RunLength, Watched
from coalmine_operator.api.baseline import Baseline, Categorical, Figure, Numeric, Performance, for_sidecar
from coalmine_operator.engine import BaselineState
from coalmine_operator.engine.monitored import DeploymentMonitored, RevisionMonitored
from coalmine_operator.web.gauges import pieces
from coalmine_operator.web.metrics import Metrics
from coalmine_sidecar.monitoring import Feature
from coalmine_sidecar.telemetry.features import FeatureCounter
from coalmine_sidecar.telemetry.valuemetrics import feature_metrics

BASELINE = Baseline(
    schema=1,
    model="fraud",
    version="v1",
    task="binary",
    rows=6000,
    features={
        "age": Numeric(
            edges=(18.0, 30.5, 65.0), counts=(0, 1000, 2000, 2900), missing=100, mean=41.5, stddev=9.0, min=18, max=99
        ),
        "state": Categorical(categories=('say "hi"', "b"), counts=(3000, 3000)),
    },
    outputs={"score": Numeric(edges=(0.5,), counts=(2000, 4000), mean=0.6, stddev=0.2, min=0.0, max=1.0)},
    performance=Performance(
        chunk_rows=1000, metrics={"auc": Figure(value=0.91, mean=0.9, stddev=0.01), "brier": Figure(value=0.1)}
    ),
)
REVISION = {"namespace": "shop", "model": "fraud", "version": "v1"}


def column(kind: str, name: str, log_e: float, log_r: float | None = None) -> Drifted:
    run = RunLength(since=0.0, start=(0, 0), windows=log_r is not None, log_r=-math.inf if log_r is None else log_r)
    return Drifted(kind=kind, name=name, rows=100, log_e=log_e, run_length=run)


def deployment(
    *columns: Drifted, version: str = "v1", state: BaselineState | None = None, namespace: str = "shop"
) -> DeploymentMonitored:
    state = state or BaselineState(digest="sha256:1", baseline=BASELINE)
    watched = Watched(digest="sha256:1", columns=columns) if state.baseline else None
    one = RevisionMonitored(revision=f"r-{version}", version=version, baseline=state, watched=watched)
    return DeploymentMonitored(namespace=namespace, model="fraud", threshold=math.log(2880), revisions=(one,))


def told(*deployments: DeploymentMonitored) -> dict[str, dict[tuple[str, ...], float]]:
    """By name without `coalmine_`, then by values of the labels other than those of the revision."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for (name, labels), value in samples(Metrics().render([], deployments)).items():
        assert name.startswith("coalmine_")
        rest = tuple(label for label in labels if label not in REVISION.values())
        found.setdefault(name.removeprefix("coalmine_"), {})[rest] = value
    return found


def test_a_baseline_is_told_bin_by_bin() -> None:
    found = told(deployment())
    ratios = {labels: value for labels, value in found["feature_baseline_ratio"].items() if "age" in labels}
    assert sum(ratios.values()) == pytest.approx(1)
    assert ratios["(-Inf,18.0)", "age"] == pytest.approx(0.5 / 6003)
    assert ratios["[18.0,30.5)", "age"] == pytest.approx(1000.5 / 6003)
    assert ratios["missing", "age"] == pytest.approx(100.5 / 6003)
    assert ratios["unseen", "age"] == pytest.approx(0.5 / 6003)
    assert found["feature_baseline_upto"] == {
        ("(-Inf,18.0)", "age"): 0.0,
        ("[18.0,30.5)", "age"): pytest.approx(1000 / 5900),
        ("[30.5,65.0)", "age"): pytest.approx(3000 / 5900),
        ("[65.0,+Inf)", "age"): 1.0,
    }
    assert found["feature_baseline_width"] == {("[18.0,30.5)", "age"): 12.5, ("[30.5,65.0)", "age"): 34.5}
    assert found["feature_baseline_ratio"]['say "hi"', "state"] == pytest.approx(3000.5 / 6002)
    assert (found["feature_baseline_mean"], found["feature_baseline_stddev"]) == ({("age",): 41.5}, {("age",): 9.0})
    assert found["output_baseline_upto"]["(-Inf,0.5)", "score"] == pytest.approx(1 / 3)
    assert found["baseline_performance"] == {("auc",): 0.91, ("brier",): 0.1}
    assert found["baseline_performance_stddev"] == {("auc",): 0.01}
    assert (found["baseline_rows"], found["baseline_loaded"]) == ({(): 6000}, {("",): 1})


def test_the_sidecars_tell_of_the_same_bins_under_the_same_labels() -> None:
    """Rules match them on these labels: another way to write a number would be a drift of everything."""
    names = ("model", "version", "track")
    features = [Feature(name="age"), Feature(name="state", type="categorical")]
    bins = for_sidecar(BASELINE, "sha256:1").features
    counters = [(("fraud", "v1", "stable"), FeatureCounter(feature, bins[feature.name])) for feature in features]
    theirs = {
        (sample.labels["model"], sample.labels["version"], sample.labels["feature"], sample.labels["bin"])
        for family in feature_metrics(names, counters)
        for sample in family.samples
        if sample.name == "coalmine_feature_bin_total"
    }
    text = Metrics().render([], [deployment()])
    ours = {
        (labels[2], labels[4], labels[1], labels[0])  # in the order of their names: bin, feature, model, namespace, …
        for (name, labels) in samples(text)
        if name == "coalmine_feature_baseline_ratio"
    }
    assert theirs == ours


def test_evidence_of_drift_is_told_by_column() -> None:
    found = told(deployment(column("feature", "age", 7.5, 3.0), column("output", "score", -1.0)))
    assert found["drift_log_e"] == {("feature", "age"): 7.5, ("output", "score"): -1.0}
    assert found["drift_run_length_log"] == {("feature", "age"): 3.0}  # the other has no whole window yet
    assert (found["drift_log_e_mean"], found["drift_run_length_log_mean"]) == ({(): 7.5}, {(): 3.0})
    assert found["drift_alarm_threshold_log"] == {(): pytest.approx(7.966, abs=0.001)}


@pytest.mark.parametrize("problem", ["missing", "mismatch", "unreadable"])
def test_a_baseline_that_cannot_be_used_is_told_with_its_reason_and_nothing_else(problem: str) -> None:
    found = told(deployment(state=BaselineState(problem=problem, message="no such file")))
    assert found["baseline_loaded"] == {(problem,): 0}
    assert not any(name.startswith(("feature_", "output_", "drift_", "baseline_rows")) for name in found)


def test_without_rows_nothing_is_told_of_drift() -> None:
    found = told(deployment())
    assert "feature_baseline_ratio" in found
    assert not any(name.startswith("drift_") for name in found)


def test_a_second_scrape_tells_the_same_and_a_new_baseline_at_once() -> None:
    metrics = Metrics()
    first = metrics.render([], [deployment()])
    assert metrics.render([], [deployment()]).splitlines()[-40:] == first.splitlines()[-40:]
    other = BaselineState(digest="sha256:2", baseline=replace(BASELINE, rows=7000))
    assert b'version="v1"} 7000.0' in metrics.render([], [deployment(state=other)])


def test_what_went_has_no_series_and_none_stands_twice() -> None:
    metrics = Metrics()
    one, same = deployment(column("feature", "age", 1.0)), deployment(column("feature", "age", 2.0))
    text = metrics.render([], [one, same, deployment(version="v2"), deployment(namespace="other")])
    lines = [line for line in text.decode().splitlines() if not line.startswith("#")]
    series = [line.rsplit(" ", 1)[0] for line in lines]
    assert len(series) == len(set(series))
    assert sum(line.startswith("coalmine_baseline_rows") for line in lines) == 3
    assert b"coalmine_baseline" not in metrics.render([], [])


def test_what_is_pushed_is_what_is_scraped() -> None:
    """Whichever pieces it is cut into, no series is lost and none stands in two of them."""
    metrics = Metrics()
    columns = column("feature", "age", 7.5, 3.0), column("output", "score", -1.0)
    unusable = BaselineState(problem="missing", message="no such file")
    deployments = [deployment(*columns), deployment(*columns), deployment(version="v2"), deployment(namespace="other")]
    deployments.append(deployment(version="v3", state=unusable))
    scraped = samples(metrics.render([], deployments))
    for size, number in ((1, 4), (50, 2), (10_000, 1)):
        told = [
            ((sample.name, tuple(value for _, value in sorted(sample.labels.items()))), sample.value)
            for piece in pieces(deployments, size)
            for family in piece
            for sample in family.samples
        ]
        assert len(told) == len(dict(told))
        assert dict(told) == {key: value for key, value in scraped.items() if "operator" not in key[0]}
        assert len(list(pieces(deployments, size))) == number
    (own, *rest) = metrics.pieces([], deployments)
    assert {family.name for family in own} >= {"coalmine_operator_reconciles", "coalmine_deployment_phase"}
    assert len(rest) == 1

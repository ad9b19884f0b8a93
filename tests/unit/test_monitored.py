"""Counts of predictions: added up over sidecars that come and go, and held against a baseline look by look."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
from msgspec.structs import replace

from coalmine_operator.analysis.baseline import log_e_drift
from coalmine_operator.analysis.monitored import (
    FEWEST,
    WINDOW,
    RunLength,
    Watched,
    advance,
    alarm_threshold,
    log_mean_exp,
    watch,
)
from coalmine_operator.api.baseline import Baseline, Categorical, Numeric
from coalmine_operator.api.duration import Duration
from coalmine_operator.api.monitoring import BaselineRef, Drift, Monitoring
from coalmine_operator.api.spec import Metadata, Model, ModelDeploymentSpec
from coalmine_operator.engine import BaselineState, Observed, RevisionRecord, RevisionState
from coalmine_operator.engine.monitored import look
from coalmine_operator.sources.snapshots import KEPT, Snapshots
from coalmine_sidecar.contract import RevisionTotals, Snapshot
from coalmine_sidecar.monitoring import BinCounts, Monitored

DIGEST = "sha256:1"
#: Three bins, then missing and unseen.
REFERENCE = (2000, 2000, 2000, 0, 0)


def numeric(*counts: int) -> Numeric:
    return Numeric(edges=(0.0, 1.0), counts=counts, mean=0.5, stddev=1.0, min=-1.0, max=2.0)


BASELINE = Baseline(
    schema=1,
    model="fraud",
    version="v1",
    task="binary",
    rows=6000,
    features={
        "age": numeric(2000, 2000, 2000),
        "state": Categorical(categories=("a", "b"), counts=(3000, 2900), missing=100),
    },
    outputs={"score": numeric(1000, 2000, 3000)},
)


def counted(age: tuple[int, ...] = (), *, digest: str = DIGEST, missing: int = 0, **features: BinCounts) -> Monitored:
    if age:
        features["age"] = BinCounts(bins=list(age), missing=missing)
    return Monitored(digest=digest, features=features)


def snapshot(
    pod: str, boot: str, at: float, monitored: Monitored | None, *, revision: str = "r1", **others: Monitored
) -> Snapshot:
    totals = {name: RevisionTotals(monitored=one) for name, one in {revision: monitored, **others}.items()}
    return Snapshot(pod=pod, revision=revision, boot=boot, at=at, generation=1, totals=totals)


def sidecars() -> Snapshots:
    return Snapshots(cast(Any, None))  # nobody is asked: what they would answer is given


# Sums over lives


def test_counts_of_pods_and_of_lives_that_are_over_are_added_up() -> None:
    seen = sidecars()
    seen.take("a", snapshot("a", "1", 1.0, counted((1, 2, 3))))
    seen.take("a", snapshot("a", "1", 2.0, counted((2, 4, 6), missing=1)))  # the newest of a life counts
    seen.take("a", snapshot("a", "2", 3.0, counted((10, 0, 0))))  # it was started anew
    seen.take("b", snapshot("b", "1", 3.0, counted((100, 0, 0), state=BinCounts(bins=[7, 8], unseen=2))))
    assert seen.monitored() == {
        "r1": counted((112, 4, 6), missing=1, state=BinCounts(bins=[7, 8], unseen=2)),
    }


def test_nothing_monitored_is_nothing() -> None:
    seen = sidecars()
    seen.take("a", snapshot("a", "1", 1.0, None))
    seen.take("b", snapshot("b", "1", 1.0, Monitored(features={"age": BinCounts(bins=[1])})))  # it has no baseline
    assert seen.monitored() == {}


def test_bins_of_another_baseline_are_never_added() -> None:
    seen = sidecars()
    seen.take("a", snapshot("a", "1", 1.0, counted((1, 2, 3))))
    seen.take("b", snapshot("b", "1", 2.0, counted((5, 5, 5), digest="sha256:2"), r2=counted((9, 9, 9))))
    assert seen.monitored() == {"r1": counted((5, 5, 5), digest="sha256:2"), "r2": counted((9, 9, 9))}


async def test_lives_that_are_forgotten_stay_in_the_sum() -> None:
    seen = sidecars()
    for number in range(KEPT + 20):
        seen.take(f"pod-{number}", snapshot(f"pod-{number}", "1", float(number), counted((1, 1, 0))))
    await seen.gather({})
    assert seen.monitored() == {"r1": counted((KEPT + 20, KEPT + 20, 0))}


def test_a_revision_that_a_sidecar_dropped_and_took_up_again_stays_in_the_sum() -> None:
    seen = sidecars()
    seen.take("a", snapshot("a", "1", 1.0, counted((50, 50, 50))))
    seen.take("a", snapshot("a", "1", 2.0, counted((1, 0, 0))))
    assert seen.monitored() == {"r1": counted((51, 50, 50))}
    seen.take("a", snapshot("a", "1", 3.0, counted((2, 0, 0))))
    assert seen.monitored() == {"r1": counted((52, 50, 50))}


# Windows


def test_a_window_ends_when_it_is_long_enough_and_has_enough_rows() -> None:
    state = advance(None, (10, 10, 10, 0, 0), REFERENCE, 1000.0)
    assert (state.windows, state.log_r) == (0, -math.inf)
    early = advance(state, (500, 500, 500, 0, 0), REFERENCE, 1000.0 + WINDOW - 1)
    assert early is state
    few = advance(state, (10, 10, 10 + FEWEST - 1, 0, 0), REFERENCE, 1000.0 + 10 * WINDOW)
    assert few is state
    over = advance(state, (110, 60, 10, 0, 0), REFERENCE, 1000.0 + WINDOW)
    assert over == RunLength(
        since=1000.0 + WINDOW, start=(110, 60, 10, 0, 0), windows=1, log_r=log_e_drift((100, 50, 0, 0, 0), REFERENCE)
    )
    again = advance(over, (210, 110, 10, 0, 0), REFERENCE, over.since + WINDOW)
    # R = (R + 1) E
    assert math.exp(again.log_r) == pytest.approx((math.exp(over.log_r) + 1) * math.exp(over.log_r), rel=1e-9)


def test_no_traffic_is_never_an_alarm() -> None:
    """A window without rows would add one to R: thirty days of silence would end with an alarm."""
    state = advance(None, (0, 0, 0, 0, 0), REFERENCE, 0.0)
    for number in range(1, 4000):
        state = advance(state, (0, 0, 0, 0, 0), REFERENCE, number * WINDOW)
    assert state.windows == 0
    assert state.log_r < alarm_threshold(30 * 86400.0)


def test_sums_that_shrank_begin_a_window_anew_and_keep_what_was_found() -> None:
    state = RunLength(since=0.0, start=(100, 100, 100, 0, 0), windows=7, log_r=3.0)
    after = advance(state, (100, 99, 5000, 0, 0), REFERENCE, WINDOW)
    assert after == RunLength(since=WINDOW, start=(100, 99, 5000, 0, 0), windows=7, log_r=3.0)
    # a clock that was set back ends no window either
    assert advance(state, (900, 900, 900, 0, 0), REFERENCE, -5.0).since == -5.0


def test_a_drift_without_end_stays_a_number() -> None:
    state = advance(None, (0, 0, 0, 0, 0), REFERENCE, 0.0)
    for number in range(1, 200):
        state = advance(state, (number * 10**6, 0, 0, 0, 0), REFERENCE, number * WINDOW)
    assert math.isfinite(state.log_r)
    assert state.log_r > 1e6
    assert log_mean_exp([state.log_r, -math.inf]) == pytest.approx(state.log_r - math.log(2))


def test_the_threshold_is_the_run_length_in_windows() -> None:
    assert alarm_threshold(30 * 86400.0) == pytest.approx(math.log(2880))
    assert alarm_threshold(1.0) == 0.0


# A revision against its baseline


def test_every_column_in_the_same_bins_is_compared_and_others_are_left_out() -> None:
    monitored = Monitored(
        digest=DIGEST,
        features={
            "age": BinCounts(bins=[40, 30, 20], missing=6, unseen=4),
            "state": BinCounts(bins=[50, 40, 10]),  # another number of bins
            "income": BinCounts(bins=[1, 2, 3]),  # the baseline has no such column
        },
        outputs={"score": BinCounts(bins=[0, 0, 100])},
    )
    found = watch(None, BASELINE, DIGEST, monitored, 0.0, least=5000)
    assert found is not None
    assert [(c.kind, c.name, c.rows) for c in found.columns] == [("feature", "age", 100), ("output", "score", 100)]
    age, score = found.columns
    assert age.log_e == log_e_drift((40, 30, 20, 6, 4), REFERENCE)
    assert score.log_e == log_e_drift((0, 0, 100, 0, 0), (1000, 2000, 3000, 0, 0)) > math.log(1000)
    assert found.log_e_mean == age.log_e  # of the features
    assert found.log_r_mean is None


def test_too_small_a_baseline_and_other_bins_say_nothing() -> None:
    assert watch(None, BASELINE, DIGEST, counted((100, 0, 0)), 0.0, least=6001) is None
    before = watch(None, BASELINE, DIGEST, counted((100, 0, 0)), 0.0, least=6000)
    assert before is not None
    assert watch(before, BASELINE, DIGEST, counted((9, 9, 9), digest="sha256:2"), 1.0, least=1) == before
    assert watch(before, BASELINE, DIGEST, None, 1.0, least=1) == before
    assert watch(None, BASELINE, DIGEST, None, 1.0, least=1) == Watched(digest=DIGEST)
    # a new baseline: what was known was about the old one
    fresh = watch(before, BASELINE, "sha256:2", counted((9, 9, 9), digest="sha256:2"), 1.0, least=1)
    assert fresh is not None
    assert fresh.columns[0].run_length.since == 1.0


@pytest.mark.parametrize("wrong", [-1, 10**400])
def test_what_is_no_count_is_not_computed_with(wrong: int) -> None:
    monitored = counted((wrong, 5, 5), state=BinCounts(bins=[30, 20]))
    found = watch(None, BASELINE, DIGEST, monitored, 0.0, least=5000)
    assert found is not None
    assert [column.name for column in found.columns] == ["state"]


# A model deployment


def state(name: str, version: str, *, pods: int = 1, created_at: float = 1.0, rows: int = 5000) -> RevisionState:
    ref = BaselineRef(config_map="b", min_samples=rows)
    record = RevisionRecord(name=name, version=version, template={}, model=Model(), created_at=created_at, baseline=ref)
    return RevisionState(record=record, pods=pods, ready=pods)


SPEC = ModelDeploymentSpec(template={}, monitoring=Monitoring(drift=Drift(average_run_length=Duration(86400))))
METADATA = Metadata(name="fraud", namespace="shop")
READ = BaselineState(digest=DIGEST, baseline=BASELINE)


def test_what_is_known_of_a_model_deployment() -> None:
    observed = Observed(
        revisions={
            "r1": state("r1", "v1"),
            "r2": state("r2", "v2", rows=10_000),
            "r3": state("r3", "v3"),
            "r4": state("r4", "v4", pods=0),
            "r5": state("r5", "v5"),
        },
        baselines={
            "r1": READ,
            "r2": READ,
            "r3": BaselineState(problem="missing", message="no such file"),
            "r4": READ,
        },
    )
    sums = {name: counted((10, 10, 10)) for name in ("r1", "r2", "r3", "r4", "r5")}
    found = look(None, SPEC, METADATA, observed, sums, 0.0)
    assert found is not None
    assert (found.namespace, found.model, found.threshold) == ("shop", "fraud", pytest.approx(math.log(96)))
    assert [(one.revision, one.version, one.watched is not None) for one in found.revisions] == [
        ("r1", "v1", True),
        ("r2", "v2", False),  # its baseline has fewer rows than it wants
        ("r3", "v3", False),
    ]
    more = look(found, SPEC, METADATA, observed, {"r1": counted((500, 10, 10))}, WINDOW)
    assert more is not None
    watched = more.revisions[0].watched
    assert watched is not None
    assert watched.columns[0].run_length.windows == 1  # what was known went into the next look


def test_two_revisions_of_one_version_are_labelled_as_the_sidecars_label_them() -> None:
    observed = Observed(
        revisions={"r1": state("r1", "v1"), "r2": state("r2", "v1", created_at=2.0)}, baselines={"r1": READ, "r2": READ}
    )
    found = look(None, SPEC, METADATA, observed, {}, 0.0)
    assert found is not None
    assert {one.revision: one.version for one in found.revisions} == {"r2": "v1", "r1": "v1 (r1)"}


def test_a_model_deployment_without_baselines_costs_nothing() -> None:
    assert look(None, SPEC, METADATA, Observed(revisions={"r1": state("r1", "v1")}), {}, 0.0) is None
    observed = Observed(revisions={"r1": state("r1", "v1")}, baselines={"r1": READ})
    assert look(None, replace(SPEC, monitoring=None), METADATA, observed, {}, 0.0) is None

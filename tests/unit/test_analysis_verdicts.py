"""Presets, reasons, and evidence that outlives epochs."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from coalmine_operator.analysis import Looked, bank, baseline_bins, epoch_boundaries, judge, merge, thresholds, worst
from coalmine_operator.analysis.drift import OutputDrift
from coalmine_operator.api.duration import Duration
from coalmine_operator.api.spec import Analysis, Baseline, Metric
from coalmine_operator.api.status import Banked, Verdict, VerdictName
from coalmine_sidecar.contract import EpochCounts, OutputCounts

ERRORS = Metric(name="errors", preset="errorRate")
P99 = Metric(name="p99", preset="latency", threshold="250ms")
SCORES = Metric(name="scores", preset="outputDrift")
EDGES = (0.2, 0.4, 0.6, 0.8)


def requests(n: int, errors: int = 0, **more: Any) -> EpochCounts:
    return EpochCounts(requests=n, errors=errors, answered=n - errors, **more)


def scores(*bins: int, missing: int = 0, name: str = "score", **more: Any) -> EpochCounts:
    output = OutputCounts(edges=EDGES, bins=list(bins), missing=missing)
    return requests(sum(bins) + missing, outputs={name: output}, **more)


def looked(canary: EpochCounts, stable: EpochCounts, weight: int = 50, age: float = 1000.0) -> Looked:
    return Looked(canary=canary, stable=stable, weight=weight, age=age)


def one(metric: Metric, seen: Looked | None, banked: tuple[Banked, ...] = (), **analysis: Any) -> Verdict:
    (verdict,) = judge(Analysis(metrics=(metric,), **analysis), seen, banked)
    return verdict


def told(verdict: Verdict) -> tuple[VerdictName, str]:
    return verdict.verdict, verdict.reason


def test_more_errors_fail_with_their_evidence() -> None:
    verdict = one(ERRORS, looked(requests(200, 20), requests(3800, 20), weight=5))
    assert told(verdict) == ("Fail", "MoreErrors")
    assert verdict.threshold == pytest.approx(math.log(20))
    assert verdict.statistic > verdict.threshold
    assert verdict.evidence == {
        "epochs": 1,
        "canary": 200,
        "canaryBad": 20,
        "stable": 3800,
        "stableBad": 20,
        "canaryRate": 0.1,
        "stableRate": 0.005263,
        "logE": round(verdict.statistic, 3),
    }


def test_refusals_of_clients_count_as_errors() -> None:
    verdict = one(ERRORS, looked(requests(200, client_errors=30), requests(200, client_errors=1)))
    assert told(verdict) == ("Fail", "MoreErrors")


def test_same_rates_pass_and_fewer_errors_too() -> None:
    assert told(one(ERRORS, looked(requests(500, 10), requests(500, 11)))) == ("Pass", "NoRegression")
    assert told(one(ERRORS, looked(requests(500, 0), requests(500, 100)))) == ("Pass", "NoRegression")


def test_an_outage_of_both_is_nobodys_regression() -> None:
    assert told(one(ERRORS, looked(requests(500, 400), requests(500, 405)))) == ("Pass", "NoRegression")


def test_error_rate_threshold_forgives_small_regressions() -> None:
    seen = looked(requests(10_000, 300), requests(10_000, 200))
    assert one(ERRORS, seen).verdict == "Fail"
    assert one(msgspec.structs.replace(ERRORS, threshold=0.02), seen).verdict == "Pass"
    assert one(msgspec.structs.replace(ERRORS, threshold="0.005"), seen).verdict == "Fail"


def test_a_broken_canary_fails_before_it_could_pass_but_not_on_a_few_requests() -> None:
    assert told(one(ERRORS, looked(requests(9, 9), requests(171), weight=5))) == ("Unknown", "TooFewRequests")
    assert told(one(ERRORS, looked(requests(10, 10), requests(190), weight=5))) == ("Fail", "MoreErrors")


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (None, "NoTraffic"),
        (looked(requests(0), requests(0)), "NoTraffic"),
        (looked(requests(0), requests(500)), "NoTraffic"),
        (looked(requests(500), requests(0)), "NoStableTraffic"),
        (looked(requests(99), requests(500)), "TooFewRequests"),
        (looked(requests(500), requests(9)), "TooFewRequests"),
        (looked(requests(500), requests(500), weight=0), "NoTraffic"),
        (looked(requests(500), requests(500), weight=100), "NoStableTraffic"),
    ],
)
def test_too_little_is_unknown(seen: Looked | None, reason: str) -> None:
    assert told(one(ERRORS, seen)) == ("Unknown", reason)


def test_alpha_is_shared_by_the_metrics_that_test() -> None:
    query = Metric(name="clicks")
    verdicts = judge(Analysis(metrics=(ERRORS, query, SCORES), alpha=0.1), None, ())
    assert [v.metric for v in verdicts] == ["errors", "clicks", "scores"]
    assert [v.threshold for v in verdicts] == pytest.approx([math.log(20), 0.0, math.log(20)])
    assert told(verdicts[1]) == ("Unknown", "NoPrometheus")


def slow(n: int, over: int, limits: tuple[float, ...] = (0.1, 0.25)) -> EpochCounts:
    return requests(n, thresholds=limits, over=[n, over])


def test_slow_canary_fails_at_its_own_threshold() -> None:
    assert told(one(P99, looked(slow(300, 60), slow(300, 3)))) == ("Fail", "Slower")
    assert told(one(P99, looked(slow(300, 3), slow(300, 3)))) == ("Pass", "NoRegression")
    assert told(one(P99, looked(slow(300, 60, (0.1, 0.3)), slow(300, 3, (0.1, 0.3))))) == ("Unknown", "NoThreshold")
    assert told(one(Metric(name="p", preset="latency"), looked(slow(300, 60), slow(300, 3)))) == (
        "Unknown",
        "NoThreshold",
    )


def test_warm_up_is_forgiven_by_whole_epochs() -> None:
    early, late = (looked(slow(300, 60), slow(300, 3), age=age) for age in (119.0, 120.0))
    assert told(one(P99, early)) == ("Unknown", "WarmingUp")
    assert told(one(P99, late)) == ("Fail", "Slower")
    hasty = msgspec.structs.replace(P99, initial_delay=Duration(0))
    assert told(one(hasty, early)) == ("Fail", "Slower")
    # An epoch that did not count is not banked either, and one that counted is not forgotten.
    analysis = Analysis(metrics=(P99,))
    assert one(P99, None, bank(analysis, early, ())).verdict == "Unknown"
    good = bank(analysis, looked(slow(300, 3), slow(300, 3)), ())
    assert told(one(P99, early, good)) == ("Pass", "NoRegression")


def test_what_the_sidecars_and_the_engine_need_to_know() -> None:
    delayed = Metric(name="d", preset="outputDrift", initial_delay=Duration(30))
    other = Metric(name="q", preset="latency", threshold=0.1, initial_delay=Duration(0))
    analysis = Analysis(metrics=(ERRORS, P99, SCORES, delayed, other, msgspec.structs.replace(P99, name="again")))
    assert thresholds(analysis) == (0.1, 0.25)
    assert epoch_boundaries(analysis) == (30.0, 120.0)


def test_drifted_outputs_fail_and_steady_ones_pass() -> None:
    verdict = one(SCORES, looked(scores(90, 10, 0, 0, 0), scores(400, 400, 400, 400, 400), weight=5))
    assert told(verdict) == ("Fail", "OutputDrift")
    assert verdict.evidence["outputs"]["score"]["psi"] > 1
    assert told(one(SCORES, looked(scores(20, 22, 18, 19, 21), scores(400, 400, 400, 400, 400), weight=5))) == (
        "Pass",
        "NoRegression",
    )


def test_small_drift_is_real_but_no_defect() -> None:
    seen = looked(scores(2300, 2100, 2000, 1900, 1700), scores(2000, 2000, 2000, 2000, 2000))
    verdict = one(SCORES, seen)
    assert verdict.statistic > verdict.threshold
    assert verdict.verdict == "Pass"
    assert one(msgspec.structs.replace(SCORES, threshold=0.001), seen).verdict == "Fail"


def test_missing_outputs_are_a_drift() -> None:
    assert told(one(SCORES, looked(scores(30, 30, 30, 5, 5, missing=100), scores(60, 60, 60, 10, 10)))) == (
        "Fail",
        "OutputDrift",
    )


def labels(**classes: int) -> EpochCounts:
    return requests(sum(classes.values()), outputs={"label": OutputCounts(classes=dict(classes))})


def test_classes_drift_and_classes_that_may_hide_in_other_do_not() -> None:
    assert told(one(SCORES, looked(labels(a=150, b=50), labels(a=60, b=140)))) == ("Fail", "OutputDrift")
    assert told(one(SCORES, looked(labels(a=100, b=100), labels(a=95, b=105)))) == ("Pass", "NoRegression")
    # "b" came too late to get a name of its own in one of the two.
    assert told(one(SCORES, looked(labels(a=100, b=100), labels(a=100, _other=100)))) == ("Pass", "NoRegression")


def test_a_whole_number_counted_in_a_bin_and_as_a_class_weighs_once() -> None:
    def twice(zeros: int, ones: int) -> EpochCounts:
        output = OutputCounts(edges=(0.5,), bins=[zeros, ones], classes={"0": zeros, "1": ones})
        return requests(zeros + ones, outputs={"label": output})

    seen = one(SCORES, looked(twice(70, 50), twice(50, 70)))
    assert seen.statistic == pytest.approx(one(SCORES, looked(labels(a=70, b=50), labels(a=50, b=70))).statistic)
    assert seen.evidence["outputs"]["label"]["canary"] == 120


def test_one_drifted_output_among_several_is_found_and_named() -> None:
    canary = requests(300, outputs=scores(290, 10, 0, 0, 0).outputs | scores(60, 60, 60, 60, 60, name="x").outputs)
    stable = requests(300, outputs=scores(60, 60, 60, 60, 60).outputs | scores(60, 60, 60, 60, 60, name="x").outputs)
    assert one(SCORES, looked(canary, stable)).verdict == "Fail"
    assert one(msgspec.structs.replace(SCORES, output="x"), looked(canary, stable)).verdict == "Pass"
    assert one(msgspec.structs.replace(SCORES, output="score"), looked(canary, stable)).verdict == "Fail"


def test_outputs_nobody_can_compare_are_unknown() -> None:
    fine = scores(60, 60, 60, 60, 60)
    assert told(one(SCORES, looked(requests(300), requests(300)))) == ("Unknown", "NoOutputs")
    assert told(one(SCORES, looked(requests(300), fine))) == ("Unknown", "NoOutputs")
    assert told(one(msgspec.structs.replace(SCORES, output="y"), looked(fine, fine))) == ("Unknown", "NoOutputs")
    other = requests(300, outputs={"score": OutputCounts(edges=(0.5,), bins=[150, 150])})
    assert told(one(SCORES, looked(other, fine))) == ("Unknown", "NoOutputs")


def test_several_outputs_share_one_alpha() -> None:
    """The e-values are averaged: what would do for one output alone is not enough beside seven steady ones."""
    moved, steady = scores(30, 12, 5, 2, 1), scores(10, 10, 10, 10, 10)
    touchy = msgspec.structs.replace(SCORES, threshold=0.01)
    alone = one(touchy, looked(moved, steady), alpha=0.01)
    assert alone.verdict == "Fail"
    names = [f"x{i}" for i in range(7)]
    more = {name: OutputCounts(edges=EDGES, bins=[10] * 5) for name in names}
    many = looked(requests(50, outputs=moved.outputs | more), requests(50, outputs=steady.outputs | more))
    beside = one(touchy, many, alpha=0.01)
    assert beside.evidence["outputs"]["score"]["logE"] == pytest.approx(alone.statistic, abs=1e-3)
    assert alone.threshold < alone.statistic < alone.threshold + math.log(8)
    assert beside.statistic == pytest.approx(alone.statistic - math.log(8), abs=0.1)
    assert beside.verdict == "Unknown"


def test_psi_of_epochs_is_weighted_and_its_error_shrinks() -> None:
    once = OutputDrift().add([40, 60, 100], [100, 60, 40], 0.5)
    twice = once.add([40, 60, 100], [100, 60, 40], 0.5)
    assert twice.psi == pytest.approx(once.psi)
    assert twice.psi - twice.at_least == pytest.approx((once.psi - once.at_least) / math.sqrt(2))
    tiny = once.add([1, 1, 1], [1, 1, 1], 0.5)
    assert tiny.psi == pytest.approx(once.psi, rel=0.1)


def test_an_epoch_without_stable_holds_nothing_against_the_canary() -> None:
    banked = bank(Analysis(metrics=(ERRORS,)), looked(requests(300, 6), requests(300, 6)), ())
    verdict = one(ERRORS, looked(requests(100, 50), requests(0)), banked)
    assert verdict.verdict == "Pass"
    assert verdict.evidence["canaryRate"] == verdict.evidence["stableRate"]


def test_an_output_that_the_canary_lost_is_unknown_and_a_new_one_is_welcome() -> None:
    single, double = scores(60, 60, 60, 60, 60), scores(60, 60, 60, 60, 60, name="extra")
    both = requests(300, outputs=single.outputs | double.outputs)
    assert told(one(SCORES, looked(single, both))) == ("Unknown", "NoOutputs")
    assert told(one(SCORES, looked(both, single))) == ("Pass", "NoRegression")


def against(*counts: int) -> Metric:
    baseline = (Baseline(output="score", edges=EDGES, counts=counts),)
    return Metric(name="scores", preset="outputDrift", against="baseline", baseline=baseline)


def test_against_a_baseline_only_the_canary_matters() -> None:
    steady, drifted = scores(40, 42, 38, 39, 41), scores(150, 30, 10, 5, 5)
    metric = against(1000, 1000, 1000, 1000, 1000)
    assert told(one(metric, looked(steady, requests(0), weight=100))) == ("Pass", "NoRegression")
    assert told(one(metric, looked(drifted, drifted))) == ("Fail", "OutputDrift")
    assert told(one(metric, looked(scores(4, 4, 4, 4, 4), steady))) == ("Unknown", "TooFewRequests")
    assert told(one(metric, looked(requests(300), steady))) == ("Unknown", "NoOutputs")
    assert told(one(metric, None)) == ("Unknown", "NoTraffic")


def test_baselines_bring_their_edges() -> None:
    assert baseline_bins(Analysis(metrics=(SCORES, against(1, 2, 3, 4, 5)))) == {"score": EDGES}
    assert baseline_bins(Analysis(metrics=(SCORES, ERRORS))) == {}


def test_a_small_or_absent_baseline_is_unknown() -> None:
    drifted = looked(scores(150, 30, 10, 5, 5), requests(0))
    assert told(one(against(50, 50, 50, 50, 50), drifted)) == ("Unknown", "BaselineTooSmall")
    assert told(one(msgspec.structs.replace(SCORES, against="baseline"), drifted)) == ("Unknown", "NoBaseline")


EVERYTHING = Analysis(metrics=(ERRORS, P99, SCORES, against(1000, 1000, 1000, 1000, 1000), Metric(name="q")))


def everything(k: int) -> Looked:
    canary = scores(40 + k, 42, 38, 39, 41, errors=k, thresholds=(0.25,), over=[k])
    return looked(canary, scores(80, 84, 76, 78, 82, errors=4, thresholds=(0.25,), over=[3]), weight=33)


def test_banking_changes_no_verdict_and_survives_the_status() -> None:
    banked: tuple[Banked, ...] = ()
    for k in (0, 3, 7):
        now = judge(EVERYTHING, everything(k), banked)
        banked = msgspec.json.decode(
            msgspec.json.encode(bank(EVERYTHING, everything(k), banked)), type=tuple[Banked, ...]
        )
        after = judge(EVERYTHING, None, banked)
        assert after == now
    assert [v.evidence.get("epochs") for v in now] == [3, 3, 3, 3, None]


def test_epochs_multiply_and_are_not_pooled() -> None:
    analysis = Analysis(metrics=(ERRORS,))
    first, second = looked(requests(100, 5), requests(900, 20), 10), looked(requests(500, 30), requests(500, 20))
    each = [one(ERRORS, seen).statistic for seen in (first, second)]
    both = one(ERRORS, second, bank(analysis, first, ()))
    assert both.statistic == pytest.approx(sum(each))
    assert both.evidence["canary"] == 600


def test_rates_and_shares_that_move_together_do_not_mislead() -> None:
    """Pooled, the canary has 8.5 % against 3.1 %: and yet in both epochs it is the better one."""
    analysis = Analysis(metrics=(ERRORS,))
    calm, rough = looked(requests(500, 5), requests(9500, 114), 5), looked(requests(2500, 250), requests(2500, 260))
    verdict = one(ERRORS, rough, bank(analysis, calm, ()))
    assert verdict.verdict == "Pass"
    assert verdict.evidence["canaryRate"] < verdict.evidence["stableRate"]
    pooled = one(ERRORS, looked(merge([calm.canary, rough.canary]), merge([calm.stable, rough.stable]), 20))
    assert pooled.verdict == "Fail"


def test_evidence_on_another_question_does_not_count() -> None:
    banked = bank(Analysis(metrics=(P99,)), looked(slow(300, 60), slow(300, 3)), ())
    stricter = msgspec.structs.replace(P99, threshold="1s")
    assert told(one(P99, None, banked)) == ("Fail", "Slower")
    assert told(one(stricter, None, banked)) == ("Unknown", "NoTraffic")


def test_worst() -> None:
    good, bad, vague = (Verdict(metric="m", verdict=v) for v in ("Pass", "Fail", "Unknown"))
    assert worst(()) == "Pass"
    assert worst((good, good)) == "Pass"
    assert worst((good, vague)) == "Unknown"
    assert worst((vague, bad, good)) == "Fail"

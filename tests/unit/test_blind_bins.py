"""Bins in which every version looks alike: no verdict rests on them, and better ones are cut as soon as they can be."""

from __future__ import annotations

import random
from bisect import bisect_right

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property.world import World, make_spec

from coalmine_operator.analysis import BINS_CANNOT_TELL, Looked, bank, freeze_bins, judge, recut
from coalmine_operator.api.duration import Duration
from coalmine_operator.api.spec import Analysis, Baseline, Metric
from coalmine_operator.api.status import Status, Verdict
from coalmine_operator.engine.guard import wants_values
from coalmine_sidecar.contract import DEFAULT_EDGES, EpochCounts, OutputCounts

MODEST = settings(max_examples=60, deadline=None)
DRIFT = Metric(name="drift", preset="outputDrift", threshold=0.2)
ANALYSIS = Analysis(interval=Duration(1), metrics=(DRIFT,), min_requests=100)
PRICES = [random.Random(7).gauss(250_000, 50_000) for _ in range(400)]
Edges = tuple[float, ...]


def counted(values: list[float], edges: Edges = DEFAULT_EDGES, name: str = "price") -> EpochCounts:
    bins = [0] * (len(edges) + 1)
    for value in values:
        bins[bisect_right(edges, value)] += 1
    classes: dict[str, int] = {}
    for value in values:
        if isinstance(value, int):
            classes[str(value)] = classes.get(str(value), 0) + 1
    output = OutputCounts(edges=edges, bins=bins, classes=classes)
    return EpochCounts(requests=len(values), answered=len(values), outputs={name: output})


def looked(canary: EpochCounts, stable: EpochCounts) -> Looked:
    return Looked(canary=canary, stable=stable, weight=50, age=1000.0)


def verdict(canary: EpochCounts, stable: EpochCounts, metric: Metric = DRIFT) -> Verdict:
    (found,) = judge(Analysis(metrics=(metric,)), looked(canary, stable), ())
    return found


def test_prices_in_bins_of_probabilities_are_unknown_and_the_line_says_why() -> None:
    found = verdict(counted([10 * p for p in PRICES]), counted([*PRICES, 0.0]))
    assert (found.verdict, found.reason) == ("Unknown", BINS_CANNOT_TELL)
    assert found.evidence["problem"].endswith("cannot tell them apart: price in [1.0,+Inf)")


def test_counts_of_tokens_are_no_probabilities_either() -> None:
    tokens = [50 + i % 300 for i in range(900)]
    found = verdict(counted([10 * n for n in tokens]), counted(tokens))
    assert (found.verdict, found.reason) == ("Unknown", BINS_CANNOT_TELL)
    edges = recut({}, {"price": tokens})["price"]
    assert verdict(counted([10 * n for n in tokens], edges), counted(tokens, edges)).verdict == "Fail"


def test_ten_times_the_price_fails_in_bins_cut_from_prices() -> None:
    edges = freeze_bins({"price": PRICES})["price"]
    assert verdict(counted([10 * p for p in PRICES], edges), counted(PRICES, edges)).verdict == "Fail"
    assert verdict(counted(PRICES[:200], edges), counted(PRICES[200:], edges)).verdict == "Pass"


@pytest.mark.parametrize("values", [[1] * 200, [0.0, 1.0] * 100, [0.05, 0.95, 0.5] * 70])
def test_what_default_bins_can_tell_passes(values: list[float]) -> None:
    assert verdict(counted(values), counted(values)).verdict == "Pass"


def test_missing_answers_fail_even_where_bins_tell_nothing() -> None:
    lost = OutputCounts(edges=DEFAULT_EDGES, bins=[*[0] * 11, 200], missing=200)
    canary = EpochCounts(requests=400, answered=400, outputs={"price": lost})
    assert verdict(canary, counted(PRICES)).verdict == "Fail"


def test_a_baseline_of_one_open_bin_tells_nothing_and_one_of_a_rare_class_does() -> None:
    for counts, bins, result in (((0, 5000), [0, 300], "Unknown"), ((4900, 100), [295, 5], "Pass")):
        baseline = (Baseline(output="price", edges=(0.5,), counts=counts),)
        metric = Metric(name="drift", preset="outputDrift", against="baseline", baseline=baseline)
        live = OutputCounts(edges=(0.5,), bins=bins)
        epoch = EpochCounts(requests=300, answered=300, outputs={"price": live})
        assert verdict(epoch, epoch, metric).verdict == result


@MODEST
@given(st.lists(st.floats(1, 1e9), min_size=1, max_size=50), st.integers(2, 1000), st.integers(1, 20))
def test_no_pass_ever_rests_on_an_open_bin(values: list[float], factor: int, times: int) -> None:
    canary, stable = ([v * k for v in values] * times * 5 for k in (factor, 1))
    assert verdict(counted(canary), counted(stable)).verdict != "Pass"


@MODEST
@given(
    st.one_of(st.lists(st.floats(-1e100, 1e100), min_size=100, max_size=300), st.sampled_from([0.0, 1.0, 250.0]).map(
        lambda v: [v] * 150)))  # fmt: skip
def test_bins_cut_from_stables_answers_hold_them_all_and_are_cut_once(values: list[float]) -> None:
    edges = freeze_bins({"x": values})["x"]
    assert all(0 < bisect_right(edges, value) < len(edges) for value in values)
    assert recut({"x": edges}, {"x": values}) == {}


def test_blind_evidence_thins_no_later_drift_and_passes_no_output_without_requests_of_its_own() -> None:
    edges = freeze_bins({"price": PRICES})["price"]
    other = {"label": OutputCounts(edges=(0.5,), bins=[200, 200])}
    blind = counted(PRICES)
    blind.outputs.update(other)
    banked = bank(ANALYSIS, looked(blind, blind), ())
    (waiting,) = judge(ANALYSIS, None, banked)
    assert waiting.verdict == "Unknown"
    assert "problem" in waiting.evidence
    for n, expected in ((20, ("Unknown", "TooFewRequests")), (200, ("Pass", "NoRegression"))):
        seen = [counted(values, edges) for values in (PRICES[:n], PRICES[200:])]
        for one in seen:
            one.outputs.update(other)
        (found,) = judge(ANALYSIS, looked(*seen), banked)
        assert (found.verdict, found.reason) == expected
    (failed,) = judge(
        ANALYSIS, looked(counted([10 * p for p in PRICES], edges), counted(PRICES, edges)), bank(ANALYSIS, None, banked)
    )
    fresh = verdict(counted([10 * p for p in PRICES], edges), counted(PRICES, edges))
    assert failed.verdict == "Fail"
    assert failed.evidence["outputs"]["price"]["psi"] == fresh.evidence["outputs"]["price"]["psi"]


def test_a_rollout_that_began_before_stable_had_answered_gets_bins_on_the_way_and_fails() -> None:
    world = World(make_spec(analysis=ANALYSIS))
    world.settle(5)
    world.spec = make_spec("v2", analysis=ANALYSIS)
    for _ in range(30):
        world.settle(1)
        if world.status.rollout and world.status.rollout.weight:
            break
    rollout = world.status.rollout
    assert rollout is not None
    assert world.status.bins == {}

    def answer(edges: Edges) -> None:
        assert world.status.rollout is not None
        epoch = f"{world.status.rollout.id}.{world.status.rollout.epoch}"
        world.epochs[epoch] = {
            rollout.revision: counted([10 * p for p in PRICES], edges),
            rollout.previous: counted(PRICES, edges),
        }
        world.settle(1)

    answer(DEFAULT_EDGES)
    assert world.status.verdicts[0].reason == BINS_CANNOT_TELL
    assert wants_values(world.status)
    before = world.status.rollout
    world.values = {"price": tuple(PRICES)}
    world.settle(1)
    assert before is not None
    assert world.status.rollout is not None
    assert world.status.rollout.epoch == before.epoch + 1
    assert "BinsCut" in world.events
    answer(world.status.bins["price"])
    assert world.status.history[-1].result == "RolledBack"


def test_raw_answers_are_not_asked_for_without_need() -> None:
    world = World(make_spec(analysis=ANALYSIS))
    world.settle(5)
    world.spec = make_spec("v2", analysis=ANALYSIS)
    world.settle(2)
    assert wants_values(Status())
    assert world.status.rollout is not None
    assert not wants_values(world.status)

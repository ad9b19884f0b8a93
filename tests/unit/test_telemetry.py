"""Counters: what counts where, and what is kept when the routing file changes."""

import pytest
from msgspec import json
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from coalmine_sidecar.contract import (
    DEFAULT_EDGES,
    KEPT_EPOCHS,
    KEPT_VALUES,
    MAX_CLASSES,
    MAX_OUTPUTS,
    Mirror,
    Observe,
    RevisionRoute,
    Routing,
    decode_snapshot,
)
from coalmine_sidecar.telemetry import Telemetry
from coalmine_sidecar.telemetry.counters import Histogram
from coalmine_sidecar.telemetry.exposition import expose
from coalmine_sidecar.telemetry.outputs import OTHER, OutputCounter, OutputSet
from coalmine_sidecar.telemetry.snapshot import take_snapshot
from coalmine_sidecar.telemetry.store import KEPT_RETIRED

OK, CLIENT_ERROR = 0, 1


def routing(*names: str, epoch: str = "1", generation: int = 1, observe: Observe | None = None) -> Routing:
    """The first revision gets all traffic; versions are the names in capitals."""
    return Routing(
        deployment="fraud",
        model="fraud",
        generation=generation,
        epoch=epoch,
        revisions=tuple(
            RevisionRoute(
                name=name,
                version=name.upper(),
                track="canary" if i else "stable",
                weight=0 if i else 100,
            )
            for i, name in enumerate(names)
        ),
        observe=observe or Observe(),
    )


@pytest.fixture
def telemetry() -> Telemetry:
    made = Telemetry(pod="pod-1", revision="a", boot="boot")
    made.configure(routing("a", "b", observe=Observe(thresholds=(0.1, 1.0))))
    return made


def test_a_value_on_a_bound_belongs_to_its_bucket() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1]
    assert histogram.total == 7.5


def test_done_counts_each_part(telemetry: Telemetry) -> None:
    series = telemetry.series("a", "ingress")
    series.done(OK, 200, 0.004, 0.003, 95, 130)
    assert series.requests == {(OK, 200): 1}
    assert series.duration.counts[2] == 1  # (0.0025, 0.005]
    assert series.upstream.total == 0.003
    assert series.overhead.total == pytest.approx(0.001)
    assert series.request_bytes.counts[0] == 1
    assert series.response_bytes.total == 130


def test_no_upstream_no_overhead(telemetry: Telemetry) -> None:
    series = telemetry.series("a", "ingress")
    series.done(CLIENT_ERROR, 431, 0.004, 0.0, 0, 0)
    assert sum(series.duration.counts) == 1
    assert sum(series.upstream.counts) == sum(series.overhead.counts) == 0


def test_codes_are_bounded(telemetry: Telemetry) -> None:
    series = telemetry.series("a", "ingress")
    for code in range(100, 1000):
        series.done(OK, code, 0.1, 0.1, 0, 0)
    assert len(series.requests) < 80
    assert sum(series.requests.values()) == 900
    assert series.outcomes() == {"ok": 900}


def test_series_stay_the_same_object_over_reloads(telemetry: Telemetry) -> None:
    series = telemetry.series("b", "ingress")
    telemetry.configure(routing("b", "a", generation=2))
    assert telemetry.series("b", "ingress") is series
    assert telemetry.revisions["b"].track == "stable"
    assert telemetry.revisions["a"].weight == 0


def test_an_unknown_revision_counts_nowhere(telemetry: Telemetry) -> None:
    telemetry.series("gone", "ingress").done(OK, 200, 0.1, 0.1, 0, 0)
    telemetry.epoch("gone").answered(200, 0.1)
    telemetry.decisions("gone")[0] += 1
    telemetry.retry("gone", "reset")
    telemetry.connection_error("gone", "reset")
    telemetry.fallback("gone", "a", "reset")
    assert set(telemetry.revisions) == {"a", "b"}
    assert telemetry.fallbacks == {}


def test_retired_revisions_are_kept_a_while_the_oldest_goes_first(telemetry: Telemetry) -> None:
    for i in range(20):
        telemetry.configure(routing("a", f"canary-{i:02}", generation=i))
    kept = [name for name, counters in telemetry.revisions.items() if counters.track == "retired"]
    assert sorted(kept) == [f"canary-{i:02}" for i in range(19 - KEPT_RETIRED, 19)]


def test_the_own_revision_is_always_kept(telemetry: Telemetry) -> None:
    own = telemetry.series("a", "local")
    for i in range(20):
        telemetry.configure(routing(f"other-{i}", generation=i))
    assert telemetry.series("a", "local") is own
    assert telemetry.revisions["a"].track == "retired"


def test_two_revisions_of_one_version_have_two_labels(telemetry: Telemetry) -> None:
    for name in ("c", "d", "e"):
        telemetry.configure(
            Routing(
                deployment="fraud",
                model="fraud",
                generation=1,
                revisions=(RevisionRoute(name=name, version="v1", track="stable", weight=100),),
            )
        )
    versions = [counters.version for counters in telemetry.revisions.values()]
    assert len(set(versions)) == len(versions)
    assert telemetry.revisions["e"].version == "v1"


def test_reasons_are_bounded(telemetry: Telemetry) -> None:
    for reason in ("reset", "made up", "made up too"):
        telemetry.fallback("b", "a", reason)
        telemetry.retry("b", reason)
        telemetry.connection_error("b", reason)
    assert telemetry.fallbacks["b", "a"]["reset"] == 1
    assert telemetry.fallbacks["b", "a"][OTHER] == 2
    assert telemetry.revisions["b"].retries[OTHER] == 2
    assert telemetry.revisions["b"].connection_errors[OTHER] == 2


class TestEpochs:
    def test_a_cell_counts_requests_errors_and_slow_answers(self, telemetry: Telemetry) -> None:
        cell = telemetry.epoch("b")
        cell.failed()
        cell.answered(200, 0.05)
        cell.answered(404, 0.1)  # not slower than 0.1
        cell.answered(200, 2.0)
        counts = cell.counts()
        assert (counts.requests, counts.errors, counts.client_errors, counts.answered) == (4, 1, 1, 3)
        assert counts.over == [1, 1]

    def test_the_newest_are_kept(self, telemetry: Telemetry) -> None:
        for i in range(2, 10):
            telemetry.configure(routing("a", "b", epoch=str(i)))
        assert list(telemetry.epochs) == [str(i) for i in range(10 - KEPT_EPOCHS, 10)]

    def test_a_request_of_a_dropped_epoch_counts_nowhere(self, telemetry: Telemetry) -> None:
        cell = telemetry.epoch("a")
        for i in range(2, 10):
            telemetry.configure(routing("a", epoch=str(i)))
        cell.answered(200, 0.1)
        assert all(counts.requests == 0 for cells in telemetry.epochs.values() for counts in cells.values())

    def test_a_request_of_the_last_epoch_counts_there(self, telemetry: Telemetry) -> None:
        cell = telemetry.epoch("a")
        telemetry.configure(routing("a", "b", epoch="2"))
        cell.answered(200, 0.1)
        telemetry.epoch("a").failed()
        assert telemetry.epochs["1"]["a"].counts().requests == 1
        assert telemetry.epochs["2"]["a"].counts().errors == 1

    def test_a_reload_within_an_epoch_goes_on_counting(self, telemetry: Telemetry) -> None:
        cell = telemetry.epoch("a")
        cell.answered(200, 0.5)
        telemetry.configure(routing("a", "b", generation=2, observe=Observe(thresholds=(0.1, 1.0))))
        assert telemetry.epoch("a") is cell
        assert cell.counts().over == [1, 0]

    def test_other_thresholds_start_the_latency_counts_anew_only(self, telemetry: Telemetry) -> None:
        cell = telemetry.epoch("a")
        cell.answered(200, 0.5)
        cell.failed()
        telemetry.configure(routing("a", "b", generation=2, observe=Observe(thresholds=(0.2,))))
        cell.answered(200, 0.5)
        counts = cell.counts()
        assert (counts.requests, counts.errors, counts.answered, counts.over) == (3, 1, 1, [1])
        assert counts.thresholds == (0.2,)


class TestOutputs:
    def test_bins_are_half_open(self) -> None:
        counter = OutputCounter("score", (0.0, 0.5, 1.0))
        for value in (-0.1, 0.0, 0.49, 0.5, 0.99, 1.0, 7.0):
            counter.add(value)
        assert counter.bins == [1, 2, 2, 2]

    def test_what_is_no_finite_number_is_missing(self) -> None:
        counter = OutputCounter("score", DEFAULT_EDGES)
        for value in (None, float("nan"), float("inf"), float("-inf")):
            counter.add(value)
        assert counter.missing == 4
        assert not any(counter.bins)

    def test_whole_numbers_are_classes_and_numbers(self) -> None:
        counter = OutputCounter("label", (0.0, 1.0))
        for value in (0, 1, 1, 10**400, -(10**400)):
            counter.add(value)
        assert counter.bins == [0, 1, 2]
        assert counter.classes == {"0": 1, "1": 2}
        assert (counter.missing, counter.nonfinite) == (2, 2)

    def test_booleans_and_strings_are_classes(self) -> None:
        counter = OutputCounter("label", DEFAULT_EDGES)
        for value in (True, False, True, "fraud"):
            counter.add(value)
        assert counter.classes == {"true": 2, "false": 1, "fraud": 1}
        assert counter.counts().bins == []
        assert counter.counts().edges == ()

    def test_classes_are_bounded_and_printable(self) -> None:
        counter = OutputCounter("label", DEFAULT_EDGES)
        counter.add("x" * 65)
        for i in range(100):
            counter.add(f"class {i}\n\ud800")
        assert len(counter.classes) == MAX_CLASSES + 1
        assert counter.classes[OTHER] == 1 + 100 - MAX_CLASSES
        assert counter.classes["class 0??"] == 1

    def test_outputs_are_bounded_and_configured_ones_have_their_place(self) -> None:
        outputs = OutputSet({})
        for i in range(20):
            outputs.get(f"output {i}")
        assert len(outputs.by_name) == MAX_OUTPUTS
        outputs.configure({"score": (0.0, 1.0)})
        assert len(outputs.by_name) == MAX_OUTPUTS
        assert outputs.by_name["score"].bins == [0, 0, 0]
        assert "output 0" in outputs.by_name
        assert outputs.get("output 7") is None

    def test_other_edges_start_an_output_anew(self) -> None:
        outputs = OutputSet({"score": (0.0, 1.0), "other": (0.0,)})
        for name in ("score", "other", "third"):
            counter = outputs.get(name)
            assert counter is not None
            counter.add(0.5)
        outputs.configure({"score": (0.0, 0.5, 1.0), "other": (0.0,)})
        assert outputs.by_name["score"].bins == [0, 0, 0, 0]
        assert outputs.by_name["other"].bins == [0, 1]
        assert sum(outputs.by_name["third"].bins) == 1


class TestSnapshot:
    def test_it_says_what_was_counted(self, telemetry: Telemetry) -> None:
        series = telemetry.series("a", "ingress")
        series.done(OK, 200, 0.004, 0.003, 95, 130)
        series.last_routed = 5.0
        series.in_flight = 3
        telemetry.epoch("b").failed()
        telemetry.fallback("b", "a", "reset")
        telemetry.fallback("b", "a", "timeout")
        telemetry.reload_failed("no JSON")
        telemetry.draining = True
        snapshot = decode_snapshot(json.encode(take_snapshot(telemetry, at=7.0)))
        assert (snapshot.pod, snapshot.revision, snapshot.boot, snapshot.at) == ("pod-1", "a", "boot", 7.0)
        assert snapshot.weights == {"a": 100, "b": 0}
        assert snapshot.generation == 1
        assert snapshot.epochs["1"]["b"].errors == 1
        assert snapshot.totals["a"].outcomes == {"ok": 1}
        assert (snapshot.totals["a"].in_flight, snapshot.totals["a"].last_routed) == (3, 5.0)
        assert snapshot.fallbacks == {"b>a": 2}
        assert snapshot.routing_errors == 1
        assert snapshot.draining
        assert snapshot.model is None

    def test_it_is_a_copy(self, telemetry: Telemetry) -> None:
        before = take_snapshot(telemetry, at=0.0)
        telemetry.epoch("a").answered(200, 5.0)
        assert before.epochs["1"]["a"].requests == 0
        assert before.epochs["1"]["a"].over == [0, 0]

    def test_raw_values_are_the_newest_and_only_on_request(self, telemetry: Telemetry) -> None:
        series = telemetry.series("a", "ingress")
        series.outputs.get("score")
        for i in range(KEPT_VALUES + 5):
            series.keep_value("score", float(i))
        assert take_snapshot(telemetry, at=0.0).totals["a"].values == {}
        values = take_snapshot(telemetry, at=0.0, values=True).totals["a"].values["score"]
        assert values == [float(i) for i in range(5, KEPT_VALUES + 5)]

    def test_before_the_first_routing_file(self) -> None:
        snapshot = take_snapshot(Telemetry(pod="p", revision="a"), at=0.0)
        assert snapshot.generation == 0
        assert snapshot.boot


def test_shadows_are_there_from_zero_once_something_is_mirrored_and_stay(telemetry: Telemetry) -> None:
    def samples() -> dict[tuple[str, str, str], float]:
        text = b"".join(expose(telemetry, "")[1]).decode()
        return {
            (sample.name, sample.labels["version"], sample.labels.get("reason", "")): sample.value
            for family in text_string_to_metric_families(text)
            if family.name.startswith("coalmine_shadow")
            for sample in family.samples
        }

    assert samples() == {}
    mirrored = replace(routing("a", "b"), mirror=Mirror(source="a", target="b", percent=20))
    telemetry.configure(mirrored)
    assert set(samples().values()) == {0.0}
    assert ("coalmine_shadow_requests_total", "B", "") in samples()
    assert ("coalmine_shadow_disagreements_total", "B", "class") in samples()
    assert ("coalmine_shadow_dropped_total", "B", "in_flight") in samples()
    assert take_snapshot(telemetry, at=1.0).mirrors == {"b": 20}
    shadow = telemetry.shadow("b")
    shadow.compared += 1
    telemetry.configure(routing("a", "b", epoch="2"))
    assert telemetry.shadow("b") is shadow
    assert samples()["coalmine_shadow_compared_total", "B", ""] == 1
    assert take_snapshot(telemetry, at=1.0).mirrors == {}


def test_answers_compared_in_another_way_are_counted_anew(telemetry: Telemetry) -> None:
    mirror = Mirror(source="a", target="b", percent=20)
    for percent, tolerance, counted in ((20, 0.05, 3), (50, 0.05, 6), (50, 0.1, 3)):
        telemetry.configure(replace(routing("a", "b"), mirror=replace(mirror, percent=percent, tolerance=tolerance)))
        cell = telemetry.epoch("b")
        cell.compared += 3
        cell.disagreed += 1
        counts = decode_snapshot(json.encode(take_snapshot(telemetry, at=1.0))).epochs["1"]["b"]
        assert (counts.compared, counts.disagreed) == (counted, counted // 3)

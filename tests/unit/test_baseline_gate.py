"""A canary and its baseline: what is read for whom, what is its own, and what a rollout does about it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from tests.property.world import METADATA, World, make_spec, monitored

from coalmine_operator.api.baseline import Baseline, Categorical, digest_of, encode_baseline
from coalmine_operator.api.monitoring import BaselineRef, Feature, Monitoring
from coalmine_operator.api.spec import Canary, Fallback, ModelDeploymentSpec, Strategy
from coalmine_operator.engine import BaselineState, Order
from coalmine_operator.engine.baselines import Read, Wanted, read_baseline, state_of, wanted_baselines
from coalmine_operator.engine.revisions import own_fallback_of, target_of

GOOD = Baseline(schema=1, model="fraud", version="v2", task="binary", rows=10)
DATA = encode_baseline(GOOD)
DIGEST = digest_of(DATA)
WHERE = "ConfigMap fraud-v2, key baseline.json"
OTHER = BaselineState(problem="mismatch", message=f'{WHERE}: is of version "v1", not "v2"')
GONE = BaselineState(problem="missing", message="there is no ConfigMap fraud-v2")


def wanted(**changes: str) -> Wanted:
    return replace(
        Wanted(ref=BaselineRef(config_map="fraud-v2"), model="fraud", version="v2", task="binary"), **changes
    )


def pinned(digest: str) -> Wanted:
    return wanted(ref=BaselineRef(config_map="fraud-v2", digest=digest))


# What is read for whom


def test_whose_baseline_is_where() -> None:
    """The spec speaks for its own revision, now; the others keep what it said while it was theirs."""
    old, own, new = (BaselineRef(config_map=name) for name in ("fraud-v1", "fraud-v2", "fraud-v2-again"))
    first = target_of(METADATA, replace(make_spec("v1"), monitoring=Monitoring(baseline=old)), 1.0)
    second = target_of(METADATA, replace(make_spec("v2"), monitoring=Monitoring(baseline=own)), 2.0)
    spec = replace(make_spec("v2"), monitoring=Monitoring(baseline=new, task="regression"))
    found = wanted_baselines(METADATA, spec, [first, second, target_of(METADATA, make_spec("v0"), 0.0)])
    assert found == {
        first.name: Wanted(ref=old, model="fraud", version="v1", task="regression"),
        second.name: Wanted(ref=new, model="fraud", version="v2", task="regression"),
    }
    assert wanted_baselines(METADATA, replace(spec, monitoring=Monitoring()), [first, second]).keys() == {first.name}
    assert wanted_baselines(METADATA, make_spec("v2"), [first, second]) == {}


def test_a_fallback_with_a_template_of_its_own_has_no_baseline() -> None:
    """It is another model; the spec's baseline is not about it."""
    spec = monitored(make_spec("v2", fallback=Fallback(version="simple", template=make_spec("v1").template)))
    record = own_fallback_of(METADATA, spec, 0.0)
    assert record is not None
    assert record.baseline is None


def test_what_is_watched_makes_no_new_revision() -> None:
    plain, watched = make_spec("v2"), monitored(make_spec("v2"))
    assert target_of(METADATA, plain, 0.0).name == target_of(METADATA, watched, 0.0).name


def test_its_own() -> None:
    read = read_baseline(DATA, WHERE)
    for one in (wanted(), pinned(DIGEST)):
        assert state_of(one, read) == BaselineState(digest=DIGEST, baseline=GOOD)


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (
            wanted(version="v3"),
            'is of version "v2", not "v3": name the one that is its own in spec.monitoring.baseline',
        ),
        (wanted(model="loans"), 'is of model "fraud", not "loans": name the one that is its own'),
        (wanted(task="text"), 'is of task "binary", not "text": write it in spec.monitoring.task, or build'),
        (pinned("sha256:" + "0" * 64), f"has the digest {DIGEST}, and sha256:{'0' * 64} is meant: put the file back"),
    ],
)
def test_another_ones(one: Wanted, said: str) -> None:
    state = state_of(one, read_baseline(DATA, WHERE))
    assert (state.problem, state.baseline, state.digest) == ("mismatch", None, "")
    assert state.message.startswith(f"{WHERE}: {said}")
    assert "\n" not in state.message


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", DATA[:-10], DATA.replace(b'"rows": 10', b'"rows": -1')])
def test_what_is_no_baseline(data: bytes) -> None:
    state = state_of(wanted(), read_baseline(data, WHERE))
    assert (state.problem, state.baseline) == ("unreadable", None)
    assert state.message.startswith(f"{WHERE}: ")
    assert "\n" not in state.message


def test_of_a_file_that_is_another_one_it_matters_little_what_is_in_it() -> None:
    state = state_of(pinned(DIGEST), read_baseline(b"{}", WHERE))
    assert state.problem == "mismatch"


def test_nothing_there() -> None:
    state = state_of(wanted(), Read(where=WHERE, problem="missing", message=f"{WHERE}: is not there"))
    assert state == BaselineState(problem="missing", message=f"{WHERE}: is not there")


# What a rollout does about it


def world(state: BaselineState | None, spec: ModelDeploymentSpec | None = None) -> World:
    """v1 is stable, v2 comes, with this baseline."""
    found = World(monitored(make_spec("v1")))
    found.settle(5)
    if state is not None:
        found.baselines["v2"] = state
    found.spec = spec or monitored(make_spec("v2"))
    return found


def stable(found: World) -> str:
    assert found.status.stable is not None
    return found.status.stable.version


def verdict(found: World) -> tuple[str, str, str]:
    (one,) = (v for v in found.status.verdicts if v.metric == "baseline")
    return one.verdict, one.reason, str(one.evidence.get("problem", ""))


def test_its_own_passes_and_is_shown() -> None:
    found = world(BaselineState(digest=DIGEST, baseline=GOOD))
    found.settle(8)
    (one,) = (v for v in found.status.verdicts if v.metric == "baseline")
    assert (one.verdict, one.reason, one.evidence) == ("Pass", "BaselineMatches", {"digest": DIGEST, "rows": 10})
    found.settle(60)
    assert stable(found) == "v2"


def test_features_that_are_watched_but_not_in_it_are_named() -> None:
    """As numbers where it has names, too: only their completeness is told."""
    columns = {
        "age": Categorical(categories=("old", "young"), counts=(1, 9)),
        "sex": Categorical(categories=("1",), counts=(10,)),
    }
    watched = (Feature(name="sex", type="categorical"), Feature(name="age"), *(Feature(name=f"f{i}") for i in range(6)))
    spec = monitored(make_spec("v2"))
    assert spec.monitoring is not None
    found = world(
        BaselineState(digest=DIGEST, baseline=replace(GOOD, features=columns)),
        replace(spec, monitoring=replace(spec.monitoring, features=watched)),
    )
    found.settle(8)
    (one,) = (v for v in found.status.verdicts if v.metric == "baseline")
    assert one.evidence["notInIt"] == ["age", "f0", "f1", "f2", "f3", "and 2 more"]


@pytest.mark.parametrize("policy", ["Wait", "Pause", "Rollback"])
def test_another_versions_baseline_is_never_promoted_until_it_is_mended(policy: str) -> None:
    spec = monitored(make_spec("v2"))
    found = world(OTHER, replace(spec, analysis=replace(spec.analysis, on_inconclusive=policy)))
    found.settle(120)
    assert stable(found) == "v1"
    assert found.status.phase == "Progressing"
    assert found.status.message == f"BaselineMismatch: {OTHER.message}"
    assert verdict(found) == ("Unknown", "BaselineMismatch", OTHER.message)
    assert found.events.count("BaselineMismatch") == 1
    found.baselines.clear()
    found.settle(60)
    assert stable(found) == "v2"


def test_a_canary_without_steps_is_held_as_well() -> None:
    found = world(OTHER, monitored(make_spec("v2", strategy=Strategy(canary=Canary()))))
    found.settle(30)
    assert stable(found) == "v1"
    assert found.served["v2"] == 0
    found.baselines.clear()
    found.settle(30)
    assert stable(found) == "v2"


def test_resume_does_not_waive_a_mismatch() -> None:
    found = world(OTHER)
    found.settle(20)
    found.orders.append(Order(id="1", verb="pause"))
    found.settle(2)
    found.orders.append(Order(id="2", verb="resume"))
    found.settle(60)
    assert stable(found) == "v1"


def test_an_order_to_promote_is_refused_with_the_reason() -> None:
    found = world(OTHER)
    found.settle(5)
    found.orders.append(Order(id="1", verb="promote"))
    found.settle(60)
    assert found.refused["1"] == f"BaselineMismatch: {OTHER.message}"
    assert stable(found) == "v1"


def test_an_order_that_was_taken_waits_where_the_baseline_changes_meanwhile() -> None:
    found = world(None)
    found.settle(5)
    found.broken.add("v2")  # so that its pods are not all there yet
    found.spec = replace(found.spec, replicas=4)
    found.orders.append(Order(id="1", verb="promote"))
    found.reconcile()
    assert found.refused == {}
    found.baselines["v2"] = OTHER
    found.broken.clear()
    found.settle(20)
    assert stable(found) == "v1"
    assert found.status.message == f"BaselineMismatch: {OTHER.message}"
    found.baselines.clear()
    found.settle(20)
    assert stable(found) == "v2"


def test_it_can_be_rolled_back_by_order() -> None:
    found = world(OTHER)
    found.settle(20)
    found.orders.append(Order(id="1", verb="rollback"))
    found.settle(20)
    assert [entry.reason for entry in found.status.history][-1] == "RolledBackByOrder"


def test_a_missing_one_is_unknown_and_waits() -> None:
    found = world(GONE)
    found.settle(120)
    assert stable(found) == "v1"
    assert verdict(found) == ("Unknown", "BaselineMissing", GONE.message)
    assert found.status.message == f"baseline: Unknown (BaselineMissing: {GONE.message})"
    found.baselines.clear()
    found.settle(60)
    assert stable(found) == "v2"


def test_a_missing_one_pauses_or_rolls_back_as_any_unknown() -> None:
    for policy, end in (("Pause", "Paused"), ("Rollback", "Degraded")):
        analysis = replace(make_spec().analysis, on_inconclusive=policy)
        found = world(GONE, monitored(make_spec("v2", analysis=analysis)))
        found.settle(60)
        assert (stable(found), found.status.phase) == ("v1", end)
    (rolled_back,) = (entry for entry in found.status.history if entry.result == "RolledBack")
    assert rolled_back.reason == "InconclusiveAnalysis"


def test_a_missing_one_can_be_waived_or_overruled() -> None:
    for verb in ("resume", "promote"):
        analysis = replace(make_spec().analysis, on_inconclusive="Pause")
        found = world(GONE, monitored(make_spec("v2", analysis=analysis)))
        for number in range(4):
            found.settle(40)
            found.orders.append(Order(id=str(number), verb=verb))
        found.settle(40)
        assert stable(found) == "v2", verb


def test_who_asks_for_no_baseline_gets_no_verdict() -> None:
    found = world(OTHER, make_spec("v2", monitoring=Monitoring()))
    found.settle(5)
    assert [v.metric for v in found.status.verdicts] == ["errors"]
    found.settle(60)
    assert stable(found) == "v2"


def test_the_first_version_serves_whatever_its_baseline_is() -> None:
    found = World(monitored(make_spec("v1")))
    found.baselines["v1"] = OTHER
    found.settle(20)
    assert stable(found) == "v1"
    assert found.status.phase == "Healthy"


def test_a_baseline_may_come_after_its_model() -> None:
    """It is kept for the time when the spec asks for another revision, and starts no rollout."""
    found = World(make_spec("v1"))
    found.settle(40)
    late = BaselineRef(config_map="fraud-v1")
    found.spec = make_spec("v1", monitoring=Monitoring(baseline=late))
    found.settle(10)
    assert found.status.rollouts == 1
    found.spec = make_spec("v2", monitoring=Monitoring(baseline=BaselineRef(config_map="fraud-v2")))
    found.settle(5)
    refs = {record.version: record.baseline for record in found.records.values()}
    assert refs == {"v1": late, "v2": BaselineRef(config_map="fraud-v2")}


# Stable, which has no verdict


def loaded(found: World) -> tuple[str, str, str] | None:
    one = next((c for c in found.status.conditions if c.type == "BaselineLoaded"), None)
    return (one.status, one.reason, one.message) if one else None


@pytest.mark.parametrize(("state", "reason"), [(OTHER, "BaselineMismatch"), (GONE, "BaselineMissing")])
def test_what_is_wrong_with_stables_baseline_is_in_the_status_and_told_once(state: BaselineState, reason: str) -> None:
    found = World(monitored(make_spec("v1")))
    found.settle(60)
    assert (found.status.phase, found.status.message) == ("Healthy", "")
    assert loaded(found) == ("True", "BaselineMatches", "")
    found.baselines["v1"] = state
    found.settle(60)
    said = f"v1 has no baseline: {state.message}"
    assert (found.status.phase, found.status.message) == ("Healthy", said)
    assert loaded(found) == ("False", reason, said)
    assert found.events.count(reason) == 1
    assert "BaselineMatches" not in found.events
    found.baselines.clear()
    found.settle(60)
    assert (found.status.message, loaded(found)) == ("", ("True", "BaselineMatches", ""))
    assert found.events.count("BaselineMatches") == 1


def test_of_stables_features_those_without_bins_are_named() -> None:
    columns = {"sex": Categorical(categories=("1",), counts=(10,))}
    spec = monitored(make_spec("v1"))
    assert spec.monitoring is not None
    watched = (Feature(name="sex", type="categorical"), Feature(name="age"))
    found = World(replace(spec, monitoring=replace(spec.monitoring, features=watched)))
    found.baselines["v1"] = BaselineState(digest=DIGEST, baseline=replace(GOOD, version="v1", features=columns))
    found.settle(60)
    said = "the baseline of v1 has no bins for age: no drift is told of what has none"
    assert loaded(found) == ("True", "BaselineIncomplete", said)
    assert found.events.count("BaselineIncomplete") == 1
    assert found.status.phase == "Healthy"


def test_a_message_that_is_cut_is_told_once_as_well() -> None:
    found = World(monitored(make_spec("v1")))
    found.baselines["v1"] = BaselineState(problem="missing", message="x" * 3000)
    found.settle(60)
    assert found.events.count("BaselineMissing") == 1


def test_stable_without_a_baseline_has_no_such_condition() -> None:
    found = World(make_spec("v1"))
    found.settle(60)
    assert loaded(found) is None

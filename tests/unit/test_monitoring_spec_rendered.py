"""`spec.monitoring` on its way: into routing files that a sidecar reads, into pods, and into what is kept."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import UNSET
from msgspec.structs import replace
from tests.manifests import changed, good, watched

from coalmine_operator.api.baseline import Baseline, Categorical, Numeric, Score, digest_of, encode_baseline
from coalmine_operator.api.decode import decode
from coalmine_operator.api.monitoring import BaselineRef
from coalmine_operator.api.spec import ModelDeployment
from coalmine_operator.engine.baselines import read_baseline
from coalmine_operator.engine.model import BaselineState, Plan, RevisionRecord, Route, RoutePlan
from coalmine_operator.engine.revisions import target_of
from coalmine_operator.render import labels
from coalmine_operator.render.injection import SIDECAR, InjectionSettings
from coalmine_operator.render.manifests import OwnerRef, manifests, problems
from coalmine_operator.render.monitoring import MAX_BASELINES, REDIS_PASSWORD, ignored
from coalmine_operator.render.records import kept
from coalmine_operator.render.routing import render_routing
from coalmine_sidecar import contract, monitoring

M = "spec.monitoring"
OWNER = OwnerRef(name="fraud", uid="u")
SETTINGS = InjectionSettings(image="sidecar:1")
PLAN = RoutePlan(
    routes=(
        Route(revision="fraud-f", track="fallback"),
        Route(revision="fraud-b", track="canary", weight=5),
        Route(revision="fraud-a", track="stable", weight=95),
    ),
    epoch="1.1",
)
AGE = Numeric(edges=(20.0, 40.0), counts=(1, 2, 3), mean=33.5, stddev=5.0, min=18.0, max=80.0)
SEX = Categorical(categories=("1", "2"), counts=(3, 3))
SCORE = Score(threshold=0.5, positive="1", edges=(0.5,), calibration=(0.1, 0.9), counts=(3, 3), positives=(0, 3))


def baseline(version: str = "v3", **columns: Any) -> BaselineState:
    """As it is after it was read."""
    whole = Baseline(schema=1, model="fraud", version=version, task="binary", **{"rows": 6, **columns})
    data = encode_baseline(whole)
    assert read_baseline(data, "here").baseline == whole
    return BaselineState(digest=digest_of(data), baseline=whole)


def deployment(**changes: Any) -> ModelDeployment:
    return decode(changed(M, watched(**changes)))


def routed(given: ModelDeployment, **arguments: Any) -> contract.Routing:
    """As a sidecar reads it."""
    routing = render_routing(
        metadata=given.metadata, spec=given.spec, plan=PLAN, records={}, endpoints={}, generation=1, **arguments
    )
    read = contract.decode_routing(contract.encode_routing(routing))
    assert read == routing
    return read


def monitored(given: ModelDeployment, **arguments: Any) -> monitoring.Monitoring:
    found = routed(given, **arguments).monitoring
    assert found is not UNSET
    return found


# The routing file


def test_says_what_the_spec_says() -> None:
    assert monitored(deployment()) == monitoring.Monitoring(
        task="binary",
        prediction=monitoring.Prediction(
            score="probabilities[1]", label="$.outputs[0].data[*]", threshold=0.4, positive="yes"
        ),
        prediction_id=monitoring.PredictionId(header="x-request-id", generate=False),
        outputs=(monitoring.Output(name="score", path="$.results[*].score"),),
        features=(
            monitoring.Feature(name="AGEP", path="$.instances[*].age"),
            monitoring.Feature(name="SEX", path="x[1]", type="categorical"),
            monitoring.Feature(name="mean radius (µm)"),
        ),
        slices=(
            monitoring.Slice(attribute="sex", path="x[1]", privileged="1"),
            monitoring.Slice(attribute="country", header="x-country"),
        ),
        feedback=monitoring.Feedback(
            path="/v1/feedback", ttl=36 * 3600.0, max_pending=5000, redis="redis://redis.shop:6379/0"
        ),
        payload_log=monitoring.PayloadLog(
            percent=0.5, url="http://logger:8080/", redact=("$.instances[*].name",), max_bytes=1024
        ),
        max_series=500,
    )


def test_defaults_are_those_of_the_contract() -> None:
    """Or a sidecar and a manifest would mean two things by what is left out."""
    assert monitored(decode(changed(M, {}))) == monitoring.Monitoring()
    full = decode(changed(M, {"feedback": {}, "payloadLog": {"file": "/log"}}))
    found = monitored(full)
    assert found.feedback == monitoring.Feedback()
    assert found.payload_log == monitoring.PayloadLog(percent=1, file="/log")


def test_what_nobody_asks_for_is_not_in_the_file() -> None:
    """A sidecar from before there was such a field can go on reading it."""
    plain = decode(good())
    assert routed(plain).monitoring is UNSET
    assert b"monitoring" not in contract.encode_routing(routed(plain))


def test_paths_of_files_begin_where_the_manifest_is() -> None:
    for file, path in (("log.jsonl", "/models/log.jsonl"), ("/var/log.jsonl", "/var/log.jsonl")):
        log = monitored(deployment(payloadLog={"file": file}), folder="/models").payload_log
        assert log is not None
        assert log.file == path


def test_each_revision_is_counted_in_the_bins_of_its_own_baseline() -> None:
    other = replace(AGE, edges=(30.0,), counts=(3, 3), mean=30.0)
    states = {
        "fraud-a": baseline(features={"AGEP": AGE, "SEX": SEX}, outputs={"score": AGE}, score=SCORE),
        "fraud-b": baseline("v4", features={"AGEP": other}),
        "fraud-f": BaselineState(problem="missing", message="there is none"),
        "fraud-gone": baseline("v1", features={"AGEP": AGE}),
    }
    assert monitored(deployment(), baselines=states).baselines == {
        "fraud-a": monitoring.Baseline(
            digest=states["fraud-a"].digest,
            features={
                "AGEP": monitoring.Bins(edges=(20.0, 40.0), center=33.5),
                "SEX": monitoring.Bins(categories=("1", "2")),
            },
            outputs={"score": monitoring.Bins(edges=(20.0, 40.0), center=33.5)},
            score=monitoring.ScoreBins(edges=(0.5,), calibration=(0.1, 0.9)),
        ),
        "fraud-b": monitoring.Baseline(
            digest=states["fraud-b"].digest, features={"AGEP": monitoring.Bins(edges=(30.0,), center=30.0)}
        ),
    }


def test_only_what_is_watched_and_as_what_it_is_watched() -> None:
    """A feature that the baseline knows as names and the spec as numbers has no bins to be counted in."""
    features = [{"name": "AGEP"}, {"name": "SEX"}, {"name": "new"}]
    state = baseline(features={"AGEP": AGE, "SEX": SEX, "other": AGE})
    found = monitored(deployment(features=features, slices=[]), baselines={"fraud-a": state})
    assert found.baselines["fraud-a"].features.keys() == {"AGEP"}


def test_baselines_without_end_leave_room_for_the_rest_of_the_file() -> None:
    """Stable's comes first, then the canary's; a Secret has a megabyte."""
    names = [f"f{i}" for i in range(200)]
    wide = Categorical(categories=tuple(f"{i:012}" for i in range(64)), counts=(1,) * 64)
    state = baseline(rows=64, features=dict.fromkeys(names, wide))
    given = deployment(features=[{"name": name, "type": "categorical"} for name in names], slices=[])
    routing = routed(given, baselines=dict.fromkeys(("fraud-a", "fraud-b", "fraud-f"), state))
    assert routing.monitoring is not UNSET
    assert routing.monitoring.baselines.keys() == {"fraud-a"}
    assert len(msgspec.json.encode(routing.monitoring.baselines)) <= MAX_BASELINES + 100
    assert len(contract.encode_routing(routing)) < 1 << 20


# What is for one place only


def test_files_are_for_this_machine() -> None:
    given = deployment(baseline={"file": "v3.json"}, payloadLog={"file": "log.jsonl"})
    assert list(map(str, problems(given.metadata, given.spec, SETTINGS))) == [
        'spec.monitoring.baseline.file: "v3.json" is for `coalmine run` (`coalmine lint --local`): '
        "in a cluster give a configMap",
        'spec.monitoring.payloadLog.file: "log.jsonl" is for `coalmine run`: '
        "a sidecar in a cluster has no disk, so give a url",
    ]
    assert problems(given.metadata, deployment().spec, SETTINGS) == ()


def test_what_this_machine_lacks_is_told() -> None:
    assert list(ignored(deployment().spec.monitoring)) == [
        "spec.monitoring.baseline.configMap: ignored: v3.json is looked for beside the manifest",
        "spec.monitoring.feedback.redis.passwordSecret: ignored: give the password in COALMINE_REDIS_PASSWORD",
    ]
    assert list(ignored(deployment(baseline={"file": "a"}, feedback={}).spec.monitoring)) == []
    assert list(ignored(None)) == []


# Pods and records


def children(given: ModelDeployment, record: RevisionRecord, **arguments: Any) -> dict[str, dict[str, Any]]:
    plan = Plan(records=(record,), replicas={record.name: 1})
    made = manifests(
        owner=OWNER,
        metadata=given.metadata,
        spec=given.spec,
        plan=plan,
        routing=None,
        settings=SETTINGS,
        **arguments,
    )
    return {one["kind"]: one for one in made}


def password_of(pod_owner: dict[str, Any]) -> list[dict[str, Any]]:
    before = pod_owner["spec"]["template"]["spec"]["initContainers"]
    (sidecar,) = (one for one in before if one["name"] == SIDECAR)
    return [one for one in sidecar["env"] if one["name"] == REDIS_PASSWORD]


def test_the_password_comes_from_its_secret() -> None:
    given = deployment()
    record = target_of(given.metadata, given.spec, 1.0)
    reference = {"name": "redis", "key": "word", "optional": True}
    made = children(given, record)
    assert password_of(made["Deployment"]) == [{"name": REDIS_PASSWORD, "valueFrom": {"secretKeyRef": reference}}]
    # Nowhere else: neither the model's container nor the record has it.
    model = made["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert REDIS_PASSWORD not in str(model)
    assert REDIS_PASSWORD not in str(made["ControllerRevision"]["data"])


def test_another_password_restarts_no_pod_and_makes_no_revision() -> None:
    """It comes with the next revision, or by the order `refresh`."""
    without, given = deployment(feedback={}), deployment()
    record = target_of(without.metadata, without.spec, 1.0)
    assert target_of(given.metadata, given.spec, 1.0).name == record.name
    before = children(without, record)
    assert password_of(before["Deployment"]) == []
    known = {record.name: kept(before["ControllerRevision"]).injected}
    assert children(given, record, injected=known)["Deployment"] == before["Deployment"]
    assert password_of(children(given, record)["Deployment"]) != []


def test_a_record_keeps_its_baseline_beside_data_that_never_change() -> None:
    given = deployment()
    record = target_of(given.metadata, given.spec, 1.0)
    assert record.baseline is not None
    late = replace(record, baseline=replace(record.baseline, config_map="another"))
    without = replace(record, baseline=None)
    records = [record, late, without]
    made = [children(given, one)["ControllerRevision"] for one in records]
    assert [kept(revision).record for revision in made] == records
    data = [revision["data"] for revision in made]
    assert data[0] == data[1] == data[2]
    assert "baseline" not in data[0]
    assert labels.BASELINE not in made[2]["metadata"]["annotations"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"configMap": 5}', '{"secret": "x"}'])
def test_a_record_that_somebody_wrote_into_has_no_baseline(text: str) -> None:
    given = deployment()
    record = target_of(given.metadata, given.spec, 1.0)
    revision = children(given, record)["ControllerRevision"]
    revision["metadata"]["annotations"][labels.BASELINE] = text
    assert kept(revision).record == replace(record, baseline=None)


def test_records_from_before_there_were_baselines() -> None:
    given = decode(good())
    record = target_of(given.metadata, given.spec, 1.0)
    revision = children(given, record)["ControllerRevision"]
    assert revision["metadata"]["annotations"].keys() == {labels.INJECTED}
    assert kept(revision).record == record
    assert record.baseline is None
    assert BaselineRef(config_map="a").key == "baseline.json"

"""The children of a model deployment, from a plan."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.manifests import changed, good

from coalmine_operator.api.decode import decode
from coalmine_operator.api.problems import Invalid
from coalmine_operator.engine.model import Plan, RevisionRecord, Route, RoutePlan
from coalmine_operator.engine.revisions import own_fallback_of, target_of
from coalmine_operator.render import labels
from coalmine_operator.render.injection import LOCAL_PORT, InjectionSettings
from coalmine_operator.render.manifests import OwnerRef, drain_key, manifests, problems
from coalmine_operator.render.orders import ORDERED_BY, ordered_by, stamp
from coalmine_operator.render.records import kept
from coalmine_operator.render.routing import render_routing
from coalmine_sidecar.contract import decode_routing

GOLDEN = Path(__file__).parent / "golden/manifests.yaml"
SETTINGS = InjectionSettings(image="coalmine-sidecar:dev")
NEWER = InjectionSettings(image="coalmine-sidecar:next", cpu_request="100m")
OWNER = OwnerRef(name="fraud", uid="7c9e6679-7425-40de-944b-e07fc1f90ae7")

MANIFEST = decode(good())
METADATA, SPEC = MANIFEST.metadata, MANIFEST.spec
STABLE = target_of(METADATA, SPEC, 1000.5)
OLD = target_of(METADATA, decode(changed("spec.model.version", "old")).spec, 900.0)
FALLBACK = own_fallback_of(METADATA, SPEC, 1000.5)
assert FALLBACK is not None
PLAN = Plan(
    records=(OLD, STABLE, FALLBACK),
    replicas={STABLE.name: 2, FALLBACK.name: 2},
    routing=RoutePlan(
        routes=(
            Route(revision=STABLE.name, track="stable", weight=100),
            Route(revision=FALLBACK.name, track="fallback"),
        ),
        epoch="1.idle",
        chain=(STABLE.name, FALLBACK.name),
    ),
)
assert PLAN.routing is not None
ROUTING = render_routing(
    metadata=METADATA,
    spec=SPEC,
    plan=PLAN.routing,
    records={one.name: one for one in PLAN.records},
    endpoints={
        name: [labels.local_endpoint(name, METADATA.namespace, LOCAL_PORT)] for name in (STABLE.name, FALLBACK.name)
    },
    generation=7,
)


def rendered(**changes: Any) -> tuple[dict[str, Any], ...]:
    given = {
        "owner": OWNER,
        "metadata": METADATA,
        "spec": SPEC,
        "plan": PLAN,
        "routing": ROUTING,
        "settings": SETTINGS,
    }
    return manifests(**given | changes)


def named(objects: tuple[dict[str, Any], ...]) -> dict[tuple[str, str], dict[str, Any]]:
    found = {(one["kind"], one["metadata"]["name"]): one for one in objects}
    assert len(found) == len(objects)
    return found


def test_all_of_it() -> None:
    found = list(rendered())
    if os.environ.get("UPDATE_GOLDENS"):
        GOLDEN.write_text(yaml.safe_dump_all(found, sort_keys=False, width=120))
    assert found == list(yaml.safe_load_all(GOLDEN.read_text())), "UPDATE_GOLDENS=1 writes it anew"


def test_who_has_which_children() -> None:
    assert set(named(rendered())) == {
        ("Service", "fraud"),
        ("Secret", "fraud-routing"),
        *(("ControllerRevision", one.name) for one in PLAN.records),
        *((kind, one.name) for one in (STABLE, FALLBACK) for kind in ("Deployment", "Service")),
        ("PodDisruptionBudget", STABLE.name),
    }


def test_routing_comes_before_pods() -> None:
    kinds = [one["kind"] for one in rendered()]
    assert kinds.index("Secret") < kinds.index("ControllerRevision") < kinds.index("Deployment")


def test_a_revision_scaled_to_nothing_keeps_its_deployment_while_the_plan_says_so() -> None:
    found = named(rendered(plan=replace(PLAN, replicas={STABLE.name: 1, FALLBACK.name: 0})))
    assert found["Deployment", FALLBACK.name]["spec"]["replicas"] == 0
    assert ("PodDisruptionBudget", STABLE.name) not in found, "one pod cannot be disrupted less than wholly"


def test_before_there_is_any_routing() -> None:
    found = named(rendered(plan=replace(PLAN, routing=None), routing=None))
    assert {kind for kind, _ in found} == {"Service", "ControllerRevision", "Deployment"}


def test_every_child_is_owned_and_labelled() -> None:
    for one in rendered():
        about = one["metadata"]
        (owner,) = about["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("ModelDeployment", "fraud", OWNER.uid)
        assert owner["controller"] is True
        assert about["namespace"] == "default"
        assert (
            about["labels"].items()
            >= {
                "app.kubernetes.io/name": "coalmine-model",
                "app.kubernetes.io/instance": "fraud",
                "app.kubernetes.io/managed-by": "coalmine",
                labels.MODELDEPLOYMENT: "fraud",
            }.items()
        )
        assert about["labels"]["app.kubernetes.io/component"] in ("model", "router")


def test_selectors_find_the_pods_they_mean_whatever_the_template_says() -> None:
    hostile = changed(
        "spec.template.metadata.labels",
        {labels.MODELDEPLOYMENT: "other", labels.REVISION: "other", "app.kubernetes.io/name": "mine", "app": "fraud"},
    )
    record = target_of(METADATA, decode(hostile).spec, 1.0)
    plan = Plan(records=(record,), replicas={record.name: 2}, routing=PLAN.routing)
    found = named(rendered(plan=plan))
    deployment = found["Deployment", record.name]
    pod = deployment["spec"]["template"]["metadata"]["labels"]
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        found["Service", "fraud"]["spec"]["selector"],
        found["Service", record.name]["spec"]["selector"],
    ):
        assert pod.items() >= selector.items()
    assert (pod["app"], pod["app.kubernetes.io/name"]) == ("fraud", "mine")
    assert labels.pods_of("fraud") == f"{labels.MODELDEPLOYMENT}=fraud"


def test_the_secret_holds_the_routing_file() -> None:
    secret = named(rendered())["Secret", "fraud-routing"]
    assert decode_routing(base64.b64decode(secret["data"]["routing.json"])) == ROUTING
    assert secret["metadata"]["annotations"][labels.ROUTING_GENERATION] == "7"


def test_endpoints_in_the_routing_file_are_the_headless_services() -> None:
    found = named(rendered())
    for route in ROUTING.revisions:
        (endpoint,) = route.endpoints
        host, _, port = endpoint.partition(":")
        service = found["Service", host.split(".")[0]]
        assert host == f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local"
        assert service["spec"]["clusterIP"] == "None"
        assert [entry["port"] for entry in service["spec"]["ports"]] == [int(port)]


def test_nothing_empty_is_applied() -> None:
    """A field that is owned and empty hides what others set."""

    def empty(value: Any, path: str) -> list[str]:
        if value is None or value in ({}, [], ""):
            return [path]
        if isinstance(value, dict):
            return [line for key, one in value.items() if key != "data" for line in empty(one, f"{path}.{key}")]
        return [line for one in value for line in empty(one, f"{path}[]")] if isinstance(value, list) else []

    assert [line for one in rendered() for line in empty(one, one["kind"])] == []


def injected_of(objects: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    return {one["metadata"]["name"]: kept(one).injected for one in objects if one["kind"] == "ControllerRevision"}


def test_another_operator_restarts_no_pod() -> None:
    first = rendered()
    assert rendered(settings=NEWER, injected=injected_of(first)) == first
    assert rendered(injected=injected_of(first)) == first


def test_a_refresh_is_to_forget_what_was_injected() -> None:
    first = rendered()
    some = {name: one for name, one in injected_of(first).items() if name != STABLE.name}
    found, before = named(rendered(settings=NEWER, injected=some)), named(first)
    assert found["Deployment", FALLBACK.name] == before["Deployment", FALLBACK.name]
    sidecar = found["Deployment", STABLE.name]["spec"]["template"]["spec"]["initContainers"][0]
    assert sidecar["image"] == NEWER.image
    revision = found["ControllerRevision", STABLE.name]
    assert revision["data"] == before["ControllerRevision", STABLE.name]["data"], "which no API server lets change"
    again = rendered(injected={**some, STABLE.name: kept(revision).injected})
    assert named(again) == found


def test_an_annotation_somebody_wrote_into_costs_a_restart_and_no_pods() -> None:
    first = named(rendered())
    revision = first["ControllerRevision", STABLE.name]
    for text in ("{", "[1]", '[{"op": "remove", "path": "/nowhere"}]', '[{"op": "replace", "path": "", "value": 1}]'):
        revision["metadata"]["annotations"][labels.INJECTED] = text
        assert named(rendered(injected={STABLE.name: kept(revision).injected})) == named(rendered())


def test_records_come_back_as_they_were() -> None:
    for record, one in zip(PLAN.records, [o for o in rendered() if o["kind"] == "ControllerRevision"], strict=True):
        through_json = json.loads(json.dumps(one, sort_keys=True))
        assert kept(through_json).record == record
        assert one["revision"] == int(record.created_at)


@pytest.mark.parametrize("data", [None, {}, {"spec": {"template": {}}}, 1])
def test_a_controller_revision_of_somebody_else_is_none_of_ours(data: Any) -> None:
    with pytest.raises(Invalid):
        kept({"metadata": {"name": "x"}, "data": data})


def test_order_of_keys_makes_no_write() -> None:
    """The API server gives mappings back with their keys in another order."""

    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: turned(value[key]) for key in sorted(value, reverse=True)}
        return [turned(one) for one in value] if isinstance(value, list) else value

    records = tuple(replace(one, template=turned(one.template)) for one in PLAN.records)
    assert rendered(plan=replace(PLAN, records=records)) == rendered()


def test_what_somebody_may_set_is_sent_even_where_it_is_the_default() -> None:
    """Only what is sent is owned, and only drift of what is owned is seen: a paused Deployment would roll no more."""
    for obj in rendered():
        if obj["kind"] == "Deployment":
            assert obj["spec"]["paused"] is False
        if obj["kind"] == "Service":
            assert obj["spec"]["publishNotReadyAddresses"] is False


def test_templates_that_take_no_sidecar_are_named_by_their_path() -> None:
    raw = changed("spec.template.spec.hostNetwork", value=True)
    raw["spec"]["fallback"]["template"]["spec"]["containers"][0]["ports"] = [{"containerPort": 8008}]
    raw["spec"]["model"]["port"] = 8009
    spec = decode(raw).spec
    lines = [str(problem) for problem in problems(METADATA, spec, SETTINGS)]
    assert [line.split(": ")[0] for line in lines] == [
        "spec.template.spec.hostNetwork",
        "spec.model.port",
        "spec.fallback.template.spec.containers[0].ports[0].containerPort",
    ]
    assert lines[1] == (
        "spec.model.port: 8009 is the sidecar's: ports 8008 to 8010 have to be free; "
        "let the model listen on another one"
    )
    assert problems(METADATA, SPEC, SETTINGS) == ()


def test_a_template_copied_from_a_live_pod_is_refused() -> None:
    live = named(rendered())["Deployment", STABLE.name]["spec"]["template"]
    (problem,) = problems(METADATA, decode(changed("spec.template", live)).spec, SETTINGS)
    assert str(problem).startswith("spec.template.spec.initContainers: has coalmine-sidecar already")


@pytest.mark.parametrize(
    ("protocol", "probe"),
    [
        ("v2", {"httpGet": {"path": "/v2/health/ready", "port": 8080}}),
        ("v1", {"httpGet": {"path": "/v1/models/fraud%20model", "port": 8080}}),
        ("auto", {"tcpSocket": {"port": 8080}}),
        ("openai", {"tcpSocket": {"port": 8080}}),
    ],
)
def test_a_model_without_a_probe_gets_one_by_its_protocol(protocol: str, probe: dict[str, Any]) -> None:
    raw = changed("spec.model.protocol", protocol)
    raw["spec"]["model"]["name"] = "fraud model"
    record = target_of(METADATA, decode(raw).spec, 1.0)
    found = named(rendered(plan=Plan(records=(record,), replicas={record.name: 1})))
    (model,) = found["Deployment", record.name]["spec"]["template"]["spec"]["containers"]
    assert model["readinessProbe"].items() >= probe.items()


def test_drain_keys_are_of_one_revision_of_one_owner() -> None:
    keys = {drain_key(uid, revision) for uid in "ab" for revision in ("r", "s", "rs")}
    assert len(keys) == 6
    assert all(len(key) == 32 for key in keys)


@settings(max_examples=60, deadline=None)
@given(
    name=st.from_regex(r"[a-z]([-a-z0-9]{0,50}[a-z0-9])?", fullmatch=True),
    version=st.from_regex(r"[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?", fullmatch=True),
)
def test_names_and_labels_are_ones_that_kubernetes_takes(name: str, version: str) -> None:
    """Of every name that the CRD lets through."""
    raw = changed("spec.model.version", version)
    raw["metadata"]["name"] = name
    deployment = decode(raw)
    record = target_of(deployment.metadata, deployment.spec, 1.0)
    plan = Plan(records=(record,), replicas={record.name: 2})
    for one in rendered(metadata=deployment.metadata, spec=deployment.spec, plan=plan, routing=None):
        assert len(one["metadata"]["name"]) <= 63
        assert all(len(value) <= 63 for value in one["metadata"]["labels"].values())


@pytest.mark.parametrize("garbage", ["", "{", "[]", '{"promote": 1}', 7, None])
def test_authors_that_nobody_can_read_are_unknown(garbage: Any) -> None:
    annotations = {ORDERED_BY: garbage, "coalmine.dev/promote": ""}
    assert ordered_by(annotations, "promote") == ""
    assert stamp(annotations, annotations, "x") == {"coalmine.dev/promote": ""}
    assert ordered_by(stamp({}, annotations, "x"), "promote") == "x"


def test_a_record_is_plain_json() -> None:
    for one in rendered():
        assert json.loads(msgspec.json.encode(one)) == one
    assert isinstance(STABLE, RevisionRecord)

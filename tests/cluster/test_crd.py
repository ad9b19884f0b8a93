"""What the CRD promises beside accepting and refusing: explanations, columns, scaling, statuses that two write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import inspect
from tests.manifests import good
from tests.unit.test_decode import MINIMAL

from coalmine_operator.api.decode import decode
from coalmine_operator.api.status import Condition, Status, TrackStatus
from coalmine_operator.api.wire import from_wire, is_time, to_wire

from .crd import install
from .lab.cluster import Cluster
from .lab.run import LabError


class Deployment:
    """The model deployment `fraud` in a namespace of its own."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def kubectl(self, *words: str, input: str | None = None) -> str:
        return self.cluster.kubectl(*words, "--namespace", self.namespace, input=input)

    def apply(self, manifest: dict[str, Any], manager: str = "person", **options: str) -> str:
        more = [f"--{name}={value}" for name, value in options.items()]
        document = json.dumps(manifest)
        return self.kubectl("apply", "--server-side", f"--field-manager={manager}", *more, "-f", "-", input=document)

    def write_status(self, status: dict[str, Any], manager: str = "coalmine") -> str:
        identity = {key: MINIMAL[key] for key in ("apiVersion", "kind")}
        return self.apply({**identity, "metadata": {"name": "fraud"}, "status": status}, manager, subresource="status")

    def read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", "md/fraud", "--output=json"))
        return found


@pytest.fixture(scope="module", autouse=True)
def _installed(cluster: Cluster) -> None:
    install(cluster)


@pytest.fixture
def fraud(cluster: Cluster, namespace: str) -> Iterator[Deployment]:
    deployment = Deployment(cluster, namespace)
    deployment.apply({**good(), "metadata": {"name": "fraud"}})
    yield deployment
    deployment.kubectl("delete", "md", "--all", "--wait=false")


def test_explain_reads_well(cluster: Cluster) -> None:
    strategy = cluster.kubectl("explain", "md.spec.strategy")
    assert "How a new revision replaces the stable one." in strategy
    assert "canary" in strategy
    steps = cluster.kubectl("explain", "md.spec.strategy.canary.steps")
    for words in ("setWeight", "<integer>", "share of the requests, in per cent", "pause", "somebody orders `resume`"):
        assert words in " ".join(steps.split())
    tree = cluster.kubectl("explain", "md.spec", "--recursive")
    assert "onInconclusive" in tree
    assert "<no description>" not in cluster.kubectl("explain", "md.spec.analysis.metrics")


def test_names(cluster: Cluster) -> None:
    found = cluster.kubectl("api-resources", "--categories=coalmine", "--no-headers")
    assert found.split() == ["modeldeployments", "md", "coalmine.dev/v1alpha1", "true", "ModelDeployment"]


def test_columns(fraud: Deployment) -> None:
    status = Status(
        phase="Progressing",
        message="step 1 of 6",
        stable=TrackStatus(revision="fraud-a", version="v1", weight=100),
        canary=TrackStatus(revision="fraud-b", version="v2"),
        step="1/6",
    )
    fraud.write_status(to_wire(status))
    header, row = fraud.kubectl("get", "md").splitlines()
    assert header.split() == ["NAME", "PHASE", "STABLE", "CANARY", "WEIGHT", "STEP", "AGE"]
    assert row.split()[:-1] == ["fraud", "Progressing", "v1", "v2", "0", "1/6"]
    header, row = fraud.kubectl("get", "md", "--output=wide").splitlines()
    assert header.split()[-1] == "MESSAGE"
    assert row.endswith("step 1 of 6")


def test_scaling(fraud: Deployment) -> None:
    fraud.write_status({"replicas": 2, "selector": "coalmine.dev/modeldeployment=fraud"})
    fraud.kubectl("scale", "md/fraud", "--replicas=3")
    assert fraud.read()["spec"]["replicas"] == 3
    path = f"/apis/coalmine.dev/v1alpha1/namespaces/{fraud.namespace}/modeldeployments/fraud/scale"
    scale = json.loads(fraud.cluster.kubectl("get", "--raw", path))
    assert scale["spec"] == {"replicas": 3}
    assert scale["status"] == {"replicas": 2, "selector": "coalmine.dev/modeldeployment=fraud"}
    with pytest.raises(LabError, match="should be less than or equal to 1000"):
        fraud.kubectl("scale", "md/fraud", "--replicas=1001")
    assert fraud.read()["spec"]["replicas"] == 3


def test_a_person_who_leaves_replicas_out_does_not_undo_scaling(fraud: Deployment) -> None:
    manifest = {**good(), "metadata": {"name": "fraud"}}
    del manifest["spec"]["replicas"]
    fraud.kubectl("scale", "md/fraud", "--replicas=3")
    fraud.apply(manifest)
    assert fraud.read()["spec"]["replicas"] == 3


def condition(kind: str) -> dict[str, Any]:
    (wire,) = to_wire(
        Status(conditions=(Condition(type=kind, status="True", reason="Fine", last_transition_time=1763632800.5),))
    )["conditions"]
    return wire


def test_two_managers_keep_each_others_conditions(fraud: Deployment) -> None:
    fraud.write_status({"phase": "Healthy", "conditions": [condition("Available"), condition("Promoted")]})
    fraud.write_status({"conditions": [condition("Audited")]}, manager="auditor")
    fraud.write_status({"phase": "Healthy", "conditions": [condition("Available")]})
    status = fraud.read()["status"]
    assert {one["type"] for one in status["conditions"]} == {"Available", "Audited"}
    assert status["phase"] == "Healthy"
    with pytest.raises(LabError, match=r'conflict with "coalmine".*\.status\.phase'):
        fraud.write_status({"phase": "Degraded"}, manager="auditor")


def test_applying_twice_writes_once(fraud: Deployment) -> None:
    status = {"phase": "Healthy", "conditions": [condition("Available")]}
    fraud.write_status(status)
    before = fraud.read()["metadata"]["resourceVersion"]
    fraud.write_status(status)
    fraud.apply({**good(), "metadata": {"name": "fraud"}})
    assert fraud.read()["metadata"]["resourceVersion"] == before


def filled(kind: inspect.Type, schema: dict[str, Any]) -> Any:
    """A value with every field set and every list as long as the CRD lets it be."""
    match kind:
        case inspect.StructType():
            parts = schema["properties"]
            return kind.cls(
                **{f.name: 1763632800.25 if is_time(f) else filled(f.type, parts[f.encode_name]) for f in kind.fields}
            )
        case inspect.VarTupleType():
            return tuple(filled(kind.item_type, schema["items"]) for _ in range(schema["maxItems"]))
        case inspect.UnionType():
            (inner,) = (one for one in kind.types if not isinstance(one, inspect.NoneType))
            return filled(inner, schema)
        case inspect.DictType(value_type=inspect.AnyType()):
            return {"canary": 2500, "share": 0.25, "low": -1e-300, "why": "Fehler: ü", "counts": [0, 1.5]}
        case inspect.DictType():
            return {f"key {i}": filled(kind.value_type, schema["additionalProperties"]) for i in range(8)}
        case inspect.LiteralType():
            return kind.values[-1]
        case inspect.BoolType():
            return True
        case inspect.IntType():
            return 1_000_000
        case inspect.FloatType():
            return 12.5
    return "some text"


def test_the_largest_status_is_kept_and_comes_back(fraud: Deployment) -> None:
    schema = json.loads(fraud.cluster.kubectl("get", "crd/modeldeployments.coalmine.dev", "--output=json"))
    properties = schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    status = filled(inspect.type_info(Status), properties["status"])
    conditions = tuple(Condition(type=f"Kind{i}", status="True", reason="Fine") for i in range(len(status.conditions)))
    status = Status(**{f: getattr(status, f) for f in status.__struct_fields__} | {"conditions": conditions})
    fraud.write_status(to_wire(status))
    kept = fraud.read()["status"]
    assert kept == to_wire(status)
    assert from_wire(kept) == status


def test_what_the_server_keeps_means_the_same_to_the_operator(fraud: Deployment) -> None:
    assert decode(fraud.read()).spec == decode(good()).spec


def test_the_models_name_stays(fraud: Deployment) -> None:
    manifest = {**good(), "metadata": {"name": "fraud"}}
    del manifest["spec"]["model"]["name"]
    fraud.apply(manifest)  # the same name by default
    manifest["spec"]["model"]["name"] = "other"
    with pytest.raises(LabError, match=r"spec\.model\.name: .*cannot be changed, since clients call the model by it"):
        fraud.apply(manifest)

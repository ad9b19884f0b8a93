"""Good manifests, and what holds for broken ones beyond the table in `test_decode_broken.py`."""

from __future__ import annotations

import math
from typing import Any

import pytest
from tests.manifests import GONE, changed, good, problem_lines

from coalmine_operator.api.decode import check_many, decode
from coalmine_operator.api.duration import Duration
from coalmine_operator.api.problems import Problem
from coalmine_operator.api.spec import Baseline, Metric, ModelDeployment, Pause, Step

STEPS = "spec.strategy.canary.steps"
METRICS = "spec.analysis.metrics"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (None, ["manifest: null is no mapping: give fields as `name: value`"]),
        ("x" * 100, [f'manifest: "{"x" * 57}…" is no mapping: give fields as `name: value`']),
        ({}, ["apiVersion: missing", "kind: missing", "metadata: missing", "spec: missing"]),
    ],
)
def test_no_manifest_at_all(raw: Any, expected: list[str]) -> None:
    assert problem_lines(raw) == expected


def test_problems_are_bounded_and_counted() -> None:
    found = problem_lines(changed("spec.model.lineage", {str(i): math.nan for i in range(500)}))
    assert len(found) == 51
    assert found[-1] == "manifest: has 450 more problems"


def test_a_manifest_that_contains_itself_ends() -> None:
    loop: dict[str, Any] = {}
    loop["again"] = loop
    (line,) = problem_lines(changed("spec.model.lineage", loop))
    assert line.endswith(": nested deeper than 64")


def test_good_manifest() -> None:
    deployment = decode(good())
    spec = deployment.spec
    assert deployment.metadata.name == "fraud"
    assert deployment.metadata.namespace == "default"
    assert spec.model.version == "2026-11-20"
    assert spec.model.timeout == 90
    assert spec.strategy.canary.steps[:2] == (Step(set_weight=5), Step(pause=Pause(requests=500)))
    assert spec.strategy.canary.steps[4] == Step(pause=Pause())
    assert spec.analysis.metrics[2] == Metric(
        name="scores",
        preset="outputDrift",
        threshold=0.2,
        output="score",
        against="baseline",
        baseline=(Baseline(output="score", edges=(0, 0.5, 1), counts=(0, 10, 20, 0)),),
    )
    assert spec.auto_rollback is not None
    assert spec.auto_rollback.bake_time == Duration(3600)
    assert spec.template["spec"]["containers"][0]["image"] == "registry/fraud:17"


MINIMAL = {
    "apiVersion": "coalmine.dev/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {"name": "m"},
    "spec": {"template": {"spec": {"containers": [{"name": "server"}]}}},
}


def test_defaults_are_those_of_the_types() -> None:
    spec = decode(MINIMAL).spec
    assert (spec.replicas, spec.model.port, spec.model.timeout) == (1, 8080, 60)
    assert spec.fallback is None
    assert spec.auto_rollback is None
    assert [metric.preset for metric in spec.analysis.metrics] == ["errorRate"]


@pytest.mark.parametrize(
    "path", ["spec.replicas", "spec.model", "spec.fallback", "spec.analysis.interval", "metadata.labels", STEPS]
)
def test_null_means_absent(path: str) -> None:
    assert decode(changed(path, None)) == decode(changed(path, GONE))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.replicas", 3.0),
        ("spec.replicas", 0),
        (STEPS, []),
        (STEPS, [{"pause": {}}]),
        (STEPS, [{"setWeight": 10}, {"setWeight": 10}]),
        (STEPS, [{"setWeight": 0}, {"pause": {"duration": "1m"}}, {"setWeight": 100}]),
        (METRICS, []),
        ("spec.fallback", {}),
        ("spec.fallback", {"version": "previous", "replicas": 2}),
        ("spec.model.version", ""),
        ("metadata.managedFields", [{"anything": 1}]),
        ("spec.template.spec.nodeSelector", {"a.b/c": "x"}),
        ("status", {"phase": "Healthy"}),
    ],
)
def test_let_through(path: str, value: Any) -> None:
    assert isinstance(decode(changed(path, value)), ModelDeployment)


def test_two_deployments_of_one_name() -> None:
    one = decode(MINIMAL)
    other = decode({**MINIMAL, "metadata": {"name": "m", "namespace": "prod"}})
    assert check_many([one, other]) == []
    assert check_many([one, other, one]) == [
        Problem("metadata.name", "default/m stands twice: a name is unique within its namespace")
    ]

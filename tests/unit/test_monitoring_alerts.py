"""What a manifest may override is what is told of its model: held against the rules, and against the sidecar's room."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.manifests import changed, problem_lines

from coalmine_operator.api.decode import Invalid, decode
from coalmine_operator.api.monitoring import AlertName, Feedback, Monitoring, Slice
from coalmine_operator.api.monitoring_alerts import OF_LATENCY, lacks
from coalmine_operator.api.spec import ModelDeploymentSpec
from coalmine_operator.render.advice import advice
from coalmine_operator.render.rules import alerts_of, parameters_of
from coalmine_sidecar import monitoring as contract
from coalmine_sidecar.monitoring import Task
from coalmine_sidecar.telemetry.watched import Watched

TEMPLATE = {"spec": {"containers": [{"name": "model"}]}}


@pytest.mark.parametrize("task", get_args(Task))
@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize("slices", [False, True])
def test_what_is_lacking_is_what_has_no_rule(task: Task, feedback: bool, slices: bool) -> None:
    if slices and task in ("regression", "text"):
        pytest.skip("the spec refuses slices of a task without classes: there are no rules to compare")
    monitoring = Monitoring(
        task=task, feedback=Feedback() if feedback else None, slices=(Slice(attribute="a", path="a"),) if slices else ()
    )
    parameters = parameters_of(ModelDeploymentSpec(template=TEMPLATE, monitoring=monitoring), "fraud", "shop")
    assert parameters is not None
    told = {alert.name for alert in alerts_of(parameters)}
    assert {name for name in get_args(AlertName) if not lacks(name, monitoring)} == told | set(OF_LATENCY)


SMALL = st.builds(
    dict,
    task=st.sampled_from(get_args(Task)),
    features=st.lists(st.sampled_from("abc"), max_size=2, unique=True).map(
        lambda names: [{"name": name} for name in names]
    ),
    slices=st.sampled_from([[], [{"attribute": "a", "path": "a"}]]),
    feedback=st.sampled_from([None, {}]),
    maxSeries=st.one_of(st.integers(1, 700), st.sampled_from([83, 84, 211, 212, 483, 484, 611, 612])),
)


@given(spec=SMALL)
def test_room_for_nothing_is_refused_exactly_where_the_sidecar_has_none(spec: dict[str, object]) -> None:
    if spec["task"] in ("regression", "text"):
        spec = spec | {"slices": []}
    refused = False
    try:
        decode(changed("spec.monitoring", spec))
    except Invalid as error:
        refused = [problem.path for problem in error.problems] == ["spec.monitoring.maxSeries"]
        assert refused
    watched = Watched(
        contract.Monitoring(
            task=spec["task"],
            features=tuple(contract.Feature(**one) for one in spec["features"]),
            slices=tuple(contract.Slice(**one) for one in spec["slices"]),
            feedback=contract.Feedback() if spec["feedback"] is not None else None,
            max_series=spec["maxSeries"],
        ),
        None,
    )
    kept = len(watched.features) + len(spec["slices"]) - watched.left_out["slices"]
    assert refused == bool((spec["features"] or spec["slices"]) and not kept)


def test_a_baseline_may_leave_room_that_nobody_can_know_of() -> None:
    decode(changed("spec.monitoring", {"feedback": {}, "features": [{"name": "a"}], "maxSeries": 84, "baseline": REF}))
    assert problem_lines(changed("spec.monitoring", {"feedback": {}, "features": [{"name": "a"}], "maxSeries": 84}))


REF = {"configMap": "a"}


@pytest.mark.parametrize(("window", "warns"), [("1m", True), ("119s", True), ("2m", False), ("1h", False)])
def test_a_window_too_short_for_the_rules_is_a_warning(window: str, warns: bool) -> None:
    spec = decode(changed("spec.monitoring", {"drift": {"window": window}})).spec
    assert list(advice(spec)) == (
        [
            f"spec.monitoring.drift.window: {spec.monitoring.drift.window} is short for rules that look once in 1m: "
            "much of the data is in no window; write 2m or more"
        ]
        if warns
        else []
    )

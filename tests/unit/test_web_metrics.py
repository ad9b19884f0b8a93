"""The operator's own metrics, as Prometheus reads them."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families

from coalmine_operator.api.status import Condition, Phase, Status, TrackStatus
from coalmine_operator.web.metrics import Metrics
from coalmine_operator.web.view import DeploymentView

NAMES = {"namespace": "shop", "name": "fraud"}


def view(*, available: bool, desired: int) -> DeploymentView:
    condition = Condition(type="Available", status="True" if available else "False", reason="NoReadyPods")
    stable = TrackStatus(revision="fraud-1", version="1", desired=desired)
    return DeploymentView(**NAMES, at=0.0, status=Status(conditions=(condition,), stable=stable))


def samples(text: bytes) -> dict[tuple[str, tuple[str, ...]], float]:
    """What Prometheus reads: by name and values of labels, in the order of their names."""
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


@pytest.mark.parametrize(
    ("available", "desired", "value"), [(True, 2, 1.0), (False, 2, 0.0), (False, 0, None), (True, 0, None)]
)
def test_availability(available: bool, desired: int, value: float | None) -> None:
    found = samples(Metrics().render([view(available=available, desired=desired)]))
    assert found.get(("coalmine_deployment_available", ("fraud", "shop"))) == value
    phases = {labels[2]: value for (name, labels), value in found.items() if name == "coalmine_deployment_phase"}
    assert [phase for phase, value in phases.items() if value] == [Status().phase]
    assert set(phases) == set(get_args(Phase))


def test_what_went_has_no_series() -> None:
    metrics = Metrics()
    assert b'name="fraud"' in metrics.render([view(available=True, desired=1)])
    assert b'name="fraud"' not in metrics.render([])


def test_calls_of_the_api_server_are_counted_as_they_are_at_the_scrape() -> None:
    calls = Counter({("GET", 200): 2})
    metrics = Metrics(api_calls=calls)
    calls["PATCH", 0] += 1
    found = samples(metrics.render([]))
    assert found["coalmine_operator_api_calls_total", ("200", "GET")] == 2
    assert found["coalmine_operator_api_calls_total", ("0", "PATCH")] == 1

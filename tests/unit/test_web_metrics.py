"""The operator's metric that tells an outage from what was never meant to run."""

from __future__ import annotations

import pytest

from coalmine_operator.api.status import Condition, Status, TrackStatus
from coalmine_operator.web.metrics import Metrics
from coalmine_operator.web.view import DeploymentView

NAMES = {"namespace": "shop", "name": "fraud"}


def view(*, available: bool, desired: int) -> DeploymentView:
    condition = Condition(type="Available", status="True" if available else "False", reason="NoReadyPods")
    stable = TrackStatus(revision="fraud-1", version="1", desired=desired)
    return DeploymentView(**NAMES, at=0.0, status=Status(conditions=(condition,), stable=stable))


@pytest.mark.parametrize(
    ("available", "desired", "value"), [(True, 2, 1.0), (False, 2, 0.0), (False, 0, None), (True, 0, None)]
)
def test_availability(available: bool, desired: int, value: float | None) -> None:
    metrics = Metrics()
    metrics.render([view(available=available, desired=desired)])
    assert metrics.registry.get_sample_value("coalmine_deployment_available", NAMES) == value


def test_what_went_has_no_series() -> None:
    metrics = Metrics()
    metrics.render([view(available=True, desired=1)])
    metrics.render([])
    assert metrics.registry.get_sample_value("coalmine_deployment_available", NAMES) is None

"""Who gets the sidecars' metrics without asking, from the chart's values to operator and webhook."""

from __future__ import annotations

from typing import Any

import pytest
from tests.chart.chart import Chart, pod_templates

from coalmine_operator.__main__ import read_settings as operator_settings
from coalmine_operator.webhook.__main__ import read_settings as webhook_settings


def pushed(chart: Chart, push: dict[str, Any]) -> tuple[str, ...]:
    """The sidecar's flags as operator and webhook read the chart's."""
    templates = dict(pod_templates(chart.render({"sidecar": {"push": push}})))
    flags = {name: one["spec"]["containers"][0]["args"] for name, one in templates.items()}
    operator = operator_settings(flags["coalmine-operator"], {})[0].platform.injection
    webhook = webhook_settings(flags["coalmine-webhook"][1:], {})[0].injection
    assert operator == webhook
    return operator.push


@pytest.mark.parametrize(
    ("push", "flags"),
    [
        ({}, ()),
        ({"interval": 30, "graphite": {"prefix": "a", "tags": False}}, ()),
        (
            {"graphite": {"address": "graphite:2003"}},
            ("--graphite=graphite:2003", "--graphite-prefix=", "--graphite-tags=true", "--push-interval=15"),
        ),
        (
            {"graphite": {"address": "[::1]:2003", "prefix": "ml.models", "tags": False}, "interval": 30},
            ("--graphite=[::1]:2003", "--graphite-prefix=ml.models", "--graphite-tags=false", "--push-interval=30"),
        ),
        (
            {"otlp": {"url": "http://prometheus:9090/api/v1/otlp"}},
            ("--otlp=http://prometheus:9090/api/v1/otlp", "--push-interval=15"),
        ),
    ],
)
def test_the_sidecars_get_what_the_values_say(chart: Chart, push: dict[str, Any], flags: tuple[str, ...]) -> None:
    assert pushed(chart, push) == flags


def test_a_release_of_before_there_was_such_a_value_can_be_upgraded(chart: Chart) -> None:
    """`helm upgrade --reuse-values` takes the old chart's values."""
    assert "--push" not in chart.text({"sidecar": {"push": None}})

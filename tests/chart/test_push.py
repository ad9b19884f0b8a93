"""Who gets metrics without asking, from the chart's values to operator, webhook and the network's policy."""

from __future__ import annotations

from typing import Any

import pytest
from tests.chart.chart import Chart, named, pod_templates

from coalmine_operator.__main__ import read_settings as operator_settings
from coalmine_operator.api.monitoring import SecretKey
from coalmine_operator.webhook.__main__ import read_settings as webhook_settings


def pushed(chart: Chart, push: dict[str, Any]) -> tuple[str, ...]:
    """The sidecar's flags as operator and webhook read the chart's."""
    templates = dict(pod_templates(chart.render({"push": push})))
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
        ({"otlp": {"headersSecret": {"name": "otlp"}}}, ()),
    ],
)
def test_the_sidecars_get_what_the_values_say(chart: Chart, push: dict[str, Any], flags: tuple[str, ...]) -> None:
    assert pushed(chart, push) == flags


def test_a_key_comes_from_a_secret_to_the_operator_and_to_sidecars(chart: Chart) -> None:
    values = {"push": {"otlp": {"url": "https://otel", "headersSecret": {"name": "otel-key"}}}}
    operator = dict(pod_templates(chart.render(values)))["coalmine-operator"]["spec"]["containers"][0]
    injection = operator_settings(operator["args"], {})[0].platform.injection
    assert injection.otlp_headers == SecretKey(name="otel-key", key="headers")
    source = {"secretKeyRef": {"name": "otel-key", "key": "headers", "optional": True}}
    assert operator["env"][1:] == [{"name": "OTEL_EXPORTER_OTLP_HEADERS", "valueFrom": source}]
    del values["push"]["otlp"]["url"]
    operator = dict(pod_templates(chart.render(values)))["coalmine-operator"]["spec"]["containers"][0]
    assert [one["name"] for one in operator["env"]] == ["POD_NAME"]


@pytest.mark.parametrize(
    ("push", "ports"),
    [
        ({}, []),
        ({"graphite": {"address": "[::1]:2003"}}, [2003]),
        ({"otlp": {"url": "http://otel:4318/base"}}, [4318]),
        ({"otlp": {"url": "https://otel"}}, [443]),
        ({"otlp": {"url": "http://[::1]/x"}, "graphite": {"address": "graphite:2003"}}, [2003, 80]),
        ({"otlp": {"url": "http://otel:2003"}, "graphite": {"address": "graphite:2003"}}, [2003]),
    ],
)
def test_the_network_lets_the_operator_through_to_them(chart: Chart, push: dict[str, Any], ports: list[int]) -> None:
    policy = named(chart.render({"push": push}), "NetworkPolicy", "coalmine-operator")
    plain = named(chart.render(), "NetworkPolicy", "coalmine-operator")
    more = [{"ports": [{"port": port, "protocol": "TCP"} for port in ports]}] if ports else []
    assert policy["spec"]["egress"] == plain["spec"]["egress"] + more


def test_a_release_of_before_there_was_such_a_value_can_be_upgraded(chart: Chart) -> None:
    """`helm upgrade --reuse-values` takes the old chart's values."""
    assert "--push" not in chart.text({"push": None})

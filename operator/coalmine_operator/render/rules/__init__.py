"""Rules for Prometheus about one model deployment: records of what its predictions are like, and alerts. Pure.

Each group is evaluated in its order, so that what is recorded above is there below. Names: what is measured, of what,
and how (`coalmine:feature_psi:baseline`); none tells its window, so that dashboards stay as they are when it changes
(`coalmine:rules_window:seconds` tells it).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ...api.baseline import Baseline
from ...api.spec import ModelDeploymentSpec
from ..labels import MODELDEPLOYMENT
from .alerts import Alert, alert_rules
from .alerts_data import data_alerts
from .alerts_quality import fairness_alerts, quality_alerts
from .alerts_service import service_alerts
from .drift import Kind, drift_records, value_records
from .fairness import fairness_records
from .parameters import Parameters, parameters_of
from .performance import label_records, performance_records
from .promql import Rule, Scope, duration
from .service import service_records

__all__ = ["EVERY", "Parameters", "alerts_of", "as_prometheus_rule", "groups", "parameters_of", "render_rules"]

#: Seconds between two evaluations. Windows are an hour and more: finer steps would cost much and tell nothing.
EVERY: Final = 60.0


def render_rules(
    spec: ModelDeploymentSpec, name: str, namespace: str, baseline: Baseline | None = None
) -> list[dict[str, Any]]:
    """Prometheus' rule groups for one model deployment; none where nothing is monitored."""
    parameters = parameters_of(spec, name, namespace, baseline)
    return groups(parameters) if parameters else []


def groups(parameters: Parameters) -> list[dict[str, Any]]:
    """Prometheus' rule groups: `name`, `interval`, `rules`."""
    scope = scope_of(parameters)
    service = [*service_records(scope, parameters), *_alerts(scope, parameters, service_alerts(scope, parameters))]
    kinds: tuple[Kind, ...] = ("feature", "output")
    data = [rule for kind in kinds for rule in (*drift_records(scope, kind, parameters), *value_records(scope, kind))]
    data += _alerts(scope, parameters, data_alerts(scope, parameters))
    quality = [*label_records(scope)] if parameters.feedback else []
    quality += performance_records(scope, parameters)
    quality += _alerts(scope, parameters, quality_alerts(scope, parameters))
    fairness = [*fairness_records(scope, parameters)]
    fairness += _alerts(scope, parameters, fairness_alerts(scope, parameters))
    found = {"service": service, "data": data, "quality": quality, "fairness": fairness}
    prefix = f"coalmine.{parameters.namespace}.{parameters.deployment}"
    every = duration(EVERY)
    return [{"name": f"{prefix}.{name}", "interval": every, "rules": rules} for name, rules in found.items() if rules]


def scope_of(parameters: Parameters) -> Scope:
    return Scope(
        namespace=parameters.namespace,
        deployment=parameters.deployment,
        model=parameters.model,
        window=duration(parameters.window),
    )


def alerts_of(parameters: Parameters) -> list[Alert]:
    """All alerts that apply to what is monitored, turned on or off."""
    scope = scope_of(parameters)
    return [
        *service_alerts(scope, parameters),
        *data_alerts(scope, parameters),
        *quality_alerts(scope, parameters),
        *fairness_alerts(scope, parameters),
    ]


def as_prometheus_rule(
    name: str, namespace: str, found: list[dict[str, Any]], labels: Mapping[str, str]
) -> dict[str, Any]:
    """The custom resource that the Prometheus operator reads, with `labels` beside its own."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": f"coalmine-{name}",
            "namespace": namespace,
            "labels": {"app.kubernetes.io/name": "coalmine", MODELDEPLOYMENT: name, **labels},
        },
        "spec": {"groups": found},
    }


def _alerts(scope: Scope, parameters: Parameters, found: Iterable[Alert]) -> list[Rule]:
    return list(alert_rules(scope, parameters, iter(found)))

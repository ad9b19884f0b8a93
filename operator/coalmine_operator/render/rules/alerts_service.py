"""Alerts about the service: budgets spent too fast, slow answers, lost traffic, short memory and CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .alerts import SHARE, WHO, Alert
from .parameters import Parameters
from .promql import VERSION, Scope, number
from .service import NEAR, THROTTLED, requests

#: Requests of five minutes under which shares and quantiles say nothing.
_FEW: Final = 20
_FEW_FOR_P99: Final = 100
#: Requests per second a week ago under which nobody can say that traffic is missing.
_QUIET: Final = 0.1


def service_alerts(scope: Scope, parameters: Parameters) -> Iterator[Alert]:
    available = f"coalmine_deployment_available{{{scope.deployed}}} == 0"
    pending = f'coalmine_deployment_phase{{{scope.deployed}, phase="Pending"}} == 1'
    yield Alert(
        name="ModelUnavailable",
        expr=lambda _: f"max by (namespace) ({available}\nunless on (namespace, name) {pending})",
        threshold=0,
        hold=60,
        action="fallback",
        summary="{{ $labels.modeldeployment }} in {{ $labels.namespace }} has no ready pod of any version",
        description="Requests get 503. "
        "See: kubectl describe md {{ $labels.modeldeployment }} -n {{ $labels.namespace }}",
        retired=True,
    )
    yield from _burns(scope, parameters)
    if parameters.latency_budget is not None:
        yield from _latency(scope, parameters.latency_budget, 1 - parameters.latency_share)
    yield Alert(
        name="ModelThroughputDrop",
        expr=lambda share: (
            f"{scope.recorded('coalmine:throughput:week_ratio', 'model')} < {number(share)}\n"
            f"and {scope.recorded('coalmine:throughput:rate15m', 'model')} "
            f"/ {scope.recorded('coalmine:throughput:week_ratio', 'model')} > {_QUIET}"
        ),
        threshold=0.5,
        hold=900,
        action="none",
        summary=f"{{{{ $labels.model }}}} gets {SHARE} of the requests of this hour a week ago, under PERCENT",
        description="Either clients send less, or something before the sidecars turns them away.",
        retired=True,
    )
    yield from _resources(scope)


_P99: Final = 'quantile="0.99"'


def _burns(scope: Scope, parameters: Parameters) -> Iterator[Alert]:
    failing = 1 - parameters.availability
    yield Alert(
        name="ModelErrorBudgetBurn",
        expr=lambda rate: _burn(scope, "availability", failing, ("5m", "1h"), rate),
        threshold=14.4,
        hold=120,
        action="rollback",
        summary=f"{WHO} fails at {SHARE} of its requests: THRESHOLD times what its budget of errors allows, or more",
        description="Model errors and timeouts, also those that another version answered for it, in the last 5 minutes "
        "and the last hour. See what the model logs.",
    )
    yield Alert(
        name="ModelErrorBudgetSlowBurn",
        expr=lambda rate: _burn(scope, "availability", failing, ("30m", "6h"), rate),
        threshold=6,
        hold=900,
        action="none",
        summary=f"{WHO} fails at {SHARE} of its requests: THRESHOLD times what its budget of errors allows, or more",
        description="For hours, not for minutes: in the last half hour and the last six hours.",
    )


def _latency(scope: Scope, budget: float, slow: float) -> Iterator[Alert]:
    yield Alert(
        name="ModelLatencyP99",
        expr=lambda seconds: (
            f"{scope.recorded('coalmine:latency_seconds:quantile', VERSION, _P99)} > {number(seconds)}\n"
            f"and {requests(scope)} >= {_FEW_FOR_P99}"
        ),
        threshold=budget,
        hold=300,
        action="rollback",
        summary=f"{WHO}: one answer of a hundred takes {{{{ $value | humanizeDuration }}}}, over its THRESHOLD s",
        description="Compare coalmine_upstream_duration_seconds, the model's part, with coalmine_overhead_seconds, the "
        "sidecar's; and the model's CPU with its limit.",
    )
    yield Alert(
        name="ModelLatencyBudgetBurn",
        expr=lambda rate: _burn(scope, "latency", slow, ("5m", "1h"), rate),
        threshold=14.4,
        hold=120,
        action="rollback",
        summary=f"{WHO} answers {SHARE} of its requests later than in {budget:g} s: "
        "THRESHOLD times what its budget allows, or more",
        description="In the last 5 minutes and the last hour. Compare coalmine_upstream_duration_seconds, the model's "
        "part, with coalmine_overhead_seconds, the sidecar's.",
    )


def _burn(scope: Scope, slo: str, budget: float, windows: tuple[str, str], rate: float) -> str:
    over = [
        f"{scope.recorded(f'coalmine:budget_spent:ratio{window}', VERSION, _slo(slo))} > {rate * budget:.6g}"
        for window in windows
    ]
    return f"{over[0]}\nand {over[1]}\nand {requests(scope)} >= {_FEW}"


def _slo(name: str) -> str:
    return f'slo="{name}"'


def _resources(scope: Scope) -> Iterator[Alert]:
    pod = f"{VERSION}, pod"
    yield Alert(
        name="ModelMemoryPressure",
        expr=lambda share: f"{scope.recorded('coalmine:memory:limit_ratio', pod)} > {number(share)}",
        threshold=NEAR,
        hold=600,
        action="none",
        summary=f"{WHO} uses {SHARE} of its memory limit",
        description="Over the limit the kernel kills it. Pod {{ $labels.pod }} in {{ $labels.namespace }}.",
    )
    yield Alert(
        name="ModelThrottled",
        expr=lambda share: f"{scope.recorded('coalmine:cpu_throttled:ratio', pod)} > {number(share)}",
        threshold=THROTTLED,
        hold=900,
        action="none",
        summary=f"{WHO} is stopped in {SHARE} of the scheduler's periods: its CPU limit is too low",
        description="Pod {{ $labels.pod }} in {{ $labels.namespace }}: raise the limit, or leave it out.",
    )

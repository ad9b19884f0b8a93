"""Records about the service: availability and latency against their budgets, throughput, memory and CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .parameters import Parameters
from .promql import VERSION, Rule, Scope, number, ratio

#: Windows of the budgets' burn rates: two fast ones, two slow ones (Google's SRE Workbook, chapter 5).
BURN_WINDOWS: Final = ("5m", "30m", "1h", "6h")
_POD: Final = f"{VERSION}, pod"
#: Upper bounds (`le`) that a sidecar's histograms of seconds have.
LATENCIES: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0,
)  # fmt: skip
#: Of their limits: memory beyond which the kernel is near, CPU beyond which requests wait.
NEAR: Final = 0.9
#: Of the scheduler's periods in which the model was stopped for the rest of it.
THROTTLED: Final = 0.25
#: Memory is predicted so far ahead, seconds, once it is over this share of its limit.
AHEAD: Final = 4 * 3600
_GROWN: Final = 0.5


def service_records(scope: Scope, parameters: Parameters) -> Iterator[Rule]:
    # A version that was taken out stays in the windows, but nobody is to be woken for it.
    yield scope.record("coalmine:version:serving", f"{scope.gauge('coalmine_route_weight')} > 0")
    yield scope.record("coalmine:rules_window:seconds", f"vector({number(parameters.window)})")
    for window in BURN_WINDOWS:
        yield scope.record(f"coalmine:budget_spent:ratio{window}", _failed(scope, window), slo="availability")
        if parameters.latency_budget is not None:
            slow = _slow(scope, parameters.latency_budget, window)
            yield scope.record(f"coalmine:budget_spent:ratio{window}", slow, slo="latency")
    failed = f"({_requests(scope, _FAILED, 'model', scope.window)})"
    every = scope.increase("coalmine_requests_total", "model", 'role="ingress"')
    yield scope.record("coalmine:availability:ratio", f"1 - (({failed} or 0 * {every})\n/ ({every} > 0))")
    buckets = scope.raw("coalmine_request_duration_seconds_bucket", 'role="ingress"')
    for quantile in ("0.5", "0.95", "0.99"):
        yield scope.record(
            "coalmine:latency_seconds:quantile",
            f"histogram_quantile({quantile}, sum by ({VERSION}, le) (rate({buckets}[5m]))) >= 0",
            quantile=quantile,
        )
    requests = scope.raw("coalmine_requests_total", 'role="ingress"')
    yield scope.record("coalmine:throughput:rate15m", f"sum by (model) (rate({requests}[15m]))")
    now, then = (f"sum by (model) (rate({requests}[15m]{offset}))" for offset in ("", " offset 1w"))
    yield scope.record("coalmine:throughput:week_ratio", ratio(now, then))
    yield from _resources(scope)


#: Who could not answer: the model, or the sidecar with a 5xx (a full queue); what else it rejects, clients did wrong.
_FAILED: Final = ('outcome=~"model_error|timeout"', 'outcome="rejected", code=~"5.."')
_ANSWERED: Final = ('outcome!~"model_error|timeout|rejected"', 'outcome="rejected", code!~"5.."')


def requests(scope: Scope, window: str = "5m") -> str:
    """Requests that clients sent, by the version that was to answer them: those rescued by another one, too."""
    every = f"increase({scope.raw('coalmine_requests_total', _INGRESS)}[{window}])"
    return f"sum by ({VERSION}) ({every}\nor {_rescued(scope, window)})"


_INGRESS: Final = 'role="ingress"'


def _rescued(scope: Scope, window: str) -> str:
    rescued = f"increase({scope.raw('coalmine_fallbacks_total')}[{window}])"
    return f'label_replace({rescued}, "version", "$1", "from_version", "(.*)")'


def _requests(scope: Scope, outcomes: tuple[str, ...], by: str, window: str) -> str:
    parts = (f"increase({scope.raw('coalmine_requests_total', f'{_INGRESS}, {o}')}[{window}])" for o in outcomes)
    return f"sum by ({by}) ({' or '.join(parts)})"


def _failed(scope: Scope, window: str) -> str:
    every = requests(scope, window)
    # Counted by what was answered: a version that answers nothing may have no series of failures yet.
    return f"1 - ({_requests(scope, _ANSWERED, VERSION, window)}\nor 0 * {every})\n/ ({every} > 0)"


def _slow(scope: Scope, budget: float, window: str) -> str:
    """Of the buckets' bounds the largest one within the budget counts."""
    bound = max((le for le in LATENCIES if le <= budget), default=LATENCIES[0])
    name = "coalmine_request_duration_seconds"
    # prometheus_client writes 1.0, the text format's newer versions 1.
    fast = scope.increase(f"{name}_bucket", VERSION, f'{_INGRESS}, le=~"{_le(bound)}"', window)
    return f"1 - {ratio(fast, scope.increase(f'{name}_count', VERSION, _INGRESS, window))}"


def _le(bound: float) -> str:
    texts = {repr(bound), number(bound)}
    return "|".join(text.replace(".", "[.]") for text in sorted(texts))


def _resources(scope: Scope) -> Iterator[Rule]:
    rss, limit = (scope.gauge("coalmine_model_memory_bytes", _POD, f'kind="{kind}"') for kind in ("rss", "limit"))
    yield scope.record("coalmine:memory:limit_ratio", ratio(rss, limit))
    used = f"sum by ({_POD}) (rate({scope.raw('coalmine_model_cpu_seconds_total')}[5m]))"
    yield scope.record("coalmine:cpu:limit_ratio", ratio(used, scope.gauge("coalmine_model_cpu_limit_cores", _POD)))
    # cAdvisor's, of the whole pod: nothing else in it has a limit of CPU.
    pods = f'namespace="{scope.namespace}", container!=""'
    stopped, periods = (
        f"sum by (pod) (rate(container_cpu_cfs_{kind}periods_total{{{pods}}}[5m]))" for kind in ("throttled_", "")
    )
    pod = f"({scope.gauge('coalmine_model_cpu_seconds_total', _POD)} * 0 + 1)"
    yield scope.record("coalmine:cpu_throttled:ratio", f"{pod}\n* on (pod) group_left () ({ratio(stopped, periods)})")
    memory = scope.recorded("coalmine:memory:limit_ratio", _POD)
    grows = scope.raw("coalmine_model_memory_bytes", 'kind="rss"')
    ahead = f"max by ({_POD}) (predict_linear({grows}[1h], {AHEAD}))\n/ ({limit} > 0)"
    flags = {
        "memory": f"{memory} > bool {NEAR}",
        "memory_growth": f"({ahead} > bool 1)\n* ({memory} > bool {_GROWN})",
        "cpu": f"{scope.recorded('coalmine:cpu:limit_ratio', _POD)} > bool {NEAR}",
        "throttling": f"{scope.recorded('coalmine:cpu_throttled:ratio', _POD)} > bool {THROTTLED}",
    }
    for reason, expr in flags.items():
        yield scope.record("coalmine:resource_limited:bool", f"max by ({VERSION}) ({expr})", reason=reason)

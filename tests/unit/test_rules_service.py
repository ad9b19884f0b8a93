"""Records about the service and its resources, against what the scenario makes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from tests.chart.promtool import needs_promtool
from tests.unit.rulebook import (
    EVERYTHING,
    FRAUD,
    MINUTES,
    OWN,
    RECORDED,
    V3,
    Samples,
    Series,
    counted,
    differences,
    gauge,
    pods,
    records,
    run,
    selector,
)

from coalmine_operator.render.rules import groups
from coalmine_operator.render.rules.service import BURN_WINDOWS, LATENCIES
from coalmine_sidecar.telemetry.counters import LATENCY

#: Of an hour, by outcome and code: two pods each.
REQUESTS = {
    ("ok", "200"): (9000, 2000),
    ("client_error", "400"): (300, 100),
    ("model_error", "500"): (90, 10),
    ("timeout", "504"): (20, 5),
    ("rejected", "413"): (40, 0),
    ("rejected", "503"): (15, 5),
}
RESCUED = 60
ANSWERED = 9000 + 2000 + 300 + 100 + 40
FAILED = 90 + 10 + 20 + 5 + 15 + 5
#: Requests of an hour up to each bound.
DURATIONS = {"0.1": 4000, "0.25": 7000, "0.5": 10000, "1.0": 11000, "2.5": 11400, "+Inf": 11585}


def bucket(one: Series) -> Series:
    return {**one, "series": one["series"].replace("_total", "")}


def series() -> Iterator[Series]:
    ingress = {"role": "ingress"}
    for (outcome, code), counts in REQUESTS.items():
        yield from pods("coalmine_requests", counts, ingress, {"outcome": outcome, "code": code})
    # Handed on by another sidecar, which counted it.
    yield from pods("coalmine_requests", (5000, 5000), {"role": "local", "outcome": "model_error", "code": "500"})
    rescued = {"from_version": "v3", "to_version": "v2", "reason": "status", "pod": "p0"}
    yield counted("coalmine_fallbacks", RESCUED, FRAUD, rescued)
    for le, count in DURATIONS.items():
        for one in pods("coalmine_request_duration_seconds_bucket", (count * 0.5, count * 0.5), ingress, {"le": le}):
            yield bucket(one)
    for one in pods("coalmine_request_duration_seconds_count", (11585 * 0.5, 11585 * 0.5), ingress):
        yield bucket(one)
    for version, weight in (("v3", 90), ("v2", 10), ("v1", 0)):
        for pod in ("p0", "p1"):
            yield gauge("coalmine_route_weight", weight, FRAUD, {"version": version, "track": "stable", "pod": pod})
    # The one is near its memory limit, the other near its CPU's.
    for pod, rss, cpu in (("p0", 95, 1800), ("p1", 40, 6800)):
        of = {**FRAUD, **V3, "pod": pod}
        yield gauge("coalmine_model_memory_bytes", rss, of, {"kind": "rss"})
        yield gauge("coalmine_model_memory_bytes", 100, of, {"kind": "limit"})
        yield counted("coalmine_model_cpu_seconds", cpu, of)
        yield gauge("coalmine_model_cpu_limit_cores", 2, of)
        for kind, periods in (("throttled_", 3000 if pod == "p1" else 30), ("", 10000)):
            where = {"namespace": "shop", "pod": pod, "container": "model"}
            yield counted(f"container_cpu_cfs_{kind}periods", periods, where)
            yield counted(f"container_cpu_cfs_{kind}periods", 77, {**where, "container": ""})


def quantile(q: float) -> float:
    """As `histogram_quantile`: linear within the bucket."""
    bounds = [0.0, *(float(le) for le in DURATIONS if le != "+Inf")]
    return float(np.interp(q * 11585, [0, *list(DURATIONS.values())[:-1]], bounds))


def expected() -> dict[str, Samples]:
    every = ANSWERED + FAILED
    found: dict[str, list[tuple[Mapping[str, str], float]]] = {}

    def add(name: str, value: float, **more: str) -> None:
        found.setdefault(name, []).append(({**RECORDED, **more}, value))

    for window in BURN_WINDOWS:
        name = f"coalmine:budget_spent:ratio{window}"
        add(name, 1 - ANSWERED / (every + RESCUED), slo="availability")
        add(name, 1 - 11000 / 11585, slo="latency")
    for q in ("0.5", "0.95", "0.99"):
        add("coalmine:latency_seconds:quantile", quantile(float(q)), quantile=q)
    for pod, memory, cpu, throttled in (("p0", 0.95, 0.25, 0.003), ("p1", 0.4, 6800 / 7200, 0.3)):
        add("coalmine:memory:limit_ratio", memory, pod=pod)
        add("coalmine:cpu:limit_ratio", cpu, pod=pod)
        add("coalmine:cpu_throttled:ratio", throttled, pod=pod)
    for reason, limited in (("memory", 1), ("memory_growth", 0), ("cpu", 1), ("throttling", 1)):
        add("coalmine:resource_limited:bool", limited, reason=reason)
    model = {**OWN, "model": "fraud"}
    found["coalmine:version:serving"] = [({**RECORDED, "version": "v3"}, 90), ({**RECORDED, "version": "v2"}, 10)]
    found["coalmine:rules_window:seconds"] = [(OWN, 3600)]
    found["coalmine:availability:ratio"] = [(model, 1 - FAILED / every)]
    found["coalmine:throughput:rate15m"] = [(model, every / 3600)]
    return found  # type: ignore[return-value] - lists are sequences


@needs_promtool
def test_against_the_scenario(tmp_path: Path) -> None:
    wanted = expected()
    # Last week's needs a week: it has a test of its own.
    assert set(wanted) == records(EVERYTHING, "service") - {"coalmine:throughput:week_ratio"}
    assert differences(tmp_path, EVERYTHING, "service", series(), wanted) == ""


@needs_promtool
def test_a_version_that_answers_nothing_spends_its_whole_budget(tmp_path: Path) -> None:
    rescued = {"from_version": "v3", "to_version": "v2", "reason": "refused", "pod": "p0"}
    found = {
        f"coalmine:budget_spent:ratio{window}": [({**RECORDED, "slo": "availability"}, 1.0)] for window in BURN_WINDOWS
    }
    assert (
        differences(tmp_path, EVERYTHING, "service", [counted("coalmine_fallbacks", 50, FRAUD, rescued)], found) == ""
    )


@needs_promtool
@pytest.mark.parametrize(
    ("budget", "late"), [(0.25, 1 - 7000 / 11585), (0.3, 1 - 7000 / 11585), (1, 1 - 11000 / 11585)]
)
def test_latency_counts_by_the_bucket_within_the_budget(budget: float, late: float, tmp_path: Path) -> None:
    parameters = replace(EVERYTHING, latency_budget=budget)
    found: dict[str, Samples] = {
        "coalmine:budget_spent:ratio5m": [
            ({**RECORDED, "slo": "availability"}, 1 - ANSWERED / (ANSWERED + FAILED + RESCUED)),
            ({**RECORDED, "slo": "latency"}, late),
        ]
    }
    assert differences(tmp_path, parameters, "service", series(), found) == ""


@needs_promtool
def test_sidecars_that_nobody_labels_are_counted(tmp_path: Path) -> None:
    """A Prometheus beside `coalmine run` may know neither namespace nor model deployment."""
    bare = [
        gauge("coalmine_route_weight", 100, {"model": "fraud", "version": "v3", "track": "stable"}),
        gauge("coalmine_route_weight", 100, {"model": "other", "version": "v3", "track": "stable"}),
    ]
    found = {"coalmine:version:serving": [(RECORDED, 100)]}
    assert differences(tmp_path, EVERYTHING, "service", bare, found) == ""


def test_buckets_are_the_sidecars() -> None:
    assert LATENCIES == LATENCY


@needs_promtool
def test_memory_that_will_not_last(tmp_path: Path) -> None:
    """60 of 100 now and 20 more in an hour: over the limit within four."""
    of = {**FRAUD, **V3, "pod": "p0"}
    grows = {"series": selector("coalmine_model_memory_bytes", {**of, "kind": "rss"}), "values": f"40+0.3333x{MINUTES}"}
    limit = gauge("coalmine_model_memory_bytes", 100, of, {"kind": "limit"})
    found = {
        "coalmine:resource_limited:bool": [
            ({**RECORDED, "reason": "memory"}, 0), ({**RECORDED, "reason": "memory_growth"}, 1),
        ]
    }  # fmt: skip
    assert differences(tmp_path, EVERYTHING, "service", [grows, limit], found) == ""


def weeks(per_second: Sequence[float]) -> list[Series]:
    """Requests of a pod each week, five minutes a sample."""
    steps = [f"{rate * 300!r}x{7 * 288 - 1}" for rate in per_second]
    total, values = 0.0, []
    for rate, _ in zip(per_second, steps, strict=True):
        values.append(f"{total!r}+{rate * 300!r}x{7 * 288 - 1}")
        total += rate * 300 * 7 * 288
    where = {**FRAUD, **V3, "role": "ingress", "outcome": "ok", "code": "200", "pod": "p0"}
    return [{"series": selector("coalmine_requests_total", where), "values": " ".join(values)}]


@needs_promtool
def test_throughput_against_last_week(tmp_path: Path) -> None:
    (service,) = (group for group in groups(EVERYTHING) if group["name"].endswith(".service"))
    rules = [rule for rule in service["rules"] if rule.get("record", "").startswith("coalmine:throughput:")]
    own = selector("coalmine:throughput:week_ratio", OWN)
    shown = selector("", {**OWN, "model": "fraud"})
    tests = [
        {"expr": f"abs({own} - 0.4) < bool 1e-6", "eval_time": "9d", "exp_samples": [{"labels": shown, "value": 1}]}
    ]
    scenario = {"interval": "5m", "input_series": weeks([2.0, 0.8]), "promql_expr_test": tests}
    assert run(tmp_path, [{**service, "rules": rules, "interval": "1h"}], scenario, step="1h") == ""

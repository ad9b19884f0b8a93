"""The counters as Prometheus metrics, made when a scrape asks for them.

Labels: `model`, `version`, `track` (as the routing file has them now) and `role`, which keeps a request that one
sidecar forwarded to another from counting twice. Never a path, a user or a request.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from .. import VERSION
from ..contract import OUTCOMES, REASONS
from ..families import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from ..monitoring import bin_names
from .counters import NO_CODE, Histogram, Series
from .generations import generation_metrics
from .histograms import add_histogram
from .outputs import OTHER, OutputCounter
from .store import RevisionCounters, Telemetry

_REVISION: Final = ("model", "version", "track")
_SERIES: Final = (*_REVISION, "role")

_HISTOGRAMS: Final[tuple[tuple[str, str, Callable[[Series], Histogram]], ...]] = (
    (
        "coalmine_request_duration_seconds",
        "From the first byte of a request to the last byte of its answer.",
        lambda s: s.duration,
    ),
    ("coalmine_upstream_duration_seconds", "What the model (or the pod asked) took of it.", lambda s: s.upstream),
    ("coalmine_overhead_seconds", "What the sidecar itself took of it.", lambda s: s.overhead),
    ("coalmine_request_size_bytes", "Bodies of requests.", lambda s: s.request_bytes),
    ("coalmine_response_size_bytes", "Bodies of answers.", lambda s: s.response_bytes),
)


class TelemetryCollector:
    """A Telemetry's metrics; prometheus_client takes it as a collector, too."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def collect(self) -> Iterator[Metric]:
        telemetry = self._telemetry
        model = telemetry.routing.model if telemetry.routing else ""
        revisions = [((model, r.version, r.track), r) for r in telemetry.revisions.values()]
        series = [((*labels, role), s) for labels, r in revisions for role, s in r.series.items()]
        ingress = [(labels, r.series["ingress"]) for labels, r in revisions if "ingress" in r.series]
        yield from _requests(series)
        yield from _observations(ingress)
        yield from generation_metrics(_REVISION, [(labels, s.generations) for labels, s in ingress])
        if any(s.watched is not None for _, s in ingress):
            from .watchedmetrics import watched_metrics  # for those who are monitored

            yield from watched_metrics(_REVISION, ingress)
        yield from _routing(telemetry, model, revisions)
        yield from _shadows(revisions)
        yield from _queue(telemetry, model)
        yield from _process(telemetry, model)


_Labels = tuple[str, ...]
_LabelledSeries = Sequence[tuple[_Labels, Series]]


def _requests(series: _LabelledSeries) -> Iterator[Metric]:
    total = _counter("coalmine_requests", "Requests by their final answer.", (*_SERIES, "outcome", "code"))
    in_flight = _gauge("coalmine_requests_in_flight", "Requests that are not answered yet.", _SERIES)
    refusals = _counter(
        "coalmine_refusals",
        "Answers in the sidecar's own name: who failed, and why.",
        (*_SERIES, "who", "code", "reason"),
    )
    for labels, s in series:
        for (who, code, why), count in s.refusals.items():
            refusals.add_metric((*labels, who, str(code), why), count)
        for (outcome, code), count in s.requests.items():
            total.add_metric((*labels, OUTCOMES[outcome], OTHER if code == NO_CODE else str(code)), count)
        in_flight.add_metric(labels, s.in_flight)
    yield total
    yield refusals
    yield in_flight
    for name, text, get in _HISTOGRAMS:
        family = HistogramMetricFamily(name, text, labels=_SERIES)
        for labels, s in series:
            add_histogram(family, labels, get(s))
        yield family


def _observations(ingress: _LabelledSeries) -> Iterator[Metric]:
    predictions = _counter("coalmine_predictions", "Rows of the answers read.", _REVISION)
    failures = _counter("coalmine_extract_failures", "Answers of which something was not read.", (*_REVISION, "reason"))
    skipped = _counter("coalmine_observations_skipped", "Answers that were not read at all.", (*_REVISION, "reason"))
    bins = _counter(
        "coalmine_output_bin",
        "Values of an output in each bin (not cumulative); missing: nulls and non-finite ones.",
        (*_REVISION, "output", "bin"),
    )
    classes = _counter("coalmine_output_class", "Labels that a model answered.", (*_REVISION, "output", "class"))
    for labels, s in ingress:
        predictions.add_metric(labels, s.predictions)
        _add_reasons(failures, labels, s.extract_failures)
        _add_reasons(skipped, labels, s.skipped)
        for name, counter in s.outputs.by_name.items():
            _add_output(bins, classes, (*labels, name), counter)
    return iter((predictions, failures, skipped, bins, classes))


def _add_output(
    bins: CounterMetricFamily, classes: CounterMetricFamily, labels: _Labels, counter: OutputCounter
) -> None:
    if counter.bins:
        for name, count in zip(bin_names(counter.edges), counter.bins, strict=True):
            bins.add_metric((*labels, name), count)
    bins.add_metric((*labels, "missing"), counter.missing)
    _add_reasons(classes, labels, counter.classes)


def _routing(
    telemetry: Telemetry, model: str, revisions: Sequence[tuple[_Labels, RevisionCounters]]
) -> Iterator[Metric]:
    decisions = _counter("coalmine_route_decisions", "Why requests went where they went.", (*_REVISION, "reason"))
    weight = _gauge("coalmine_route_weight", "Per cent of the requests that a revision shall get.", _REVISION)
    retries = _counter("coalmine_retries", "Requests sent again to the same revision.", (*_REVISION, "reason"))
    overflow = _counter(
        "coalmine_retry_overflow", "Requests not sent again because the retry budget was spent.", _REVISION
    )
    errors = _counter(
        "coalmine_upstream_connection_errors", "Connections to a revision that broke.", (*_REVISION, "kind")
    )
    state = _gauge("coalmine_breaker_state", "1 for the state that a revision's breaker is in.", (*_REVISION, "state"))
    opened = _counter("coalmine_breaker_opened", "How often a revision's breaker opened.", _REVISION)
    for labels, r in revisions:
        if r.breaker is not None:
            for name in ("closed", "half_open", "open"):
                state.add_metric((*labels, name), int(r.breaker.state == name))
            opened.add_metric(labels, r.breaker.opened)
        _add_reasons(decisions, labels, dict(zip(REASONS, r.decisions, strict=True)))
        weight.add_metric(labels, r.weight)
        _add_reasons(retries, labels, r.retries)
        overflow.add_metric(labels, r.retry_overflow)
        _add_reasons(errors, labels, r.connection_errors)
    fallbacks = _counter(
        "coalmine_fallbacks",
        "Requests that another revision answered than the one they were meant for.",
        ("model", "from_version", "to_version", "reason"),
    )
    for (source, target), reasons in telemetry.fallbacks.items():
        versions = (telemetry.revisions[source].version, telemetry.revisions[target].version)
        _add_reasons(fallbacks, (model, *versions), reasons)
    generation = telemetry.routing.generation if telemetry.routing else 0
    return iter(
        (
            decisions,
            weight,
            retries,
            overflow,
            errors,
            state,
            opened,
            fallbacks,
            _one("coalmine_routing_generation", "Generation of the routing file in force.", generation),
            CounterMetricFamily(
                "coalmine_routing_errors", "Routing files that could not be used.", value=telemetry.routing_errors
            ),
        )
    )


def _shadows(revisions: Sequence[tuple[_Labels, RevisionCounters]]) -> Iterator[Metric]:
    requests = _counter("coalmine_shadow_requests", "Copies of requests sent to a revision.", _REVISION)
    compared = _counter("coalmine_shadow_compared", "Answers to copies that were compared.", _REVISION)
    disagreements = _counter(
        "coalmine_shadow_disagreements",
        "Answers to copies that predicted something else than the answer that the client got.",
        (*_REVISION, "reason"),
    )
    dropped = _counter("coalmine_shadow_dropped", "Copies that were not sent, or not compared.", (*_REVISION, "reason"))
    for labels, r in revisions:
        shadow = r.shadow
        if shadow is not None:
            requests.add_metric(labels, shadow.requests)
            compared.add_metric(labels, shadow.compared)
            _add_reasons(disagreements, labels, shadow.disagreements)
            _add_reasons(dropped, labels, shadow.dropped)
    return iter((requests, compared, disagreements, dropped))


def _queue(telemetry: Telemetry, model: str) -> Iterator[Metric]:
    queue = telemetry.queue
    if queue is None:
        return
    own = telemetry.revisions[telemetry.revision]
    labels = (model, own.version, own.track)
    depth = _gauge("coalmine_queue_depth", "Requests that wait for their turn at the pod's model.", _REVISION)
    depth.add_metric(labels, queue.depth)
    yield depth
    wait = HistogramMetricFamily("coalmine_queue_wait_seconds", "For how long requests waited.", labels=_REVISION)
    add_histogram(wait, labels, queue.wait)
    yield wait
    away = _counter(
        "coalmine_queue_turned_away", "Requests that the queue had no room or no time for.", (*_REVISION, "reason")
    )
    _add_reasons(away, labels, queue.turned_away)
    yield away


def _process(telemetry: Telemetry, model: str) -> Iterator[Metric]:
    yield _one("coalmine_draining", "1 while the sidecar is on its way out.", int(telemetry.draining))
    build = _gauge("coalmine_build_info", "The sidecar's version.", ("version", "python_version"))
    build.add_metric((VERSION, platform.python_version()), 1)
    yield build
    own = telemetry.revisions[telemetry.revision]
    labels = (model, own.version, own.track)
    warmups = _counter(
        "coalmine_warmup_requests", "Requests of the warm-up, by how they ended.", (*_REVISION, "outcome")
    )
    _add_reasons(warmups, labels, telemetry.warmups)
    yield warmups
    resources = telemetry.resources
    if resources is None:
        return
    memory = _gauge("coalmine_model_memory_bytes", "Of the model's processes.", (*_REVISION, "kind"))
    memory.add_metric((*labels, "rss"), resources.memory_bytes)
    if resources.memory_limit_bytes:
        memory.add_metric((*labels, "limit"), resources.memory_limit_bytes)
    yield memory
    cpu = _counter("coalmine_model_cpu_seconds", "CPU time of the model's processes.", _REVISION)
    cpu.add_metric(labels, resources.cpu_seconds)
    yield cpu
    if resources.cpu_limit_cores:
        limit = _gauge("coalmine_model_cpu_limit_cores", "Cores that the model may use.", _REVISION)
        limit.add_metric(labels, resources.cpu_limit_cores)
        yield limit


def _counter(name: str, text: str, labels: Iterable[str]) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, labels=tuple(labels))


def _gauge(name: str, text: str, labels: Iterable[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=tuple(labels))


def _one(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _add_reasons(family: CounterMetricFamily, labels: _Labels, counts: dict[str, int]) -> None:
    for reason, count in counts.items():
        family.add_metric((*labels, reason), count)

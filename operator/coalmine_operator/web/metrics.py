"""The operator's own metrics, in a registry of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..api.conditions import AVAILABLE
from ..api.status import Phase
from ..engine.monitored import DeploymentMonitored
from .gauges import MonitoredGauges, pieces
from .view import DeploymentView

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST


class _ApiCalls(Collector):
    def __init__(self, calls: Mapping[tuple[str, int], int]) -> None:
        self._calls = calls

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(
            "coalmine_operator_api_calls", "Calls of the API server by method and status.", labels=["method", "code"]
        )
        for (method, code), count in sorted(self._calls.items()):
            family.add_metric([method, str(code)], count)
        yield family


class _Deployments(Collector):
    """Made anew at every scrape: series that stay would be 9 kB of memory a deployment."""

    def __init__(self) -> None:
        self.views: Iterable[DeploymentView] = ()

    def collect(self) -> Iterable[Metric]:
        phases = GaugeMetricFamily(
            "coalmine_deployment_phase",
            "1 for the phase a model deployment is in.",
            labels=["namespace", "name", "phase"],
        )
        availability = GaugeMetricFamily(
            "coalmine_deployment_available",
            "1 while some version of a model deployment answers requests, 0 if none does; missing if none shall.",
            labels=["namespace", "name"],
        )
        for view in self.views:
            wanted = any(track.desired for track in (view.status.stable, view.status.canary) if track)
            if wanted:
                available = any(c.type == AVAILABLE and c.status == "True" for c in view.status.conditions)
                availability.add_metric([view.namespace, view.name], available)
            for phase in get_args(Phase):
                phases.add_metric([view.namespace, view.name, phase], phase == view.status.phase)
        yield phases
        yield availability


class Metrics:
    """Series are bounded: by fixed words, and by the model deployments there are."""

    def __init__(self, *, api_calls: Mapping[tuple[str, int], int] | None = None) -> None:
        """`api_calls`: of the API server by method and status, 0 where it was not reached; read at every scrape."""
        self.registry = CollectorRegistry()
        if api_calls is not None:
            self.registry.register(_ApiCalls(api_calls))
        self._reconciles = Counter(
            "coalmine_operator_reconciles", "Reconciles by result.", ["result"], registry=self.registry
        )
        self._duration = Histogram(
            "coalmine_operator_reconcile_duration_seconds",
            "Duration of a reconcile.",
            registry=self.registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        )
        self._rollbacks = Counter("coalmine_operator_rollbacks", "Rollbacks begun.", registry=self.registry)
        self._alerts = Counter(
            "coalmine_operator_alerts_received",
            "Alerts of the webhook by what became of them.",
            ["result"],
            registry=self.registry,
        )
        self._deployments = _Deployments()
        self.registry.register(self._deployments)
        self._monitored = MonitoredGauges()
        for result in ("ok", "error"):
            self._reconciles.labels(result)
        for result in ("matched", "unmatched", "unattributed", "refused"):
            self._alerts.labels(result)

    def reconciled(self, seconds: float, *, ok: bool) -> None:
        self._reconciles.labels("ok" if ok else "error").inc()
        self._duration.observe(seconds)

    def rolled_back(self) -> None:
        self._rollbacks.inc()

    def alerts(self, *, matched: int = 0, unmatched: int = 0, unattributed: int = 0, refused: int = 0) -> None:
        """`refused`: webhooks that could not be read or taken, whatever they held."""
        self._alerts.labels("matched").inc(matched)
        self._alerts.labels("unmatched").inc(unmatched)
        self._alerts.labels("unattributed").inc(unattributed)
        self._alerts.labels("refused").inc(refused)

    def render(self, views: Iterable[DeploymentView], monitored: Iterable[DeploymentMonitored] = ()) -> bytes:
        """The text format; series of deployments are those of `views` and `monitored` and of nothing that went."""
        self._deployments.views = views
        try:
            return generate_latest(self.registry) + self._monitored.render(monitored)
        finally:
            self._deployments.views = ()

    def pieces(
        self, views: Iterable[DeploymentView], monitored: Iterable[DeploymentMonitored] = ()
    ) -> Iterator[list[Metric]]:
        """What `render` writes, some at a time: of thousands of revisions nobody needs all at once."""
        self._deployments.views = views
        try:
            own = list(self.registry.collect())
        finally:
            self._deployments.views = ()
        yield own
        yield from pieces(monitored)

"""Everything that sidecars and operators tell Prometheus, by name, with its labels: from the real collectors."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from tests.unit.test_web_metrics import view

from coalmine_operator.analysis.monitored import Drifted, RunLength, Watched
from coalmine_operator.api.baseline import Baseline, Figure, Numeric, Performance, for_sidecar
from coalmine_operator.engine import BaselineState
from coalmine_operator.engine.monitored import DeploymentMonitored, RevisionMonitored
from coalmine_operator.web.metrics import Metrics
from coalmine_sidecar.contract import Resources, Routing
from coalmine_sidecar.feedback.counts import FeedbackCounts, feedback_metrics
from coalmine_sidecar.feedback.predicted import Predicted
from coalmine_sidecar.payload.counters import Counters, payload_metrics
from coalmine_sidecar.telemetry import Telemetry
from coalmine_sidecar.telemetry.render import TelemetryCollector

NUMBERS: Final = Numeric(edges=(0.2, 0.5), counts=(10, 20, 30), mean=0.4, stddev=0.2, min=0.0, max=1.0)
BASELINE: Final = Baseline(
    schema=1, model="fraud", version="v1", task="binary", rows=60, features={"age": NUMBERS},
    outputs={"score": NUMBERS},
    performance=Performance(chunk_rows=10, metrics={"auc": Figure(value=0.9, mean=0.9, stddev=0.01)}),
)  # fmt: skip
#: Labels that Prometheus adds, or whoever scrapes.
SCRAPED: Final = frozenset({"namespace", "modeldeployment", "pod", "instance", "job"})


def exported() -> dict[str, frozenset[str]]:
    """Labels of each metric, by its name as PromQL has it; without those of SCRAPED."""
    found: dict[str, frozenset[str]] = {}
    for sample in (*_sidecars(), *_operators()):
        found[sample.name] = found.get(sample.name, frozenset()) | frozenset(sample.labels)
    return found


def _sidecars() -> Iterator[Sample]:
    for task in ("binary", "regression"):
        telemetry = Telemetry(pod="pod", revision="a")
        telemetry.configure(_routing(task))
        telemetry.resources = Resources(memory_bytes=1, memory_limit_bytes=2, cpu_seconds=1.0, cpu_limit_cores=1.0)
        telemetry.fallback("a", "b", "refused")
        series = telemetry.series("a", "ingress")
        series.outputs.by_name["score"].add("a label")
        assert series.watched
        rows = Predicted("id", "a", 0.0, [0.7], [None], [["f"]])
        series.watched.performance.predicted(rows)
        series.watched.performance.labelled(rows, ["1"], 1.0)
        series.watched.performance.outcome("clicked", 1.0)
        for family in TelemetryCollector(telemetry).collect():
            yield from family.samples
            # Some have no series before the first request: what they are called is known.
            if not family.samples:
                yield from (Sample(family.name + suffix, {}, 0.0) for suffix in _SUFFIXES[family.type])
    for family in (*feedback_metrics("fraud", FeedbackCounts(), pending=0, held=0), *payload_metrics(Counters())):
        yield from family.samples


_SUFFIXES: Final = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}


def _routing(task: str) -> Routing:
    baseline = json.loads(msgspec.json.encode(for_sidecar(BASELINE, "sha256:1")))
    if task == "binary":
        baseline["score"] = {"edges": [0.5], "calibration": [0.1, 0.8]}
    monitoring: dict[str, Any] = {
        "task": task,
        "features": [{"name": "age"}],
        "slices": [{"attribute": "sex", "path": "sex"}] if task == "binary" else [],
        "feedback": {},
        "baselines": {"a": baseline},
    }
    revisions = [
        {"name": name, "version": name, "track": track, "weight": weight}
        for name, track, weight in (("a", "canary", 10), ("b", "stable", 90))
    ]
    document = {
        "deployment": "fraud", "model": "fraud", "generation": 1, "revisions": revisions, "monitoring": monitoring,
    }  # fmt: skip
    return msgspec.convert(document, Routing)


def _operators() -> Iterator[Sample]:
    column = Drifted(
        kind="output", name="score", rows=100, log_e=1.0,
        run_length=RunLength(since=0.0, start=(0, 0), windows=1, log_r=1.0),
    )  # fmt: skip
    feature = msgspec.structs.replace(column, kind="feature", name="age")
    state = BaselineState(digest="sha256:1", baseline=BASELINE)
    watched = Watched(digest="sha256:1", columns=(column, feature))
    one = RevisionMonitored(revision="fraud-1", version="v1", baseline=state, watched=watched)
    monitored = DeploymentMonitored(namespace="shop", model="fraud", threshold=math.log(2880), revisions=(one,))
    text = Metrics().render([view(available=True, desired=1)], [monitored]).decode()
    for family in text_string_to_metric_families(text):
        yield from family.samples

"""What no single field can say: rules over fields that are sound by themselves.

Each takes one decoded part and yields problems as (path within the part, message). The walker asks them part by part,
so a slip in one place hides none in another.
"""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Mapping
from typing import Any, Final

from coalmine_sidecar.contract import MAX_THRESHOLDS, MAX_WARMUP_BYTES

from .checks import CONTROL, Found, object_name, token, unique
from .duration import Duration
from .monitoring import BASELINE
from .monitoring_alerts import OF_LATENCY
from .monitoring_rules import MONITORING_RULES
from .problems import index_path, show
from .spec import (
    Affinity,
    AlertMatch,
    Analysis,
    Baseline,
    Canary,
    CircuitBreaker,
    Fallback,
    HeaderMatch,
    Metric,
    Model,
    ModelDeploymentSpec,
    ModelTls,
    RetryBudget,
    Step,
    Tls,
    WarmupRequest,
)
from .walk import Rule
from .warmup import warmup_text

#: Headers of a connection and of a body's framing.
_FRAMING = frozenset(
    ("connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade")
)


def model(part: Model) -> Found:
    if part.timeout <= 0:
        yield "timeout", f"{part.timeout} is not over 0s"
    if part.queue_depth is not None and not part.container_concurrency:
        yield "queueDepth", "has no meaning without a limit: give containerConcurrency"
    size = len(warmup_text(part).encode())
    if size > MAX_WARMUP_BYTES:
        remedy = "give smaller bodies, or fewer of them"
        yield "warmup", f"takes {size} bytes as JSON, at most {MAX_WARMUP_BYTES} are allowed: {remedy}"


def warmup_request(part: WarmupRequest) -> Found:
    if not re.fullmatch(r"/[!-~]*", part.path) or "#" in part.path:
        yield "path", f"{show(part.path)} is no path: begin with / and write what is not ASCII as %XX"
    if part.timeout <= 0:
        yield "timeout", f"{part.timeout} is not over 0s"
    if part.body and part.body_base64:
        yield "bodyBase64", "stands beside body: give one of them"
    try:
        base64.b64decode(part.body_base64, validate=True)
    except ValueError:
        yield "bodyBase64", f"{show(part.body_base64)} is no base64: write what `base64 -w0 FILE` prints"
    for index, header in enumerate(part.headers):
        if header.name.lower() in _FRAMING:
            yield f"{index_path('headers', index)}.name", f"{show(header.name)} is for the sidecar to say: leave it out"


def model_tls(part: ModelTls) -> Found:
    if bool(part.cert_file) != bool(part.key_file):
        yield "keyFile" if part.cert_file else "certFile", "missing: a certificate and its key belong together"
    if part.insecure_skip_verify and part.ca_file:
        yield "insecureSkipVerify", "true asks no authority: leave caFile out, or this"
    yield from object_name("secretName", part.secret_name, "Secret")


def tls(part: Tls) -> Found:
    yield from object_name("secretName", part.secret_name, "Secret")


def step(part: Step) -> Found:
    fields = {"setWeight": part.set_weight, "setMirror": part.set_mirror, "pause": part.pause}
    given = [name for name, value in fields.items() if value is not None]
    if not given:
        yield (
            "",
            "is empty: give setWeight, setMirror or pause "
            "(`pause: {}` waits for `coalmine resume`; in a cluster: annotation coalmine.dev/resume)",
        )
    elif len(given) > 1:
        yield "", f"has {' and '.join(given)}: make {'two' if len(given) == 2 else 'three'} steps of them"


def canary(part: Canary) -> Found:
    """Weights grow, and nothing waits for requests that cannot come.

    Steps that only pause are allowed: at weight 0 a canary still gets header matches, for people who look at it
    before they let it go to 100 %.
    """
    weight = mirror = 0
    for index, one in enumerate(part.steps):
        path = index_path("steps", index)
        if one.set_weight is not None:
            if one.set_weight < weight:
                yield f"{path}.setWeight", f"{one.set_weight} is under the {weight} before it; steps may only grow"
            weight = max(weight, one.set_weight)
        elif one.set_mirror is not None:
            mirror = one.set_mirror
            if weight:
                yield f"{path}.setMirror", f"comes after setWeight {weight}: mirror before the canary gets users"
        elif one.pause and one.pause.requests is not None and not weight and not mirror:
            yield (
                f"{path}.pause.requests",
                "waits for ever: the canary's weight is still 0; put a setWeight or setMirror before it",
            )


def header_match(part: HeaderMatch) -> Found:
    yield from token("name", part.name)
    if CONTROL.search(part.value):
        yield "value", f"{show(part.value)} holds a control character, which no header can have"


def affinity(part: Affinity) -> Found:
    if (part.header is None) == (part.cookie is None):
        yield "", "give a header or a cookie, one of them"
    for name, value in (("header", part.header), ("cookie", part.cookie)):
        if value is not None:
            yield from token(name, value)


def fallback(part: Fallback) -> Found:
    if not part.version:
        yield "version", "is empty: write previous, or a version and its template"
    elif part.version == "previous" and part.template is not None:
        yield "version", "previous has no template of its own: name the template's version, or leave the template out"
    elif part.version != "previous" and part.template is None:
        yield "template", f"missing: version {show(part.version)} needs one; only previous goes without"
    if part.template is not None:
        yield from _template("template", part.template)


def circuit_breaker(part: CircuitBreaker) -> Found:
    if not part.consecutive_failures and not part.success_rate:
        yield "", "never opens: give consecutiveFailures or successRate"
    for name, value in (
        ("window", part.window), ("minBackoff", part.min_backoff), ("maxBackoff", part.max_backoff)
    ):  # fmt: skip
        if value <= 0:
            yield name, f"{value} is not over 0s"


def retry_budget(part: RetryBudget) -> Found:
    if part.window <= 0:
        yield "window", f"{part.window} is not over 0s"


def baseline(part: Baseline) -> Found:
    for index, (low, high) in enumerate(itertools.pairwise(part.edges)):
        if low >= high:
            yield index_path("edges", index + 1), f"{show(high)} is not over the {show(low)} before it; edges ascend"
    if len(part.counts) != len(part.edges) + 1:
        wanted = len(part.edges) + 1
        yield "counts", f"has {len(part.counts)} entries: {len(part.edges)} edges cut {wanted} bins, so give {wanted}"
    elif not any(part.counts):
        yield "counts", "are all 0: a baseline needs data"


def metric(part: Metric) -> Found:
    match part.preset:
        case None:
            yield "preset", "missing: write errorRate, latency, outputDrift or shadowDisagreement"
        case "latency":
            yield from _latency(part.threshold)
        case "errorRate":
            yield from _number(part.threshold, 0, 1, "a share from 0 to 1, such as 0.01")
        case "outputDrift":
            yield from _number(part.threshold, 0, 100, "a population stability index over 0, such as 0.2", over=True)
        case "shadowDisagreement":
            yield from _number(part.threshold, 0, 1, "a share over 0 and under 1, such as 0.05", over=True, under=True)
    if part.tolerance is not None and part.preset != "shadowDisagreement":
        yield "tolerance", "has no meaning here: only preset shadowDisagreement takes it"
    if part.output is not None and part.preset not in ("outputDrift", "shadowDisagreement"):
        yield "output", "has no meaning here: only presets outputDrift and shadowDisagreement take it"
    if part.preset == "outputDrift":
        yield from _baselines(part)
    else:
        if part.baseline:
            yield "baseline", "has no meaning here: only preset outputDrift takes it"
        if part.against != "stable":
            yield "against", "only preset outputDrift can be compared with a baseline"


def analysis(part: Analysis) -> Found:
    if part.interval <= 0:
        yield "interval", f"{part.interval} is not over 0s"
    yield from unique("metrics", "name", [one.name for one in part.metrics])
    thresholds = {str(one.threshold) for one in part.metrics if one.preset == "latency"}
    shadows = [index for index, one in enumerate(part.metrics) if one.preset == "shadowDisagreement"]
    if len(shadows) > 1:
        yield index_path("metrics", shadows[1]), "is a second shadowDisagreement: answers are compared in one way only"
    if len(thresholds) > MAX_THRESHOLDS:
        yield "metrics", f"{len(thresholds)} different latency thresholds, at most {MAX_THRESHOLDS} are allowed"


def alert_match(part: AlertMatch) -> Found:
    if part.name is None and not part.match_labels:
        yield "", "matches every alert: give a name or matchLabels"


def spec(part: ModelDeploymentSpec) -> Found:
    yield from _template("template", part.template)
    own = part.fallback if part.fallback and part.fallback.template is not None else None
    if own and own.version == part.model.version and own.template != part.template:
        yield (
            "fallback.version",
            f"{show(own.version)} is also spec.model.version: another template needs another version",
        )
    yield from _mirrored(part)
    yield from _monitored(part)


def _mirrored(part: ModelDeploymentSpec) -> Found:
    """A mirror and the metric that judges it; the metric alone would be Unknown for ever."""
    mirrors = [index for index, one in enumerate(part.strategy.canary.steps) if one.set_mirror]
    asked = [i for i, one in enumerate(part.analysis.metrics) if one.preset == "shadowDisagreement"]
    if mirrors and not part.model.idempotent:
        path = f"{index_path('strategy.canary.steps', mirrors[0])}.setMirror"
        yield path, "sends requests twice, and spec.model.idempotent is false"
    if asked and not mirrors:
        path = f"{index_path('analysis.metrics', asked[0])}.preset"
        yield path, "compares nothing: put a setMirror into spec.strategy.canary.steps"


def _monitored(part: ModelDeploymentSpec) -> Found:
    """The verdict on a baseline stands among those of the metrics; what alerts do has to be possible."""
    if part.monitoring is None:
        return
    for index, one in enumerate(part.analysis.metrics):
        if one.name == BASELINE and part.monitoring.baseline is not None:
            path = f"{index_path('analysis.metrics', index)}.name"
            yield path, f"{show(one.name)} is the name of the verdict on spec.monitoring.baseline: take another one"
    overrides = part.monitoring.alerts.overrides
    slow = any(one.preset == "latency" for one in part.analysis.metrics) or any(
        one.name == OF_LATENCY[0] and one.threshold is not None for one in overrides
    )
    for index, override in enumerate(overrides):
        path = index_path("monitoring.alerts.overrides", index)
        if override.enabled is False:
            continue
        if override.action == "fallback" and part.fallback is None:
            yield f"{path}.action", "fallback: there is none that could answer: give spec.fallback"
        if override.name in OF_LATENCY and not slow:
            remedy = f"give spec.analysis a latency metric, or {OF_LATENCY[0]} a threshold"
            yield f"{path}.name", f"{show(override.name)} is never told, since nothing says what is slow: {remedy}"


RULES: Final[Mapping[type, Rule]] = {
    Affinity: affinity,
    AlertMatch: alert_match,
    Analysis: analysis,
    Baseline: baseline,
    Canary: canary,
    CircuitBreaker: circuit_breaker,
    Fallback: fallback,
    HeaderMatch: header_match,
    Metric: metric,
    Model: model,
    ModelDeploymentSpec: spec,
    ModelTls: model_tls,
    RetryBudget: retry_budget,
    Step: step,
    Tls: tls,
    WarmupRequest: warmup_request,
    **MONITORING_RULES,
}


def _latency(threshold: str | float | None) -> Found:
    remedy = "write the time over which a request is slow, such as 250ms"
    if threshold is None:
        yield "threshold", f"missing: {remedy}"
    elif not isinstance(threshold, str):
        yield "threshold", f"{show(threshold)} has no unit: {remedy}"
    else:
        try:
            if Duration.parse(threshold) <= 0:
                yield "threshold", f"{threshold} is not over 0s"
        except ValueError as error:
            yield "threshold", f"{show(threshold)} {error}"


def _number(
    threshold: str | float | None, low: float, high: float, kind: str, *, over: bool = False, under: bool = False
) -> Found:
    if threshold is None:
        return
    excluded = ((low,) if over else ()) + ((high,) if under else ())
    if isinstance(threshold, str) or not low <= threshold <= high or threshold in excluded:
        yield "threshold", f"{show(threshold)} is not {kind}"


def _baselines(part: Metric) -> Found:
    outputs = [one.output for one in part.baseline]
    yield from unique("baseline", "output", outputs)
    if part.against == "baseline":
        if not outputs:
            yield "baseline", "missing: against baseline needs edges and counts of an output"
        elif part.output is not None and part.output not in outputs:
            yield "output", f"{show(part.output)} has no baseline here"
    elif outputs:
        yield "against", "stable does not read the baseline: write against: baseline, or leave the baseline out"


def _template(path: str, template: Mapping[str, Any]) -> Found:
    """Only what Coalmine needs; everything else of a pod template is Kubernetes' to judge."""
    inner = template.get("spec")
    if not isinstance(inner, dict):
        yield f"{path}.spec", "missing: a template is a pod's, with spec.containers"
        return
    containers = inner.get("containers")
    where = f"{path}.spec.containers"
    if not isinstance(containers, list) or not containers:
        yield where, "missing: give a list with the model's container"
        return
    names = []
    for index, container in enumerate(containers):
        if not isinstance(container, dict):
            yield index_path(where, index), f"{show(container)} is no mapping"
        elif not isinstance(container.get("name"), str) or not container["name"]:
            yield f"{index_path(where, index)}.name", "missing: every container has a name"
        else:
            names.append(container["name"])
    if len(names) == len(containers):
        yield from unique(where, "name", names)

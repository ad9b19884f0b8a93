"""`ModelDeployment.spec`, as frozen types. Field names are camelCase on the wire; defaults are the CRD's.

Reading a manifest goes through `decode.py`, which finds every problem and names its path.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from coalmine_sidecar.contract import MAX_WARMUPS

from .duration import Duration
from .monitoring import Monitoring
from .parts import FileName, Name, Percent, Port, SecretName, SpecPart, Text, VersionName

GROUP = "coalmine.dev"
API_VERSION = f"{GROUP}/v1alpha1"
KIND = "ModelDeployment"


class HeaderMatch(SpecPart, frozen=True):
    name: Text
    value: Annotated[str, Meta(max_length=4096)]


class WarmupRequest(SpecPart, frozen=True):
    """A request that the model answers with `status`, `repeat` times in a row, before its pod is ready."""

    path: Annotated[str, Meta(min_length=1, max_length=2048)]
    method: Literal["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"] = "POST"
    headers: Annotated[tuple[HeaderMatch, ...], Meta(max_length=16)] = ()
    body: Annotated[str, Meta(max_length=65536)] = ""
    body_base64: Annotated[str, Meta(max_length=65536)] = ""
    repeat: Annotated[int, Meta(ge=1, le=1000)] = 1
    timeout: Duration = Duration(60)
    status: Annotated[int, Meta(ge=200, le=599)] = 200


class ModelTls(SpecPart, frozen=True):
    """TLS towards the model. Files are paths; on Kubernetes keys of the Secret `secret_name`."""

    secret_name: SecretName = ""
    ca_file: FileName = ""  # default: the system's authorities
    cert_file: FileName = ""  # shown to a model that asks for it, with the key
    key_file: FileName = ""
    server_name: Text = "localhost"
    insecure_skip_verify: bool = False


class Tls(SpecPart, frozen=True):
    """Mutual TLS between the sidecars: a Secret with ca.crt, tls.crt and tls.key, as cert-manager makes them."""

    secret_name: Annotated[SecretName, Meta(min_length=1)]
    server_name: Annotated[str, Meta(max_length=253)] = ""  # default: NAME.NAMESPACE.svc


class Model(SpecPart, frozen=True):
    """Which model this is and how its container speaks."""

    name: Annotated[str, Meta(max_length=253)] = ""  # default: metadata.name
    version: VersionName = ""  # default: the revision's hash
    protocol: Literal["auto", "v1", "v2", "openai"] = "auto"
    port: Port = 8080
    grpc_port: Port | None = None  # default: gRPC is spoken on `port`
    idempotent: bool = True
    timeout: Duration = Duration(60)
    container_concurrency: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    queue_depth: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None  # default: 10 for each request at a time
    max_request_bytes: Annotated[int, Meta(ge=1, le=1 << 40)] = 32 << 20
    new_traces: Literal["sampled", "unsampled", "none"] = "sampled"
    warmup: Annotated[tuple[WarmupRequest, ...], Meta(max_length=MAX_WARMUPS)] = ()
    tls: ModelTls | None = None
    lineage: dict[str, Any] = field(default_factory=dict)


class Fallback(SpecPart, frozen=True):
    """Who answers when stable cannot: the previous stable revision, or a template of its own."""

    version: VersionName = "previous"
    template: dict[str, Any] | None = None
    replicas: Annotated[int, Meta(ge=1, le=1000)] = 1
    status_codes: Annotated[tuple[Annotated[int, Meta(ge=400, le=599)], ...], Meta(max_length=16)] = (502, 503, 504)
    max_request_bytes: Annotated[int, Meta(ge=0, le=16 << 20)] = 1 << 20


class CircuitBreaker(SpecPart, frozen=True):
    """When a revision is no longer asked, and its share goes to the fallback; after a backoff one request probes it.

    The names are those of Envoy, Istio and linkerd, whichever says it most plainly. `success_rate`: per cent of the
    requests in `window`, of which there have to be `min_requests`; 0 turns either rule off.
    """

    consecutive_failures: Annotated[int, Meta(ge=0, le=1_000_000)] = 5
    success_rate: Percent = 0
    min_requests: Annotated[int, Meta(ge=1, le=1_000_000)] = 20
    window: Duration = Duration(30)
    min_backoff: Duration = Duration(1)
    max_backoff: Duration = Duration(60)


class RetryBudget(SpecPart, frozen=True):
    """How many requests may be sent again to a revision: a share of those in `window` and a few each second."""

    percent: Percent = 20
    min_per_second: Annotated[int, Meta(ge=0, le=1_000_000)] = 10
    window: Duration = Duration(10)


class Pause(SpecPart, frozen=True):
    """Wait for a time, for a number of canary requests, for both, or (empty) until `resume`."""

    duration: Duration | None = None
    requests: Annotated[int, Meta(ge=1)] | None = None


class Step(SpecPart, frozen=True):
    """One step of a canary: exactly one of its fields is given.

    `set_mirror`: copies of this share of stable's requests go to the canary, until a weight takes their place.
    """

    set_weight: Percent | None = None
    set_mirror: Percent | None = None
    pause: Pause | None = None


class Match(SpecPart, frozen=True):
    """Requests with all of these headers go to the canary whatever its weight."""

    headers: Annotated[tuple[HeaderMatch, ...], Meta(min_length=1, max_length=16)]


class Affinity(SpecPart, frozen=True):
    """Keep the requests of one user on one revision, by a header or a cookie: exactly one of them."""

    header: Text | None = None
    cookie: Text | None = None


class Canary(SpecPart, frozen=True):
    steps: Annotated[tuple[Step, ...], Meta(max_length=100)] = ()
    affinity: Affinity | None = None
    match: Annotated[tuple[Match, ...], Meta(max_length=16)] = ()
    scale_down_delay: Duration = Duration(30)


class Strategy(SpecPart, frozen=True):
    canary: Canary = Canary()


class Baseline(SpecPart, frozen=True):
    """Frozen bins of one output: `counts` has one entry more than `edges` (below, between, at or above the last)."""

    output: Text
    edges: Annotated[tuple[float, ...], Meta(min_length=1, max_length=64)]
    counts: Annotated[tuple[Annotated[int, Meta(ge=0)], ...], Meta(min_length=2, max_length=65)]


class Metric(SpecPart, frozen=True):
    """One question to the evidence.

    `threshold` means, by preset: `latency`: a duration, requests slower than it are compared; `outputDrift`: the PSI
    that a drift must exceed (default 0.2); `errorRate`: by how much (a share) the canary's rate must exceed stable's
    (default 0); `shadowDisagreement`: the share of mirrored requests that may be answered otherwise (default 0.05).
    `query` is PromQL, judged by `thresholdRange`.
    """

    name: Name
    preset: Literal["errorRate", "latency", "outputDrift", "shadowDisagreement"] | None = None
    threshold: str | float | None = None
    output: Text | None = None  # outputDrift, shadowDisagreement: this one output; default: all of them
    tolerance: Annotated[float, Meta(ge=0, le=1)] | None = None  # shadowDisagreement: see contract.Mirror; default 0.05
    against: Literal["stable", "baseline"] = "stable"
    baseline: Annotated[tuple[Baseline, ...], Meta(max_length=8)] = ()
    initial_delay: Duration | None = None  # after the canary is ready; default: 120 s for latency, else 0


class Analysis(SpecPart, frozen=True):
    """`alpha` bounds the chance that a canary no worse than stable is rolled back, over all metrics and all looks."""

    interval: Duration = Duration(15)
    min_requests: Annotated[int, Meta(ge=1, le=100_000_000)] = 100
    alpha: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    on_inconclusive: Literal["Wait", "Pause", "Rollback"] = "Wait"
    metrics: Annotated[tuple[Metric, ...], Meta(max_length=20)] = (Metric(name="errors", preset="errorRate"),)


class AlertMatch(SpecPart, frozen=True):
    """An alert by its name, by labels, or by both."""

    name: Annotated[str, Meta(min_length=1, max_length=253)] | None = None
    match_labels: dict[str, str] = field(default_factory=dict)


class AutoRollback(SpecPart, frozen=True):
    alerts: Annotated[tuple[AlertMatch, ...], Meta(max_length=32)] = ()
    bake_time: Duration = Duration(3600)


class ModelDeploymentSpec(SpecPart, frozen=True):
    template: dict[str, Any]  # a pod template, passed on as it is
    model: Model = Model()
    replicas: Annotated[int, Meta(ge=0, le=1000)] = 1
    paused: bool = False
    tls: Tls | None = None
    fallback: Fallback | None = None
    circuit_breaker: CircuitBreaker | None = None
    retry_budget: RetryBudget = RetryBudget()
    strategy: Strategy = Strategy()
    analysis: Analysis = Analysis()
    auto_rollback: AutoRollback | None = None
    monitoring: Monitoring | None = None
    progress_deadline_seconds: Annotated[int, Meta(ge=1, le=86400 * 7)] = 600
    revision_history_limit: Annotated[int, Meta(ge=1, le=100)] = 10


class Metadata(Struct, frozen=True, kw_only=True, rename="camel"):
    """Only what Coalmine reads; the rest of Kubernetes' metadata is let through."""

    name: Name
    namespace: Name = "default"
    generation: int = 0
    uid: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class ModelDeployment(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    api_version: Literal["coalmine.dev/v1alpha1"]
    kind: Literal["ModelDeployment"]
    metadata: Metadata
    spec: ModelDeploymentSpec
    status: dict[str, Any] = field(default_factory=dict)

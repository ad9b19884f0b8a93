"""What operator and sidecar say to each other: the routing file one way, the snapshot the other way.

The operator knows nothing else of what the sidecar does; what both do alike it imports, too (`push`, `jsonpath`). Both
documents are JSON. The routing file is shared by all pods of a model deployment; who a sidecar is itself (its pod, its
revision, its model's address) stands on its command line. Weights are whole per cents.
"""

from __future__ import annotations

import base64
import itertools
import math
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from .monitoring import Monitored, Monitoring, problems

SCHEMA: Final = 1

#: `GET` on the admin port, asked by kubelet before it ends a model, with the sidecar's key in the header: answered when
#: nothing is under way any more.
DRAIN_PATH: Final = "/drain"
DRAIN_HEADER: Final = "Coalmine-Drain-Key"

#: Before an endpoint that speaks TLS.
SECURE: Final = "tls://"

#: Outcome of a request or an attempt; the order is the index into every array of counters.
OUTCOMES = ("ok", "client_error", "model_error", "timeout", "rejected", "cancelled")
#: Why a request went to the revision it went to. Only `weight` and `affinity` are drawn at random (or as good as),
#: so only they are compared by the analysis; a header match selects its users.
REASONS = ("weight", "affinity", "match", "local")
#: The roles a revision can play.
Track = Literal["stable", "canary", "fallback", "shadow", "retired"]

#: Bin edges of an output that has no baseline yet: tenths of a probability.
DEFAULT_EDGES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

MAX_OUTPUTS = 8
MAX_CLASSES = 20
MAX_EDGES = 64
MAX_THRESHOLDS = 8
#: Of a model's warm-up, and the bytes of all of them as they stand on the sidecar's command line.
MAX_WARMUPS = 16
MAX_WARMUP_BYTES = 65536
#: The newest epochs whose counts a sidecar keeps.
KEPT_EPOCHS = 4
#: The newest raw values a sidecar keeps of each output of a revision, from which the operator cuts bins.
KEPT_VALUES = 1000

#: What a request that belongs to no trace gets: a new one, marked as kept or as not kept by who began it, or none.
#: `sampled` by default: a model whose own tracing follows its parent (OpenTelemetry's default) keeps what it kept when
#: it had none; `unsampled` would end its traces without a word. One that keeps a ratio of its own would keep all, and
#: is what the field is for. It costs 2.5 to 3.5 of 64 us of CPU a request, of them 1 to 2 for `x-request-id`, which is
#: made in any case (client, sidecar and model in one process, 16 connections, interleaved rounds, 2026-11-22).
NewTraces = Literal["sampled", "unsampled", "none"]

Percent = Annotated[int, Meta(ge=0, le=100)]
PositiveFloat = Annotated[float, Meta(gt=0)]


class RevisionRoute(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """One revision as a sidecar sees it. `endpoints` are `host:port` of the pods' *local* ports.

    `tls://host:port` where they speak TLS. A part of the text and no field: a sidecar that knows nothing of it finds
    nobody there, and reads the rest of the file.
    """

    name: Annotated[str, Meta(min_length=1, max_length=253)]
    version: Annotated[str, Meta(max_length=128)]
    track: Track
    weight: Percent = 0
    endpoints: Annotated[tuple[str, ...], Meta(max_length=1000)] = ()


class HeaderMatch(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """An exact match of one request header; names compare without case."""

    name: Annotated[str, Meta(min_length=1, max_length=256)]
    value: Annotated[str, Meta(max_length=4096)]


class Match(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """All of `headers` hold: the request goes to `revision`."""

    revision: str
    headers: Annotated[tuple[HeaderMatch, ...], Meta(min_length=1, max_length=16)]


class Affinity(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Requests with the same value of a header or of a cookie stay on one revision. Exactly one is set.

    `salt` (the canary's revision) makes another share of the users the first ones in the next rollout.
    """

    header: str | None = None
    cookie: str | None = None
    salt: str = ""


class Fallback(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Who answers when the chosen revision does not: the first of `chain` that is another one and has an endpoint."""

    chain: Annotated[tuple[str, ...], Meta(max_length=4)] = ()
    status_codes: Annotated[tuple[int, ...], Meta(max_length=16)] = (502, 503, 504)


class CircuitBreaker(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """When a revision's share goes to the fallback without its being asked. Seconds and per cents.

    `consecutive_failures` 0: however many; `success_rate` 0: however few.
    """

    consecutive_failures: Annotated[int, Meta(ge=0)] = 5
    success_rate: Percent = 0
    min_requests: Annotated[int, Meta(ge=1)] = 20
    window: PositiveFloat = 30.0
    min_backoff: PositiveFloat = 1.0
    max_backoff: PositiveFloat = 60.0


class RetryBudget(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """How many requests may be sent again to the same revision, of those of the last `window` seconds."""

    percent: Percent = 20
    min_per_second: Annotated[float, Meta(ge=0)] = 10.0
    window: PositiveFloat = 10.0


class Concurrency(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Requests that a pod's model is given at a time, and that may wait for their turn."""

    limit: Annotated[int, Meta(ge=1)]
    queue_depth: Annotated[int, Meta(ge=0)]


class Timeouts(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Seconds. `response` bounds the wait for an answer's head, `idle` any silence inside a body or a tunnel."""

    connect: PositiveFloat = 1.0
    response: PositiveFloat = 60.0
    idle: PositiveFloat = 60.0
    keepalive: PositiveFloat = 75.0
    upstream_keepalive: PositiveFloat = 4.0


class Limits(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Bytes. A request body up to `replay_bytes` is held whole and can be sent again; a longer one streams."""

    head_bytes: Annotated[int, Meta(ge=1024, le=1 << 20)] = 65536
    body_bytes: Annotated[int, Meta(ge=1)] = 32 << 20
    replay_bytes: Annotated[int, Meta(ge=0, le=16 << 20)] = 1 << 20
    observe_bytes: Annotated[int, Meta(ge=0, le=16 << 20)] = 1 << 20


class Observe(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What to read from answers. `thresholds`: seconds; requests slower than each are counted in the epoch.

    `outputs`: frozen bin edges (ascending) by output name; outputs not named use `DEFAULT_EDGES`.
    """

    protocol: Literal["auto", "v1", "v2", "openai"] = "auto"
    thresholds: Annotated[tuple[PositiveFloat, ...], Meta(max_length=MAX_THRESHOLDS)] = ()
    outputs: dict[str, Annotated[tuple[float, ...], Meta(min_length=1, max_length=MAX_EDGES)]] = {}


class Mirror(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Of the requests that chance gave to `source` and that it answered, `percent` are copied to `target`.

    Two numbers agree that lie within `tolerance` times the largest of 1 and both; `output`: the one that is compared,
    empty: all of them.
    """

    source: str
    target: str
    percent: Annotated[int, Meta(ge=1, le=100)]
    tolerance: Annotated[float, Meta(ge=0, le=1)] = 0.05
    output: str = ""


class Routing(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The routing file.

    `generation` grows with every change. `epoch` names the stretch of a rollout in which shares and conditions do not
    change: counts for the analysis are kept by epoch and never pooled over them. `mirror` and `monitoring` are absent
    where nothing is mirrored or monitored: a sidecar from before there were such fields can go on reading the file.
    """

    schema: Literal[1] = SCHEMA
    deployment: str
    namespace: str = "default"
    model: str
    generation: Annotated[int, Meta(ge=0)]
    epoch: Annotated[str, Meta(max_length=128)] = ""
    idempotent: bool = True
    new_traces: NewTraces = "sampled"
    revisions: Annotated[tuple[RevisionRoute, ...], Meta(max_length=16)]
    match: Annotated[tuple[Match, ...], Meta(max_length=16)] = ()
    affinity: Affinity | None = None
    fallback: Fallback = Fallback()
    circuit_breaker: CircuitBreaker | None = None
    retry_budget: RetryBudget = RetryBudget()
    concurrency: Concurrency | None = None
    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()
    observe: Observe = Observe()
    mirror: Mirror | UnsetType = UNSET
    monitoring: Monitoring | UnsetType = UNSET


class RoutingError(ValueError):
    """A routing file that can't be used; the message is one line that says what is wrong where."""


def decode_routing(data: bytes) -> Routing:
    """Read and check a routing file.

    Raises RoutingError where the JSON, a type, a sum of weights, a name or an order of edges is wrong.
    """
    try:
        routing = msgspec.json.decode(data, type=Routing)
    except msgspec.MsgspecError as error:
        raise RoutingError(f"routing file: {error}") from error
    names = [r.name for r in routing.revisions]
    if len(set(names)) != len(names):
        raise RoutingError("routing file: revisions: a name stands twice")
    total = sum(r.weight for r in routing.revisions)
    if total != 100:
        raise RoutingError(f"routing file: revisions: weights sum to {total}, not to 100")
    mirror = routing.mirror
    mirrored = () if mirror is UNSET else (mirror.source, mirror.target)
    for name in (*routing.fallback.chain, *(m.revision for m in routing.match), *mirrored):
        if name not in names:
            raise RoutingError(f"routing file: {name} is no revision of this file")
    if mirror is not UNSET and mirror.source == mirror.target:
        raise RoutingError(f"routing file: mirror: {mirror.source} cannot be mirrored to itself")
    if routing.affinity and (routing.affinity.header is None) == (routing.affinity.cookie is None):
        raise RoutingError("routing file: affinity: give a header or a cookie, one of them")
    for output, edges in routing.observe.outputs.items():
        if not all(map(math.isfinite, edges)) or any(a >= b for a, b in itertools.pairwise(edges)):
            raise RoutingError(f"routing file: observe.outputs.{output}: edges must be finite and ascend")
    if routing.monitoring is not UNSET and (problem := next(problems(routing.monitoring), "")):
        raise RoutingError(f"routing file: {problem}")
    return routing


#: Fields that came after the first release: written only where they say something, for the sidecars that are older
#: than the operator refuse what they do not know.
_LATER: Final = ("newTraces", "circuitBreaker", "retryBudget", "concurrency")


def encode_routing(routing: Routing) -> bytes:
    document = msgspec.to_builtins(routing)
    for name in _LATER:
        if document[name] == _DEFAULTS[name]:
            del document[name]
    return msgspec.json.format(msgspec.json.encode(document), indent=1)


_DEFAULTS: Final[dict[str, Any]] = msgspec.to_builtins(Routing(deployment="", model="", generation=0, revisions=()))


class WarmupRequest(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """A request that the model has to answer with `status` before its pod is ready, `repeat` times in a row.

    At most one of `body` and `body_base64` is set; `timeout`: seconds for each answer as a whole. A body without a
    content type is JSON.
    """

    path: Annotated[str, Meta(min_length=1, max_length=2048)]
    method: Annotated[str, Meta(min_length=1, max_length=16)] = "POST"
    headers: Annotated[tuple[HeaderMatch, ...], Meta(max_length=16)] = ()
    body: str = ""
    body_base64: str = ""
    repeat: Annotated[int, Meta(ge=1, le=1000)] = 1
    timeout: PositiveFloat = 60.0
    status: Annotated[int, Meta(ge=200, le=599)] = 200

    @property
    def content(self) -> bytes:
        return base64.b64decode(self.body_base64) if self.body_base64 else self.body.encode()


def encode_warmup(requests: tuple[WarmupRequest, ...]) -> str:
    """One line of JSON, or nothing for none. Without a dollar sign: kubelet would take `$(NAME)` for a variable."""
    return msgspec.json.encode(requests).decode().replace("$", r"\u0024") if requests else ""


def decode_warmup(text: str) -> tuple[WarmupRequest, ...]:
    """What `encode_warmup` wrote. Raises ValueError with one line."""
    if not text:
        return ()
    try:
        requests = msgspec.json.decode(text, type=tuple[WarmupRequest, ...])
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    for request in requests:
        base64.b64decode(request.body_base64, validate=True)
    return requests


class OutputCounts(Struct, kw_only=True, rename="camel", omit_defaults=True):
    """Counts of one output in one epoch; one row of each request, drawn at random, so that requests are the units.

    `edges` are those in force, `bins` has one more entry than edges: below the first, between, at or above the last.
    `classes` counts labels (at most MAX_CLASSES names and `_other`); `missing` counts nulls and non-finite values.
    """

    edges: tuple[float, ...] = ()
    bins: list[int] = []
    classes: dict[str, int] = {}
    missing: int = 0


class EpochCounts(Struct, kw_only=True, rename="camel", omit_defaults=True):
    """Requests drawn for a revision in an epoch, charged to the revision chosen, whoever answered in the end.

    `requests`: completed (cancelled and rejected ones are not, but for those that a full queue or an open breaker kept
    from the revision); `errors`: these, model errors, timeouts, refused and broken connections; `client_errors`: 4xx of
    the model; `answered`: requests with a whole answer; `over`: those among `answered` that took longer than each of
    `Observe.thresholds` (end of stream). `compared`: answers to copies of another revision's requests that were
    compared with the answers to the requests themselves (`Mirror`); `disagreed`: those among them that predicted
    something else, or nothing.
    """

    requests: int = 0
    errors: int = 0
    client_errors: int = 0
    answered: int = 0
    thresholds: tuple[float, ...] = ()
    over: list[int] = []
    outputs: dict[str, OutputCounts] = {}
    compared: int = 0
    disagreed: int = 0


class RevisionTotals(Struct, kw_only=True, rename="camel", omit_defaults=True):
    """Since the sidecar's start, in its ingress role: final answers by outcome, the last one's age, raw values.

    `last_routed`: Unix seconds at which a request was last sent towards this revision by this sidecar.
    `monitored`: None where nothing is.
    """

    outcomes: dict[str, int] = {}
    in_flight: int = 0
    last_routed: float = 0.0
    values: dict[str, list[float]] = {}
    monitored: Monitored | None = None


class Resources(Struct, kw_only=True, rename="camel", omit_defaults=True):
    """Of the model's processes: resident bytes, CPU seconds since their start, and the limits (0: none)."""

    memory_bytes: int = 0
    cpu_seconds: float = 0.0
    memory_limit_bytes: int = 0
    cpu_limit_cores: float = 0.0


class Snapshot(Struct, kw_only=True, rename="camel"):
    """What a sidecar knows, for the operator: `GET /snapshot` on the admin port.

    `boot` differs after each start of the sidecar. `generation` and `weights` are the routing in force; `epochs` maps
    epoch -> revision -> counts; `fallbacks` counts requests answered by another revision, by `from>to`; `mirrors` are
    the per cents of requests that are copied to a revision. `not_ready`: what keeps the sidecar from being ready that
    only it can know (a warm-up, a certificate), in one line.
    """

    schema: Literal[1] = SCHEMA
    pod: str
    revision: str
    boot: str
    at: float
    generation: int
    weights: dict[str, int] = {}
    mirrors: dict[str, int] = {}
    routing_errors: int = 0
    draining: bool = False
    not_ready: str = ""
    epochs: dict[str, dict[str, EpochCounts]] = {}
    totals: dict[str, RevisionTotals] = {}
    fallbacks: dict[str, int] = {}
    model: Resources | None = None


def decode_snapshot(data: bytes) -> Snapshot:
    """Read a sidecar's answer. Raises msgspec.MsgspecError."""
    return msgspec.json.decode(data, type=Snapshot)

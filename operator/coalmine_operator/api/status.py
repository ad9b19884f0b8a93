"""`ModelDeployment.status`: all that the engine remembers. Times are Unix seconds in memory and on the local disk."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

Phase = Literal[
    "Pending", "Progressing", "Paused", "Promoting", "Baking", "Healthy", "RollingBack", "Degraded", "InvalidSpec"
]
VerdictName = Literal["Pass", "Fail", "Unknown"]

#: Bounds of the lists in a status.
MAX_HISTORY = 20
MAX_QUARANTINED = 20
MAX_ALERTS = 50
MAX_ORDERS = 20
MAX_EVENTS = 8


class _Status(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What all parts of the status share."""


class Condition(_Status, frozen=True):
    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    last_transition_time: float = 0.0
    observed_generation: int = 0


class TrackStatus(_Status, frozen=True):
    """One revision in its role."""

    revision: str
    version: str
    weight: int = 0
    ready: int = 0
    desired: int = 0


class Verdict(_Status, frozen=True):
    """What one metric says of the canary, and why.

    `statistic`: log of the e-value, summed over epochs; Fail needs `statistic >= threshold` (and an effect in the bad
    direction of the size the metric asks for). `evidence`: counts and effect sizes, plain numbers and short strings.
    """

    metric: str
    verdict: VerdictName
    reason: str = ""
    statistic: float = 0.0
    threshold: float = 0.0
    evidence: dict[str, Any] = {}


class Banked(_Status, frozen=True):
    """Evidence of epochs that are over: the sum of their log e-values and of their counts, by metric."""

    metric: str
    log_e: float = 0.0
    evidence: dict[str, Any] = {}


class AlertStatus(_Status, frozen=True):
    """An alert that fires now, as last heard."""

    fingerprint: str
    name: str
    labels: dict[str, str] = {}
    starts_at: float = 0.0
    received_at: float = 0.0
    resolved_at: float = 0.0  # kept for a while after it resolved, so that flapping is seen


class Rollout(_Status, frozen=True):
    """The attempt under way to make `revision` stable, or the promotion that is still baking.

    `epoch_at` marks when the present epoch began; `preexisting` are fingerprints of alerts that are not this
    revision's fault: they block, but never roll back. `waiting_at`: since when its pods are too few (0: they are
    enough); progressDeadlineSeconds counts from there.
    """

    id: int
    revision: str
    previous: str  # the stable revision it started from; empty for the first one
    started_at: float
    before: str = ""  # what `Status.previous` was at its start: comes back when a promotion is rolled back
    waiting_at: float = 0.0
    ready_at: float = 0.0
    step: int = 0
    step_at: float = 0.0
    step_requests: int = 0  # canary requests of this step in epochs that are over
    waived: int = -1  # the step whose pause or inconclusive verdict an order waived
    epoch: int = 0
    epoch_at: float = 0.0
    epoch_weight: int = 0
    epoch_mirror: int = 0
    weight: int = 0  # what the steps ask for
    mirror: int = 0  # of stable's requests, copies of how many: what the steps ask for
    banked: tuple[Banked, ...] = ()
    preexisting: tuple[str, ...] = ()
    held: Literal["", "order", "inconclusive"] = ""  # paused by whom
    full: bool = False  # an order to promote skips what is left of the steps
    promoting: bool = False  # past all gates: to full scale, then to full weight
    promoted_at: float = 0.0


class Quarantined(_Status, frozen=True):
    revision: str
    version: str
    reason: str
    at: float


class LastRollback(_Status, frozen=True):
    """`from`/`to` on the wire. `evidence`: the verdicts or the alert that decided it."""

    source: str
    target: str
    source_version: str
    target_version: str
    reason: str
    message: str
    at: float
    evidence: tuple[Verdict, ...] = ()
    alert: AlertStatus | None = None
    promoted: bool = False  # `source` had been promoted: `target` must be at full scale before it gets traffic
    shifted_at: float = 0.0  # when the weights were given to `target`
    done_at: float = 0.0  # when no sidecar in sight routed to `source` any more


class HistoryEntry(_Status, frozen=True):
    """One rollout that ended."""

    id: int
    revision: str
    version: str
    previous: str
    previous_version: str
    started_at: float
    ended_at: float
    result: Literal["Promoted", "RolledBack", "Withdrawn"]
    reason: str = ""
    message: str = ""
    verdicts: tuple[Verdict, ...] = ()
    alert: AlertStatus | None = None
    actor: str = ""


class Retiring(_Status, frozen=True):
    """A revision without a role whose pods still stand: they go some time after no sidecar routes to it."""

    revision: str
    replicas: int
    since: float = 0.0  # when no weight was in force any more; 0: some still is


class Told(_Status, frozen=True):
    """An event of a step that was saved. `at` tells it from all others of the model deployment."""

    reason: str
    message: str
    warning: bool = False
    at: float = 0.0


class Status(_Status, frozen=True):
    phase: Phase = "Pending"
    message: str = ""
    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()
    stable: TrackStatus | None = None
    canary: TrackStatus | None = None
    fallback: TrackStatus | None = None
    step: str = ""  # "2/5", for people
    rollout: Rollout | None = None
    verdicts: tuple[Verdict, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    last_rollback: LastRollback | None = None
    history: tuple[HistoryEntry, ...] = ()
    alerts: tuple[AlertStatus, ...] = ()
    bins: dict[str, tuple[float, ...]] = {}  # output edges, of stable's answers: see `Turn.begin` and `turn_epoch`
    previous: str = ""  # the stable revision before this one: where `fallback: previous` and a late rollback point
    retiring: tuple[Retiring, ...] = ()
    orders: tuple[str, ...] = ()  # ids of the newest orders taken that may come again after a crash
    events: tuple[Told, ...] = ()  # the newest: whoever dies before it told them tells them after
    rollouts: int = 0  # how many were started: the next one's id
    generation: int = 0  # of the routing file
    selector: str = ""
    replicas: int = 0

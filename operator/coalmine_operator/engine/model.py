"""What `step` reads beside spec and status, and what it answers: plain data, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from coalmine_sidecar.contract import EpochCounts, Track

from ..api.baseline import Baseline
from ..api.monitoring import BaselineRef
from ..api.spec import Model, Tls
from ..api.status import AlertStatus

Verb = Literal["promote", "rollback", "pause", "resume", "retry"]


class RevisionRecord(Struct, frozen=True, kw_only=True, rename="camel"):
    """A revision as it is kept: immutable, named by the hash of what it runs.

    Without a template it is what can still be told of a revision that runs though its record was deleted: `lost`.
    `baseline`: what its predictions are compared with. It is no part of what runs, and the one thing that changes: for
    the revision that the spec asks for, it is what the spec says now.
    """

    name: str
    version: str
    template: dict[str, Any]
    model: Model
    tls: Tls | None = None
    created_at: float = 0.0
    baseline: BaselineRef | None = None

    @property
    def lost(self) -> bool:
        """It runs on as it is; nothing of it can be made or changed."""
        return not self.template


class RevisionState(Struct, frozen=True, kw_only=True):
    """What the platform sees of one revision.

    `pods`: all that exist, starting and ending ones too; `ready`: those that can take requests; `failure`: why pods
    are not ready, with the last lines of their log, or empty.
    """

    record: RevisionRecord
    pods: int = 0
    ready: int = 0
    failure: str = ""


class Order(Struct, frozen=True, kw_only=True):
    """Somebody's will. `revision` guards against acting on another rollout than was meant; empty: the present one.

    `repeats`: it stands somewhere until it is taken away, and so it may come again after a crash: obeyed only once.
    """

    id: str
    verb: Verb
    revision: str = ""
    actor: str = ""
    repeats: bool = False


class BaselineState(Struct, frozen=True, kw_only=True):
    """What became of a revision's baseline: read and its own, or why not.

    `missing`: there is no such file; `unreadable`: there is one that cannot be used; `mismatch`: it is not the one that
    is meant, by its digest, or not this revision's, by its model and version. `message`: one line, where there is a
    problem. `baseline` and `digest`: of what was read, empty where there is a problem.
    """

    digest: str = ""
    problem: Literal["", "missing", "mismatch", "unreadable"] = ""
    message: str = ""
    baseline: Baseline | None = None


class Observed(Struct, frozen=True, kw_only=True):
    """The world, as last seen.

    `weights`: the largest weight that any sidecar in sight has in force, by revision (revisions with none are
    absent): what `plan.routing` asks for is true only when it shows here. `mirrors`: likewise, per cents of stable's
    requests whose copies go to a revision. `epochs`: counts summed over pods, by epoch
    name, then revision. `values`: raw outputs of the stable revision, by output. `alert_events`: what the webhook
    heard since the last step, `resolved_at` 0 for firing ones. `problems`: why the newest spec is not the one given
    here (the last good one), or empty. `refused`: what the platform cannot do for the deployment as a whole, such as
    the Service that clients ask: one line, or empty. `behind`: of ready pods whose sidecar does not route by the newest
    routing file, which one it is and what it does instead, a line each. `baselines`: by revision, of those that have
    one.
    """

    revisions: Mapping[str, RevisionState] = {}
    weights: Mapping[str, int] = {}
    mirrors: Mapping[str, int] = {}
    epochs: Mapping[str, Mapping[str, EpochCounts]] = {}
    values: Mapping[str, tuple[float, ...]] = {}
    alert_events: tuple[AlertStatus, ...] = ()
    orders: tuple[Order, ...] = ()
    problems: tuple[str, ...] = ()
    refused: str = ""
    behind: tuple[str, ...] = ()
    baselines: Mapping[str, BaselineState] = {}


class Route(Struct, frozen=True, kw_only=True):
    revision: str
    track: Track
    weight: int = 0


class RoutePlan(Struct, frozen=True, kw_only=True):
    """What the routing file shall say; endpoints are the platform's to fill in.

    `match`: the canary that header matches go to, or empty. `chain`: who answers when the chosen revision does not.
    `mirror`: per cents of the stable revision's requests whose copies go to the canary.
    """

    routes: tuple[Route, ...]
    epoch: str
    match: str = ""
    mirror: int = 0
    chain: tuple[str, ...] = ()
    bins: Mapping[str, tuple[float, ...]] = {}


class Event(Struct, frozen=True, kw_only=True):
    """A transition worth telling: becomes a Kubernetes Event or a line on the terminal."""

    reason: str
    message: str
    warning: bool = False


class Plan(Struct, frozen=True, kw_only=True):
    """The state to bring about: complete, not a difference, so that applying it twice does nothing.

    `records`: revisions to be kept; all others go. `replicas`: pods by revision (absent: 0). `wake_at`: when `step`
    has to look again even if nothing happens. `orders_done`: ids of the orders taken or refused; `refused`: why, by id.
    """

    records: tuple[RevisionRecord, ...] = ()
    replicas: Mapping[str, int] = {}
    routing: RoutePlan | None = None
    events: tuple[Event, ...] = ()
    wake_at: float | None = None
    orders_done: tuple[str, ...] = ()
    refused: Mapping[str, str] = {}

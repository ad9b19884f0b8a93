"""What the API tells of a model deployment, made of what the runtime knows."""

from __future__ import annotations

from coalmine_operator.api.spec import Metadata, Model, ModelDeploymentSpec
from coalmine_operator.api.status import Status, TrackStatus
from coalmine_operator.engine.model import Observed, RevisionRecord, RevisionState
from coalmine_operator.platforms.base import Desired
from coalmine_operator.runtime import View
from coalmine_operator.sources.snapshots import Traffic
from coalmine_operator.web.bridge import document


def state(name: str, *, pods: int = 1, ready: int = 1, failure: str = "") -> RevisionState:
    record = RevisionRecord(name=name, version=f"v{name[-1]}", template={}, model=Model())
    return RevisionState(record=record, pods=pods, ready=ready, failure=failure)


def test_roles_come_first_and_idle_revisions_are_left_out() -> None:
    status = Status(
        phase="Progressing",
        stable=TrackStatus(revision="r2", version="v2", weight=75),
        canary=TrackStatus(revision="r4", version="v4", weight=25),
        fallback=TrackStatus(revision="r2", version="v2"),  # stable's weight must not be lost to this second role
    )
    observed = Observed(
        revisions={
            "r0": state("r0", pods=0, ready=0),  # kept for a rollback, plays no part now
            "r1": state("r1"),  # is draining
            "r3": state("r3", pods=0, ready=0),  # gone, but a sidecar still routes to it
            "r4": state("r4", ready=0, failure="exit code 1"),
            "r2": state("r2", pods=2, ready=2),
        },
        weights={"r2": 75, "r4": 20, "r3": 5},
    )
    desired = Desired(
        metadata=Metadata(name="fraud"), spec=ModelDeploymentSpec(template={}), status=status, problems=("spec.x: no",)
    )
    traffic = {
        "r2": Traffic(
            outcomes={"ok": 90, "client_error": 4, "model_error": 3, "timeout": 2, "rejected": 1, "cancelled": 5},
            rps=9.5,
        )
    }
    view = View(key="shop/fraud", at=7.0, desired=desired, status=status, observed=observed, traffic=traffic)
    made = document(view, ingress="http://127.0.0.1:8008")

    assert (made.key, made.at, made.problems, made.ingress) == (
        "shop/fraud",
        7.0,
        ("spec.x: no",),
        "http://127.0.0.1:8008",
    )
    assert [(r.version, r.track, r.weight, r.in_force) for r in made.revisions] == [
        ("v2", "stable", 75, 75),
        ("v4", "canary", 25, 20),
        ("v1", "", 0, 0),
        ("v3", "", 0, 5),
    ]
    stable, canary, *_ = made.revisions
    assert (stable.requests, stable.errors, stable.rps, stable.pods, stable.ready) == (105, 6, 9.5, 2, 2)
    assert (canary.requests, canary.failure, canary.ready) == (0, "exit code 1", 0)

"""What is told of the predictions of a model deployment's revisions: their baselines, and how live data compares. Pure.

It decides nothing: alerts on it do, by rules that Prometheus evaluates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from coalmine_sidecar.monitoring import Monitored

from ..analysis.monitored import Watched, alarm_threshold, watch
from ..api.monitoring import BaselineRef
from ..api.spec import Metadata, ModelDeploymentSpec
from .model import BaselineState, Observed, RevisionState


class RevisionMonitored(Struct, frozen=True, kw_only=True):
    """One revision. `version`: as the sidecars' metrics name it. `watched`: None while its baseline cannot be used."""

    revision: str
    version: str
    baseline: BaselineState
    watched: Watched | None = None


class DeploymentMonitored(Struct, frozen=True, kw_only=True):
    """One model deployment. `threshold`: of log R, at which a run-length alarm is due (analysis.monitored)."""

    namespace: str
    model: str
    threshold: float
    revisions: tuple[RevisionMonitored, ...]


def look(
    before: DeploymentMonitored | None,
    spec: ModelDeploymentSpec,
    metadata: Metadata,
    observed: Observed,
    counted: Mapping[str, Monitored],
    now: float,
) -> DeploymentMonitored | None:
    """What is known after one more look at the sums `counted`, by revision; None where nothing has a baseline."""
    if spec.monitoring is None or not observed.baselines:
        return None
    known = {one.revision: one.watched for one in before.revisions} if before is not None else {}
    running = [state for state in observed.revisions.values() if state.pods]
    versions = _versions(running)
    found = []
    for state in running:
        name = state.record.name
        baseline = observed.baselines.get(name)
        if baseline is None:
            continue
        watched = None
        if baseline.baseline is not None:
            wanted = state.record.baseline or spec.monitoring.baseline or BaselineRef()
            watched = watch(
                known.get(name), baseline.baseline, baseline.digest, counted.get(name), now, least=wanted.min_samples
            )
        found.append(RevisionMonitored(revision=name, version=versions[name], baseline=baseline, watched=watched))
    return DeploymentMonitored(
        namespace=metadata.namespace,
        model=spec.model.name or metadata.name,
        threshold=alarm_threshold(float(spec.monitoring.drift.average_run_length)),
        revisions=tuple(found),
    )


def _versions(states: Iterable[RevisionState]) -> dict[str, str]:
    """By revision, its label: the version, with the name where a newer revision has the same."""
    labels: dict[str, str] = {}
    newest_first = sorted(states, key=lambda state: (-state.record.created_at, state.record.name))
    for record in (state.record for state in newest_first):
        label = record.version
        while label in labels.values():
            label = f"{label} ({record.name})"
        labels[record.name] = label
    return labels

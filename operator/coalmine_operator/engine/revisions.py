"""What a spec runs, named by its hash: two specs that run the same thing are the same revision."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from ..api.monitoring import BaselineRef
from ..api.spec import Metadata, ModelDeploymentSpec
from ..api.warmup import warmup_text
from .model import RevisionRecord, RevisionState


def _record(
    metadata: Metadata,
    template: dict[str, Any],
    spec: ModelDeploymentSpec,
    version: str,
    created_at: float,
    baseline: BaselineRef | None = None,
) -> RevisionRecord:
    model = spec.model
    name = model.name or metadata.name
    # Only what changes the running pod: a new timeout or lineage entry must not restart a model.
    identity: dict[str, Any] = {
        "template": template,
        "name": name,
        "version": version,
        "protocol": model.protocol,
        "port": model.port,
    }
    if model.grpc_port is not None:
        # Absent where it is not set, so that revisions from before there was such a field keep their names.
        identity["grpcPort"] = model.grpc_port
    if model.warmup:
        # Two revisions may be warmed up in different ways, and a pod is by what its manifest says.
        identity["warmup"] = warmup_text(model)
    # Certificates are mounted into the pod; what the files hold may change meanwhile.
    identity |= {
        where: msgspec.to_builtins(tls)
        for where, tls in (("modelTls", model.tls), ("tls", spec.tls))
        if tls is not None
    }
    digest = hashlib.sha256(msgspec.json.encode(identity, order="deterministic")).hexdigest()[:10]
    return RevisionRecord(
        name=f"{metadata.name}-{digest}",
        version=version or digest,
        template=template,
        model=msgspec.structs.replace(model, name=name, version=version or digest),
        tls=spec.tls,
        created_at=created_at,
        baseline=baseline,
    )


def target_of(metadata: Metadata, spec: ModelDeploymentSpec, created_at: float) -> RevisionRecord:
    """The revision that `spec` asks for."""
    baseline = spec.monitoring.baseline if spec.monitoring is not None else None
    return _record(metadata, spec.template, spec, spec.model.version, created_at, baseline)


def own_fallback_of(metadata: Metadata, spec: ModelDeploymentSpec, created_at: float) -> RevisionRecord | None:
    """The revision of a fallback with a template of its own; None where there is none."""
    if spec.fallback is None or spec.fallback.template is None:
        return None
    return _record(metadata, spec.fallback.template, spec, spec.fallback.version, created_at)


def version_conflicts(record: RevisionRecord, known: Mapping[str, RevisionState], path: str) -> tuple[str, ...]:
    """A version names one template for ever: one line where `record`'s version names another one already."""
    return tuple(
        f'{path}: "{record.version}" already names revision {other.record.name}, which runs something else; '
        "give the new one a version of its own"
        for other in known.values()
        if other.record.version == record.version and other.record.name != record.name
    )

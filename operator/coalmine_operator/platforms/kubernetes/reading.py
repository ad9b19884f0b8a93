"""A model deployment as the API server holds it -> what is wanted, or why it cannot be."""

from __future__ import annotations

from msgspec import Struct

from ...api.decode import decode
from ...api.problems import Invalid
from ...api.spec import Metadata, ModelDeploymentSpec
from ...render.injection import InjectionSettings
from ...render.manifests import problems
from .held import Held


class Reading(Struct, frozen=True, kw_only=True):
    """Of one generation. `spec`: None where it cannot be used; then `problems` say why, one line each."""

    generation: int
    metadata: Metadata
    spec: ModelDeploymentSpec | None = None
    problems: tuple[str, ...] = ()


def read(held: Held, settings: InjectionSettings) -> Reading:
    """Never raises: the CRD lets through what only the operator can know to be wrong."""
    generation, body = held.generation, held.body
    metadata = Metadata(
        name=held.name,
        namespace=held.namespace,
        generation=generation,
        uid=held.uid,
        labels=body["metadata"].get("labels") or {},
        annotations=dict(held.annotations),
    )
    try:
        deployment = decode({**body, "status": {}})
    except Invalid as error:
        return Reading(generation=generation, metadata=metadata, problems=tuple(map(str, error.problems)))
    found = problems(deployment.metadata, deployment.spec, settings)
    if found:
        return Reading(generation=generation, metadata=metadata, problems=tuple(map(str, found)))
    return Reading(generation=generation, metadata=deployment.metadata, spec=deployment.spec)

"""Reading manifests: the front door of the API layer. Text in, frozen types or problems out; no I/O.

`read_manifests` splits YAML text into documents, `decode` checks one of them, `check_many` looks at all together.
"""

from __future__ import annotations

from collections.abc import Iterable

from .documents import Document, read_manifests
from .problems import ROOT, Invalid, Problem
from .rules import RULES
from .spec import ModelDeployment
from .walk import BROKEN, Walker

__all__ = ["Document", "Invalid", "Problem", "check_many", "decode", "read_manifests"]


def decode(raw: object) -> ModelDeployment:
    """One manifest, as plain values (of JSON or of `read_manifests`).

    Raises Invalid with all its problems, at most `walk.MAX_PROBLEMS` and a last one that counts the rest. Paths begin
    at the manifest's top (`spec.replicas`); `manifest` is the whole.
    """
    walker = Walker(RULES)
    deployment = walker.read(ModelDeployment, raw)
    left = walker.total - len(walker.problems)
    if left:
        walker.problems.append(Problem(ROOT, f"has {left} more problems"))
    if deployment is BROKEN or not isinstance(deployment, ModelDeployment):
        raise Invalid(walker.problems)
    return deployment


def check_many(deployments: Iterable[ModelDeployment]) -> list[Problem]:
    """Problems of all deployments together: two of one namespace and name."""
    seen: set[tuple[str, str]] = set()
    problems = []
    for deployment in deployments:
        key = (deployment.metadata.namespace, deployment.metadata.name)
        if key in seen:
            problems.append(
                Problem("metadata.name", f"{key[0]}/{key[1]} stands twice: a name is unique within its namespace")
            )
        seen.add(key)
    return problems

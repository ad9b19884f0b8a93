"""Pods that ask for a sidecar by label. Nobody's pod is ever refused: what cannot be done is a warning.

A warning reaches whoever made the pod, which for most pods is a controller that tells nobody: so it is an annotation
of the pod as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..api.problems import Invalid
from ..render import patch
from ..render.adoption import adopt, asks
from ..render.injection import InjectionSettings
from ..render.labels import NOT_INJECTED
from .review import Review, allow

#: Characters of the annotation.
_REASON: Final = 512


def mutate(review: Review, settings: InjectionSettings, *, drain_key: str) -> dict[str, Any]:
    """`drain_key`: a new one for each pod, see `render.injection.Identity`."""
    pod = review.object
    if review.operation != "CREATE" or not isinstance(pod, dict) or not asks(pod):
        return allow(review)
    try:
        injected = adopt(pod, settings, namespace=review.namespace or "default", drain_key=drain_key)
    except Invalid as error:
        warnings = [f"coalmine: no sidecar: {problem}" for problem in error.problems]
        return allow(review, warnings=warnings, patch=patch.diff(pod, _annotated(pod, error)))
    notes = [f"coalmine: {note}" for note in injected.notes]
    return allow(review, warnings=notes, patch=patch.diff(pod, injected.pod))


def _annotated(pod: Mapping[str, Any], error: Invalid) -> dict[str, Any]:
    """The pod with the reason on it, unless its annotations are none: the API server says so itself."""
    metadata = pod["metadata"]
    annotations = metadata.get("annotations")
    if annotations is None:
        annotations = {}
    if not isinstance(annotations, dict):
        return dict(pod)
    reason = " ".join("; ".join(map(str, error.problems)).split())[:_REASON]
    return {**pod, "metadata": {**metadata, "annotations": {**annotations, NOT_INJECTED: reason}}}

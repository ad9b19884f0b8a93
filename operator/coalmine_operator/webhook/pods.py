"""Pods that ask for a sidecar by label. Nobody's pod is ever refused: what cannot be done is a warning."""

from __future__ import annotations

from typing import Any

from ..api.problems import Invalid
from ..render import patch
from ..render.adoption import adopt, asks
from ..render.injection import InjectionSettings
from .review import Review, allow


def mutate(review: Review, settings: InjectionSettings, *, drain_key: str) -> dict[str, Any]:
    """`drain_key`: a new one for each pod, see `render.injection.Identity`."""
    pod = review.object
    if review.operation != "CREATE" or not isinstance(pod, dict) or not asks(pod):
        return allow(review)
    try:
        injected = adopt(pod, settings, namespace=review.namespace or "default", drain_key=drain_key)
    except Invalid as error:
        return allow(review, warnings=[f"coalmine: no sidecar: {problem}" for problem in error.problems])
    notes = [f"coalmine: {note}" for note in injected.notes]
    return allow(review, warnings=notes, patch=patch.diff(pod, injected.pod))

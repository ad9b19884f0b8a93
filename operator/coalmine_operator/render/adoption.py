"""Pods of others that ask for a sidecar by label: a model server adopted as it is, without a ModelDeployment.

Their routing never changes: one revision, the pod's own model. So it comes the same way as every routing file, as a
projected file, but out of an annotation of the pod: no Secret has to exist, the sidecar needs no second way to be told,
and `kubectl describe` shows it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from coalmine_sidecar import contract

from ..api.problems import Invalid, show
from ..api.template import model_container
from .injection import Identity, Injected, InjectionSettings, has_sidecar, inject
from .labels import INJECT, MODEL_CONTAINER, MODEL_NAME, MODEL_PORT, ROUTING
from .part import Part

_NAMES: Final = ("app.kubernetes.io/instance", "app.kubernetes.io/name", "app")
_TEMPLATE_HASH: Final = "pod-template-hash"
_VERSION: Final = "app.kubernetes.io/version"
_NAME: Final = re.compile(r"[A-Za-z0-9]([-._A-Za-z0-9]{0,251}[A-Za-z0-9])?")


def asks(pod: Mapping[str, Any]) -> bool:
    """Whether a pod carries the label."""
    labels = Part(pod, "", []).part("metadata").part("labels")
    return labels.values.get(INJECT) == "true"


def adopt(pod: Mapping[str, Any], settings: InjectionSettings, *, namespace: str, drain_key: str) -> Injected:
    """A pod that `asks`, with the sidecar and its routing; one that has them stays as it is. Raises Invalid.

    `drain_key`: see Identity.
    """
    if has_sidecar(pod):
        return Injected(pod=dict(pod))
    whole = Part(pod, "", [])
    metadata = whole.part("metadata")
    labels, annotations = metadata.part("labels"), metadata.part("annotations")
    container = annotations.text(MODEL_CONTAINER)
    port = _port(whole, annotations, container)
    name = annotations.text(MODEL_NAME) or _name(metadata, labels)
    if not _NAME.fullmatch(name):
        annotations.refuse(MODEL_NAME, f"{show(name)} is no name: write letters, digits, -, _ and .")
    if whole.problems:
        raise Invalid(whole.problems)
    hashed = labels.text(_TEMPLATE_HASH)
    revision = f"{name}-{hashed}" if hashed else name
    injected = inject(
        pod,
        settings,
        identity=Identity(revision=revision, port=port, container=container, drain_key=drain_key),
    )
    # The contract's defaults say the rest, and people read it.
    own = {"name": revision, "version": labels.text(_VERSION), "track": "stable", "weight": 100}
    routing = {
        "schema": contract.SCHEMA,
        "deployment": name,
        "namespace": namespace,
        "model": name,
        "generation": 1,
        "revisions": [own],
    }
    kept = injected.pod["metadata"].get("annotations") or {}
    injected.pod["metadata"]["annotations"] = {**kept, ROUTING: msgspec.json.encode(routing).decode()}
    return injected


def _port(whole: Part, annotations: Part, container: str) -> int:
    """As annotated, or the first port that the model's container declares."""
    text = annotations.text(MODEL_PORT)
    if text:
        if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= 65535:
            return int(text)
        annotations.refuse(MODEL_PORT, f"{show(text)} is no port: write 1 to 65535")
        return 0
    # What is wrong with the containers themselves is for `inject` to say.
    containers = Part(whole.part("spec").values, "", []).parts("containers")
    named = [one for one in containers if one.values.get("name") == container] if container else containers
    if named:
        index = 0 if container else model_container(_names(named))[0]
        for port in named[index].parts("ports"):
            number = port.values.get("containerPort")
            if isinstance(number, int):
                return number
    annotations.refuse(MODEL_PORT, "missing: the model's container declares no port, so say on which it listens")
    return 0


def _names(containers: list[Part]) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": one.values.get("name")} for one in containers]}}


def _name(metadata: Part, labels: Part) -> str:
    """What people call the application, or what its pods are called."""
    for label in _NAMES:
        if labels.text(label):
            return labels.text(label)
    return metadata.text("name") or metadata.text("generateName").rstrip("-")

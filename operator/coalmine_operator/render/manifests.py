"""The children of a model deployment, as plain objects for server-side apply: complete, and equal for equal input.

What was put into a revision's template is kept beside its record, as a JSON patch on its ControllerRevision, and put in
again as it was: an operator of another version, or with another sidecar image, changes no pod that runs. To refresh a
revision is to forget its patch.
"""

from __future__ import annotations

import base64
import copy
import hashlib
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from msgspec import Struct
from msgspec.structs import replace

from coalmine_sidecar import contract

from ..api.monitoring import SecretKey
from ..api.problems import Invalid, Problem
from ..api.spec import API_VERSION, KIND, Metadata, Model, ModelDeploymentSpec, Tls
from ..api.warmup import warmup_text
from ..engine.model import Plan, RevisionRecord
from . import labels, monitoring, patch, tls
from .injection import (
    INGRESS_PORT,
    LOCAL_PORT,
    PATIENCE,
    ROUTING_KEY,
    SIDECAR,
    Identity,
    Injected,
    InjectionSettings,
    has_sidecar,
    inject,
)
from .records import Object, Patch, annotated, data

#: The port of the public Service.
PUBLIC_PORT: Final = 80


class OwnerRef(Struct, frozen=True, kw_only=True):
    """The model deployment whose deletion takes the children along."""

    name: str
    uid: str


def problems(metadata: Metadata, spec: ModelDeploymentSpec, settings: InjectionSettings) -> tuple[Problem, ...]:
    """Why the templates of a spec cannot run with a sidecar, by paths of the manifest; nothing where they can."""
    templates = {"spec.template": spec.template}
    if spec.fallback and spec.fallback.template is not None:
        templates["spec.fallback.template"] = spec.fallback.template
    found: list[Problem] = [*tls.problems(spec.model.tls), *monitoring.problems(spec)]
    for path, template in templates.items():
        if has_sidecar(template):
            # Copied from a live pod: it would speak for another revision.
            found.append(Problem(f"{path}.spec.initContainers", f"has {SIDECAR} already: leave it out, it is put in"))
        try:
            inject(template, settings, identity=_identity(metadata.uid, metadata, "", spec.model, spec.tls), path=path)
        except Invalid as error:
            found += error.problems
    return tuple(dict.fromkeys(found))  # the model's port is the same one for both


def manifests(
    *,
    owner: OwnerRef,
    metadata: Metadata,
    spec: ModelDeploymentSpec,
    plan: Plan,
    routing: contract.Routing | None,
    settings: InjectionSettings,
    injected: Mapping[str, Patch] | None = None,
) -> tuple[Object, ...]:
    """Everything that shall exist, in the order in which it is to be applied: routing first, pods later.

    `injected`: what `records.kept` found, by revision; revisions without an entry get the sidecar of `settings`. What
    carries the owner's label and is not among these objects is to be deleted. A ControllerRevision's data never
    changes; its annotations do, on a refresh and with the baseline.

    Raises Invalid for a template that takes no sidecar: `problems` tells so before it becomes a revision.
    """
    children = _Children(owner, metadata)
    objects = [children.public_service()]
    if routing is not None:
        objects.append(children.routing_secret(routing))
    stable = {route.revision for route in (plan.routing.routes if plan.routing else ()) if route.track == "stable"}
    for record in plan.records:
        operations = (injected or {}).get(record.name, ())
        template = _template(record, owner, metadata, settings, operations, spec)
        objects.append(children.controller_revision(record, patch.diff(record.template, template)))
        if record.name not in plan.replicas:
            continue
        objects.append(children.headless_service(record))
        objects.append(children.deployment(record, template, plan.replicas[record.name], spec))
        if record.name in stable and plan.replicas[record.name] > 1:
            objects.append(children.disruption_budget(record))
    return tuple(objects)


def drain_key(uid: str, revision: str) -> str:
    """Known to whoever may read the model deployment, and to nobody who can only reach its pods."""
    return hashlib.sha256(f"coalmine drain {uid} {revision}".encode()).hexdigest()[:32]


def inject_revision(
    record: RevisionRecord,
    owner: OwnerRef,
    metadata: Metadata,
    settings: InjectionSettings,
    redis_password: SecretKey | None = None,
) -> Injected:
    """The template of a revision as `settings` make it, with what there is to say about it. Raises Invalid.

    Like the settings, `redis_password` is what it is when the sidecar is put in: another one restarts no pod.
    """
    template = copy.deepcopy(record.template)
    about = {**(template.get("metadata") or {})}
    about["labels"] = labels.of_pod(about.get("labels") or {}, metadata.name, record.name, record.version)
    template["metadata"] = about
    identity = _identity(owner.uid, metadata, record.name, record.model, record.tls)
    identity = replace(identity, redis_password=redis_password)
    return inject(template, settings, identity=identity, path="spec.template")


def _template(
    record: RevisionRecord,
    owner: OwnerRef,
    metadata: Metadata,
    settings: InjectionSettings,
    injected: Patch,
    spec: ModelDeploymentSpec,
) -> Object:
    if injected:
        try:
            return patch.apply(record.template, injected)
        except ValueError:
            pass  # Somebody wrote into the annotation: a restart is better than no pods.
    password = monitoring.redis_password(spec.monitoring)
    return inject_revision(record, owner, metadata, settings, password).pod


def _identity(uid: str, metadata: Metadata, revision: str, model: Model, peers: Tls | None) -> Identity:
    return Identity(
        revision=revision,
        port=model.port,
        grpc_port=model.grpc_port,
        drain_key=drain_key(uid, revision),
        secret=labels.routing_secret(metadata.name),
        readiness={**_ready(model), "periodSeconds": 2, "timeoutSeconds": PATIENCE},
        warmup=warmup_text(model),
        model_tls=model.tls,
        peer_tls=peers,
        peer_name=tls.peer_name(peers, metadata.name, metadata.namespace) if peers is not None else "",
    )


def _ready(model: Model) -> Object:
    """The protocol's ready endpoint; where there may be none, a server that takes connections is ready."""
    path = {"v2": "/v2/health/ready", "v1": f"/v1/models/{quote(model.name, safe='')}"}.get(model.protocol)
    if path is None or (model.tls is not None and model.tls.cert_file):
        # Also where the model wants to see a certificate: kubelet has none.
        return {"tcpSocket": {"port": model.port}}
    scheme = {"scheme": "HTTPS"} if model.tls is not None else {}
    return {"httpGet": {"path": path, "port": model.port, **scheme}}


class _Children:
    """Objects of one owner.

    Some say what Kubernetes takes for granted: what somebody sets to another value is noticed, and written over, where
    Coalmine owns the field, and it owns what it sends.
    """

    def __init__(self, owner: OwnerRef, metadata: Metadata) -> None:
        self._owner = owner
        self._metadata = metadata
        self._name = metadata.name

    def public_service(self) -> Object:
        port = {"name": "http", "port": PUBLIC_PORT, "protocol": "TCP", "targetPort": INGRESS_PORT}
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self._about(self._name, labels.common(self._name, labels.ROUTER)),
            "spec": {
                "ports": [port],
                "publishNotReadyAddresses": False,
                "selector": {labels.MODELDEPLOYMENT: self._name},
            },
        }

    def routing_secret(self, routing: contract.Routing) -> Object:
        about = self._about(labels.routing_secret(self._name), labels.common(self._name, labels.ROUTER))
        about["annotations"] = {labels.ROUTING_GENERATION: str(routing.generation)}
        file = base64.b64encode(contract.encode_routing(routing)).decode()
        return {"apiVersion": "v1", "kind": "Secret", "metadata": about, "type": "Opaque", "data": {ROUTING_KEY: file}}

    def controller_revision(self, record: RevisionRecord, injected: Patch) -> Object:
        about = self._about(record.name, self._labels(record))
        about["annotations"] = annotated(record, injected)
        return {
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": about,
            "revision": int(record.created_at),
            "data": data(record),
        }

    def headless_service(self, record: RevisionRecord) -> Object:
        # No address of its own, so nothing translates ports: the port is the one that the pods listen on.
        port = {"name": "local", "port": LOCAL_PORT, "protocol": "TCP", "targetPort": LOCAL_PORT}
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self._about(record.name, self._labels(record)),
            "spec": {
                "clusterIP": "None",
                "ports": [port],
                "publishNotReadyAddresses": False,
                "selector": {labels.REVISION: record.name},
            },
        }

    def deployment(self, record: RevisionRecord, template: Object, replicas: int, spec: ModelDeploymentSpec) -> Object:
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": self._about(record.name, self._labels(record)),
            "spec": {
                "replicas": replicas,
                "paused": False,
                "selector": {"matchLabels": self._selector(record)},
                # Only a refresh ever changes the template: the new pod first, then the old one goes.
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "revisionHistoryLimit": 0,
                "progressDeadlineSeconds": spec.progress_deadline_seconds,
                "template": template,
            },
        }

    def disruption_budget(self, record: RevisionRecord) -> Object:
        return {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": self._about(record.name, self._labels(record)),
            # Pods that are not ready protect nobody, and must not keep a node from being drained.
            "spec": {
                "maxUnavailable": 1,
                "selector": {"matchLabels": self._selector(record)},
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
            },
        }

    def _selector(self, record: RevisionRecord) -> dict[str, str]:
        return {labels.MODELDEPLOYMENT: self._name, labels.REVISION: record.name}

    def _labels(self, record: RevisionRecord) -> dict[str, str]:
        return labels.of_revision(self._name, record.name, record.version)

    def _about(self, name: str, given: Mapping[str, str]) -> Object:
        return {
            "name": name,
            "namespace": self._metadata.namespace,
            "labels": dict(given),
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": KIND,
                    "name": self._owner.name,
                    "uid": self._owner.uid,
                    "controller": True,
                }
            ],
        }

"""The sidecar put into a pod: pure, for revisions of our own and for pods of others that ask for it.

As a native sidecar, and as the first of the init containers: it is up before anything of the pod runs and down after
the last container is gone. Requests reach it by the target ports of Services; nothing is redirected.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, Final, Literal

from msgspec import Struct

from coalmine_sidecar.contract import DRAIN_HEADER, DRAIN_PATH

from ..api.monitoring import SecretKey
from ..api.problems import Invalid, Problem, key_path, show
from ..api.spec import ModelTls, Tls
from ..api.template import model_container
from . import tls
from .container import PORT
from .labels import MODEL_PORT, ROUTING
from .monitoring import REDIS_PASSWORD
from .part import Part
from .quantity import parse_quantity

SIDECAR: Final = "coalmine-sidecar"
INGRESS_PORT: Final = 8008
LOCAL_PORT: Final = 8009
ADMIN_PORT: Final = 8010
#: Names of these ports in the container, for Services and for Prometheus.
PORT_NAMES: Final = {"coalmine": INGRESS_PORT, "coalmine-local": LOCAL_PORT, "coalmine-admin": ADMIN_PORT}

ROUTING_FOLDER: Final = "/etc/coalmine/routing"
ROUTING_KEY: Final = "routing.json"
ROUTING_VOLUME: Final = "coalmine-routing"
NO_TOKEN_VOLUME: Final = "coalmine-no-token"  # noqa: S105 - the name of a volume without one
_TOKEN_FOLDER: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - where a token would be, and none is

#: Seconds a probe waits. A pod that lacks CPU for a moment is slow; taken out of its Service, it leaves its requests to
#: the others, which are as short of it. A process that ended is noticed without a probe.
PATIENCE: Final = 5

#: OpenTelemetry's variable for what a receiver of OTLP wants to see.
OTLP_HEADERS: Final = "OTEL_EXPORTER_OTLP_HEADERS"

#: The image's user.
UID: Final = 65532
#: Kubernetes' default, in seconds, and the share of it that requests get to finish; the rest is the model's own.
_GRACE: Final = 30
_SHARE: Final = (2, 3)
#: Seconds under which that is worth a word.
_SHORT: Final = 5

_TAKEN: Final = f"is the sidecar's: ports {INGRESS_PORT} to {ADMIN_PORT} have to be free"


class InjectionSettings(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What the operator was installed with. There is no CPU limit: throttling shows in every tail latency.

    `push`: the sidecar's flags about who gets its metrics without asking; `otlp_headers`: where a key for that one is.
    """

    image: str
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    cpu_request: str = "50m"
    memory_request: str = "64Mi"
    memory_limit: str = "256Mi"
    push: tuple[str, ...] = ()
    otlp_headers: SecretKey | None = None


class Identity(Struct, frozen=True, kw_only=True):
    """Who the sidecar of a pod is.

    `port`: the model's; `grpc_port` where it speaks gRPC on another one. `container`: the name of the model's
    container; empty: `model`, or else the first one. `secret`: the routing Secret; empty: the pod is adopted, and its
    routing file is its annotation. `readiness`: a probe for a model without one. `drain_key`: what kubelet shows when
    it asks for the drain, since the admin port is open to the cluster. `warmup`: the value of the sidecar's flag.
    `model_tls`, `peer_tls`: certificates towards the model, and between sidecars, which are called `peer_name` there.
    `redis_password`: where the password of the Redis is that predictions wait in for their labels.
    """

    revision: str
    port: int
    drain_key: str
    grpc_port: int | None = None
    container: str = ""
    secret: str = ""
    readiness: Mapping[str, Any] | None = None
    warmup: str = ""
    model_tls: ModelTls | None = None
    peer_tls: Tls | None = None
    peer_name: str = ""
    redis_password: SecretKey | None = None


class Injected(Struct, frozen=True, kw_only=True):
    """`notes`: one line for each thing somebody may want to know about the pod."""

    pod: dict[str, Any]
    notes: tuple[str, ...] = ()


def has_sidecar(pod: Mapping[str, Any]) -> bool:
    before = Part(pod, "", []).part("spec").parts("initContainers")
    return any(one.values.get("name") == SIDECAR for one in before)


def inject(pod: Mapping[str, Any], settings: InjectionSettings, *, identity: Identity, path: str = "") -> Injected:
    """A pod (or a pod's template, which stands at `path`) with the sidecar; one that has it stays as it is.

    An adopted pod was written to run without us: nothing of it changes that requests don't need. In pods of our own
    the processes share a namespace (so that the sidecar can read the model's memory), no service-account token is
    mounted, the model finds its port in PORT and has a readiness probe: each unless the template says otherwise.

    Raises Invalid where a sidecar cannot work, or the pod is none.
    """
    if has_sidecar(pod):
        return Injected(pod=dict(pod), notes=("has the sidecar already: left as it is",))
    spec = Part(pod, path, []).part("spec")
    containers, before = spec.parts("containers"), spec.parts("initContainers")
    _check(spec, containers, before, identity)
    index = _model_index(spec, containers, identity)
    grace = spec.whole("terminationGracePeriodSeconds", _GRACE)
    drain = max(1, grace * _SHARE[0] // _SHARE[1])
    arguments = [*_arguments(identity, containers[index], drain), *settings.push]
    model = _model(containers[index], identity, drain)
    if spec.problems:
        raise Invalid(spec.problems)

    changes, notes = model
    new = copy.deepcopy(dict(pod))
    inner = new["spec"]
    inner["containers"][index].update(changes)
    if identity.secret:
        _own_pod(inner, notes)
    if inner.get("shareProcessNamespace"):
        arguments.append("--model-processes=pod")
    masked = inner.get("automountServiceAccountToken") is not False
    inner["initContainers"] = [_sidecar(settings, identity, arguments, masked), *(inner.get("initContainers") or ())]
    inner["volumes"] = [*(inner.get("volumes") or ()), *_volumes(identity, masked)]
    return Injected(pod=new, notes=tuple(notes))


def _check(spec: Part, containers: list[Part], before: list[Part], identity: Identity) -> None:
    """Everything that keeps a sidecar from working, as problems of `spec`."""
    if not containers and not spec.problems:
        spec.refuse("containers", "missing: give a list with the model's container")
    if spec.values.get("hostNetwork"):
        spec.refuse("hostNetwork", "true is not possible with a sidecar: pods of one node would fight for its ports")
    on = spec.part("os").text("name") or spec.part("nodeSelector").text("kubernetes.io/os")
    if on not in ("", "linux"):
        spec.refuse("os" if spec.values.get("os") else "nodeSelector", f"{show(on)}: the sidecar runs on Linux only")
    for field, port in (("port", identity.port), ("grpcPort", identity.grpc_port)):
        if port in PORT_NAMES.values():
            place = f"spec.model.{field}" if identity.secret else key_path("metadata.annotations", MODEL_PORT)
            spec.problems.append(Problem(place, f"{port} {_TAKEN}; let the model listen on another one"))
    for container in (*containers, *before):
        if container.values.get("name") == SIDECAR:
            container.refuse("name", f"{SIDECAR} is the sidecar's: take another name")
        for entry in container.parts("ports"):
            if entry.values.get("containerPort") in PORT_NAMES.values():
                entry.refuse("containerPort", f"{entry.values['containerPort']} {_TAKEN}")
    for volume in spec.parts("volumes"):
        if volume.values.get("name") in (ROUTING_VOLUME, NO_TOKEN_VOLUME, *tls.VOLUMES):
            volume.refuse("name", f"{show(volume.values['name'])} is the sidecar's: take another name")


def _model_index(spec: Part, containers: list[Part], identity: Identity) -> int:
    """Where the model's container stands. Raises Invalid where there is none."""
    names = [container.text("name") for container in containers]
    if identity.container and identity.container not in names:
        spec.refuse("containers", f"none is called {show(identity.container)}")
    if spec.problems:
        raise Invalid(spec.problems)
    if identity.container:
        return names.index(identity.container)
    return model_container({"spec": {"containers": [{"name": name} for name in names]}})[0]


def _arguments(identity: Identity, model: Part, drain: int) -> list[str]:
    arguments = [
        f"--routing={ROUTING_FOLDER}/{ROUTING_KEY}",
        f"--revision={identity.revision}",
        "--pod=$(POD_NAME)",
        f"--model=127.0.0.1:{identity.port}",
        f"--ingress=0.0.0.0:{INGRESS_PORT}",
        f"--local=0.0.0.0:{LOCAL_PORT}",
        f"--admin=0.0.0.0:{ADMIN_PORT}",
        f"--drain-timeout={drain}",
    ]
    if identity.grpc_port is not None:
        arguments.append(f"--model-grpc=127.0.0.1:{identity.grpc_port}")
    arguments += tls.model_flags(identity.model_tls)
    arguments += tls.peer_flags(identity.peer_tls, identity.peer_name)
    if identity.warmup:
        arguments.append(f"--warmup={identity.warmup}")
    limits = model.part("resources").part("limits")
    for resource, flag in (("memory", "--memory-limit"), ("cpu", "--cpu-limit")):
        value = limits.values.get(resource)
        if value is None:
            continue
        try:
            limit = parse_quantity(str(value))
        except ValueError as error:
            limits.refuse(resource, f"{show(value)} {error}")
        else:
            arguments.append(f"{flag}={math.ceil(limit) if resource == 'memory' else format(float(limit), 'g')}")
    return arguments


def _model(own: Part, identity: Identity, drain: int) -> tuple[dict[str, Any], list[str]]:
    """What the model's container gets, and what there is to say about it."""
    changes: dict[str, Any] = {}
    notes: list[str] = []
    lifecycle = own.part("lifecycle")
    if lifecycle.values.get("preStop"):
        notes.append(f"{lifecycle.at('preStop')}: stays: it has to leave requests under way the time to finish")
    else:
        key = {"name": DRAIN_HEADER, "value": identity.drain_key}
        ask = {"path": DRAIN_PATH, "port": ADMIN_PORT, "httpHeaders": [key]}
        changes["lifecycle"] = {**lifecycle.values, "preStop": {"httpGet": ask}}
        if drain < _SHORT:
            notes.append(f"terminationGracePeriodSeconds: requests under way get {drain} s of it to finish")
    if not identity.secret:
        return changes, notes
    env = own.parts("env")
    ports = [entry.values.get("value") for entry in env if entry.values.get("name") == PORT]
    if not ports:
        # First, so that other variables can refer to it.
        changes["env"] = [{"name": PORT, "value": str(identity.port)}, *(entry.values for entry in env)]
    elif ports[-1] != str(identity.port):
        notes.append(f"{own.at('env')}: {PORT} stays {show(ports[-1])}, but requests go to port {identity.port}")
    if identity.readiness is not None and not own.values.get("readinessProbe"):
        changes["readinessProbe"] = dict(identity.readiness)
    return changes, notes


def _own_pod(spec: dict[str, Any], notes: list[str]) -> None:
    if spec.get("automountServiceAccountToken") is None:
        spec["automountServiceAccountToken"] = False
    if spec.get("hostPID"):
        notes.append("hostPID: true: memory and CPU of the model are not measured")
    elif spec.get("shareProcessNamespace") is None:
        spec["shareProcessNamespace"] = True


def _sidecar(settings: InjectionSettings, identity: Identity, arguments: list[str], masked: bool) -> dict[str, Any]:
    mounts = [{"name": ROUTING_VOLUME, "mountPath": ROUTING_FOLDER, "readOnly": True}]
    if masked:
        # Kubernetes mounts a token wherever nothing else is mounted in its place.
        mounts.append({"name": NO_TOKEN_VOLUME, "mountPath": _TOKEN_FOLDER, "readOnly": True})
    mounts += tls.mounts(identity.model_tls, identity.peer_tls)[0]
    return {
        "name": SIDECAR,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "restartPolicy": "Always",
        "args": arguments,
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "COALMINE_DRAIN_KEY", "value": identity.drain_key},
            *_from_secret(REDIS_PASSWORD, identity.redis_password),
            *_from_secret(OTLP_HEADERS, settings.otlp_headers),
        ],
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in PORT_NAMES.items()],
        # Up is enough to start the model, which may take minutes to load; the routing file may come meanwhile.
        "startupProbe": _probe("/healthz", period=1, failures=120),
        # A model that was started anew is cold: with a warm-up the first word counts.
        "readinessProbe": _probe("/readyz", period=2, failures=1 if identity.warmup else 3),
        "resources": {
            "requests": {"cpu": settings.cpu_request, "memory": settings.memory_request},
            "limits": {"memory": settings.memory_limit},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsGroup": UID,
            "runAsNonRoot": True,
            "runAsUser": UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": mounts,
    }


def _from_secret(variable: str, secret: SecretKey | None) -> list[dict[str, Any]]:
    """Optional: who asks for it refuses what comes without, which is counted; a pod that does not start is worse."""
    if secret is None:
        return []
    source = {"secretKeyRef": {"name": secret.name, "key": secret.key, "optional": True}}
    return [{"name": variable, "valueFrom": source}]


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": ADMIN_PORT},
        "periodSeconds": period,
        "timeoutSeconds": PATIENCE,
        "failureThreshold": failures,
    }


def _volumes(identity: Identity, masked: bool) -> list[dict[str, Any]]:
    source: dict[str, Any]
    if identity.secret:
        # Optional: pods may be there before the file; the sidecar waits for it.
        source = {"secret": {"secretName": identity.secret, "optional": True}}
    else:
        field = {"path": ROUTING_KEY, "fieldRef": {"fieldPath": f"metadata.annotations['{ROUTING}']"}}
        source = {"downwardAPI": {"items": [field]}}
    volumes = [{"name": ROUTING_VOLUME, **source}]
    if masked:
        volumes.append({"name": NO_TOKEN_VOLUME, "emptyDir": {"sizeLimit": "1Mi"}})
    return volumes + tls.mounts(identity.model_tls, identity.peer_tls)[1]

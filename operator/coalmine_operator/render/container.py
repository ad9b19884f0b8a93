"""What of a pod template the local platform can run: the model container's command as a process."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from ..api.problems import Invalid, Problem, show
from ..api.spec import Model
from ..api.template import model_container
from .expansion import expand
from .part import Part
from .quantity import parse_quantity

#: The variable in which a model server finds the port to listen on.
PORT: Final = "PORT"

_NO_COMMAND = "missing: coalmine run starts processes, not images: give the command that starts the model server"
#: Parts of a container without which it may behave otherwise than in a cluster, and why they have no effect here.
_IGNORED: Final = {
    "volumeMounts": "no volumes are mounted on this machine",
    "envFrom": "no ConfigMaps and Secrets on this machine",
    "livenessProbe": "a process is started again when it ends, not when it hangs",
    "startupProbe": "only readiness is asked for",
    "lifecycle": "no hooks are run",
}


class Probe(Struct, frozen=True, kw_only=True):
    """A readiness probe by HTTP GET. Times in seconds, defaults are Kubernetes'.

    `port` is what the manifest says, None where it means the model's port.
    """

    path: str = "/"
    port: int | None = None
    scheme: Literal["http", "https"] = "http"
    headers: tuple[tuple[str, str], ...] = ()
    initial_delay: float = 0.0
    period: float = 10.0
    timeout: float = 1.0
    success_threshold: int = 1
    failure_threshold: int = 3


class LocalContainer(Struct, frozen=True, kw_only=True):
    """The model's process as the template wants it. Bytes, cores (0: no limit), seconds.

    The port is known only when the process starts: `argv` and `environment` take it. `ignored` has one line for each
    part of the template that has no effect on this machine although it changes what the model sees.
    """

    name: str
    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    working_dir: str = ""
    readiness: Probe | None = None
    memory_limit_bytes: int = 0
    cpu_limit_cores: float = 0.0
    termination_grace: float = 30.0
    ignored: tuple[str, ...] = ()

    def argv(self, port: int) -> tuple[str, ...]:
        """Command and arguments, with `$(VAR)` expanded."""
        values = self.environment(port)
        return tuple(expand(word, values) for word in self.command)

    def environment(self, port: int) -> dict[str, str]:
        """The container's own variables, `PORT` among them. A value can refer to those that stand before it."""
        values = {PORT: str(port)}
        for name, value in self.env:
            values[name] = expand(value, values)
        return values


def local_container(template: Mapping[str, Any], *, model: Model, path: str = "spec.template") -> LocalContainer:
    """The model container of a template that `decode` let through; `path` is where the template stands.

    Raises Invalid with every problem.
    """
    problems: list[Problem] = []
    pod = Part(template, path, problems).part("spec")
    containers = pod.parts("containers")
    index, _ = model_container(template)
    own = containers.pop(index)
    limits = own.part("resources").part("limits")
    found = LocalContainer(
        name=own.text("name"),
        command=_command(own),
        env=tuple((name, value) for name, value in _env(own) if name != PORT),
        working_dir=own.text("workingDir"),
        readiness=_readiness(own, model),
        memory_limit_bytes=math.ceil(_limit(limits, "memory")),
        cpu_limit_cores=float(_limit(limits, "cpu")),
        termination_grace=pod.whole("terminationGracePeriodSeconds", 30),
    )
    if problems:
        raise Invalid(problems)
    ignored = list(_ignored(pod, own, containers))
    if model.grpc_port is not None:
        ignored.append(f"spec.model.grpcPort: ignored: each process has one port of its own here, its {PORT}")
    if model.tls is not None and model.tls.secret_name:
        ignored.append("spec.model.tls.secretName: ignored: the files are looked for beside the manifest")
    return replace(found, ignored=tuple(ignored))


def _command(own: Part) -> tuple[str, ...]:
    command = own.words("command")
    if not own.values.get("command"):
        own.refuse("command", _NO_COMMAND, local=True)
    return (*command, *own.words("args"))


def _env(own: Part) -> list[tuple[str, str]]:
    found = []
    for entry in own.parts("env"):
        name = entry.text("name")
        if not name or "=" in name:
            entry.refuse("name", f"{show(name)} is no name of a variable")
        if entry.values.get("valueFrom") is not None:
            entry.refuse("valueFrom", "nothing on this machine can fill it: give a value", local=True)
        found.append((name, entry.text("value")))
    return found


def _readiness(own: Part, model: Model) -> Probe | None:
    probe = own.part("readinessProbe")
    get = probe.part("httpGet")
    if not get.values:
        return None
    scheme = get.text("scheme", "HTTP").lower()
    if scheme not in ("http", "https"):
        get.refuse("scheme", f"{show(scheme.upper())} is not allowed: write HTTP or HTTPS")
    return Probe(
        path="/" + get.text("path", "/").removeprefix("/"),
        port=_port(get, own, model),
        scheme="https" if scheme == "https" else "http",
        headers=tuple((header.text("name"), header.text("value")) for header in get.parts("httpHeaders")),
        initial_delay=probe.whole("initialDelaySeconds", 0),
        period=probe.whole("periodSeconds", 10, least=1),
        timeout=probe.whole("timeoutSeconds", 1, least=1),
        success_threshold=probe.whole("successThreshold", 1, least=1),
        failure_threshold=probe.whole("failureThreshold", 3, least=1),
    )


def _port(get: Part, own: Part, model: Model) -> int | None:
    """None for the model's own port, by its number or by its name in `ports`."""
    port = get.values.get("port")
    if isinstance(port, str):
        named = {entry.text("name"): entry.whole("containerPort", 0) for entry in own.parts("ports")}
        port = named.get(port, port)
    if port is None or port == model.port:
        return None
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        get.refuse("port", f"{show(port)} is no port: write 1 to 65535, or a name in ports")
        return None
    return port


def _limit(limits: Part, resource: str) -> Fraction:
    value = limits.values.get(resource)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if value is None:
        return Fraction(0)
    try:
        return parse_quantity(value if isinstance(value, str) else "")
    except ValueError as error:
        limits.refuse(resource, f"{show(value)} {error}")
        return Fraction(0)


def _ignored(pod: Part, own: Part, others: list[Part]) -> Iterator[str]:
    only_model = "only the model's container runs on this machine"
    if pod.values.get("initContainers"):
        yield f"{pod.at('initContainers')}: ignored: {only_model}"
    for other in others:
        yield f"{other.path}: ignored: {only_model}"
    for field, why in _IGNORED.items():
        if own.values.get(field):
            yield f"{own.at(field)}: ignored: {why}"
    for entry in own.parts("env"):
        if entry.values.get("name") == PORT:
            yield f"{entry.path}: ignored: coalmine run chooses a free {PORT}"
    probe = own.part("readinessProbe")
    if probe.values and not probe.values.get("httpGet"):
        yield f"{probe.path}: ignored: only httpGet is asked for, so the protocol's ready endpoint stands in"

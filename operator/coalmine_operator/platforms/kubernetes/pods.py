"""What a pod's status says: whether it takes requests, and why it does not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import Struct

from .held import Held

#: Reasons of a waiting container that are the ordinary course of a start.
_ORDINARY: Final = ("ContainerCreating", "PodInitializing")
_MAX_TEXT: Final = 600
#: Seconds that a container may run before it is worth a word that it is not ready.
_START: Final = 30


class Trouble(Struct, frozen=True, kw_only=True):
    """Why a pod is not ready. `container`: whose log tells more, of its run before the present one if `previous`.

    `mark` differs for each failure of the container, so that its log is read once.
    """

    text: str
    container: str = ""
    previous: bool = False
    mark: str = ""


def counts(pod: Held) -> bool:
    """Whether it still takes part: pods that ended stay as records until somebody sweeps them."""
    return pod.body.get("status", {}).get("phase") not in ("Succeeded", "Failed")


def ready(pod: Held) -> bool:
    if pod.ending or not counts(pod):
        return False
    return _condition(pod, "Ready").get("status") == "True"


def address(pod: Held) -> str:
    """The pod's IP, empty while it has none or nobody answers there."""
    status = pod.body.get("status", {})
    return status.get("podIP", "") if counts(pod) else ""


def trouble(pod: Held) -> Trouble | None:
    """What keeps a pod from being ready, beyond the time that every start takes. Texts hold no figure that grows."""
    if pod.ending or ready(pod):
        return None
    for container in _containers(pod):
        found = _container_trouble(container)
        if found:
            return found
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return Trouble(text=_line(f"Unschedulable: {scheduled.get('message', '')}"))
    status = pod.body.get("status", {})
    if status.get("phase") == "Failed":
        return Trouble(text=_line(f"{status.get('reason') or 'Failed'}: {status.get('message', '')}"))
    return None


def long_unready(pod: Held, port: int, now: float) -> str:
    """Which containers run and are not ready, long enough to wonder; empty: none. `now`: Unix time."""
    if pod.ending or ready(pod) or _condition(pod, "Initialized").get("status") == "False":
        return ""
    names = [one["name"] for one in _containers(pod) if not one.get("ready") and now - _runs_since(one, now) >= _START]
    if not names:
        return ""
    where = f"requests go to port {port} (spec.model.port): does the model listen there?"
    return _line(f"running but not ready: {', '.join(names)}; {where}")


def rollout_trouble(deployment: Held) -> str:
    """Why a Deployment cannot make its pods (quota, pod security), or empty."""
    for condition in deployment.body.get("status", {}).get("conditions") or ():
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return _line(f"{condition.get('reason')}: {condition.get('message', '')}")
    return ""


def worst(pods: Iterable[Held]) -> Iterator[tuple[Held, Trouble]]:
    """Pods in trouble, those first whose log tells why."""
    found = [(pod, why) for pod in pods if (why := trouble(pod))]
    yield from sorted(found, key=lambda entry: (not entry[1].container, entry[0].name))


def log_tail(text: str, lines: int = 5) -> str:
    """The last lines joined by ` | `, printable and bounded."""
    plain = ("".join(c if c.isprintable() else " " for c in line).strip() for line in text.splitlines())
    return " | ".join([line for line in plain if line][-lines:])[-_MAX_TEXT:]


def _container_trouble(container: Mapping[str, Any]) -> Trouble | None:
    name, state = container["name"], container.get("state") or {}
    waiting, ended = state.get("waiting"), state.get("terminated")
    last = (container.get("lastState") or {}).get("terminated")
    restarts = container.get("restartCount", 0)
    if ended and ended.get("exitCode"):
        return _ended(name, ended, previous=False, restarts=restarts)
    if waiting and last and waiting.get("reason") == "CrashLoopBackOff":
        return _ended(name, last, previous=True, restarts=restarts)
    if waiting and waiting.get("reason") not in (None, *_ORDINARY):
        # The message of a pull that backs off repeats the image; that of a first try says what the registry said.
        return Trouble(text=_line(f"{name}: {waiting['reason']}: {waiting.get('message', '')}"))
    if restarts and last and last.get("exitCode") and not container.get("ready"):
        return _ended(name, last, previous=True, restarts=restarts)
    return None


def _runs_since(container: Mapping[str, Any], now: float) -> float:
    """Unix time; `now` where it does not run."""
    started = ((container.get("state") or {}).get("running") or {}).get("startedAt") or ""
    try:
        return datetime.strptime(started, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return now


def _ended(name: str, ended: Mapping[str, Any], *, previous: bool, restarts: int) -> Trouble:
    why = ended.get("reason") or "Error"
    code = ended.get("exitCode")
    return Trouble(
        text=_line(f"{name}: ended with status {code} ({why}) {ended.get('message', '')}"),
        container=name,
        previous=previous,
        mark=f"{name}/{restarts}/{previous}",
    )


def _containers(pod: Held) -> Iterator[Mapping[str, Any]]:
    """The model before its helpers: what it says comes first."""
    status = pod.body.get("status", {})
    mine = status.get("containerStatuses") or ()
    yield from sorted(mine, key=lambda container: container["name"] != "model")
    yield from status.get("initContainerStatuses") or ()


def _condition(pod: Held, kind: str) -> Mapping[str, Any]:
    conditions = pod.body.get("status", {}).get("conditions") or ()
    return next((c for c in conditions if c.get("type") == kind), {})


def _line(text: str) -> str:
    return " ".join(text.split())[:_MAX_TEXT].rstrip(": ")

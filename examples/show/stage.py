"""Where the story is played: on this machine or in a cluster. All that the story needs of a running Coalmine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from examples.load import DelayedLabels, Record

from coalmine_operator.web.view import DeploymentView

#: The model deployment's name.
NAME = "breast-cancer"


@dataclass(frozen=True)
class Pod:
    """A model and its sidecar.

    `process`: another one after each restart. `admin`: where the sidecar's admin port is, empty while unknown.
    """

    name: str
    revision: str
    process: str
    admin: str
    ending: bool = False


class Clients(Protocol):
    """Who sends requests; `load.Load` is one. `records` is complete once `run` has returned."""

    records: list[Record]
    labels: DelayedLabels
    held_back: int

    @property
    def errors(self) -> list[Record]: ...

    async def run(self) -> None:
        """Send until `stop`; returns when the last answer is there."""

    def stop(self) -> None: ...


class Stage(Protocol):
    """`namespace`: the model deployment's. `killing`, `revived`: what `kill` does, and what comes after, in words."""

    namespace: str
    killing: str
    revived: str

    async def start(self) -> None:
        """Make Coalmine run, with v1 in the manifest. Raises NotTrueError."""

    async def edit(self, version: str) -> None:
        """Put this version into the manifest, and the manifest to where Coalmine reads it. Raises NotTrueError."""

    def broken(self) -> str:
        """Why there is nothing to wait for any more, or nothing."""

    async def view(self) -> DeploymentView | None:
        """What is known of the model deployment now, or None while nobody answers."""

    def pods(self) -> list[Pod]:
        """As they were at the last `view`."""

    async def metrics(self, pod: Pod) -> str:
        """What the sidecar of a pod tells Prometheus; empty while it does not answer."""

    async def alert(self, webhook: dict[str, Any]) -> tuple[int, str]:
        """POST to /alerts as Alertmanager does; status (0: no answer came) and answer."""

    async def kill(self, pods: Sequence[Pod]) -> None:
        """End the models of these pods, whatever they do."""

    async def stop(self) -> list[str]:
        """End everything that was started. Returns what could not be ended."""

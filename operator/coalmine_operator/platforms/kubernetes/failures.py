"""Why revisions have no ready pods: what pods say, the last words of their logs, what the API server refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .client import ApiError, Client
from .held import Held
from .pods import Trouble, log_tail, rollout_trouble, worst

#: Of a log.
LINES: Final = 5
MAX_BYTES: Final = 4096


class Failures:
    """Of one model deployment.

    `refused`: by revision, what the API server said to one of its objects; by "" what it said to those of no revision.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._logs: dict[tuple[str, str], str] = {}
        self.refused: dict[str, str] = {}

    def text(self, revision: str, deployment: Held | None, pods: Iterable[Held]) -> str:
        """One line, or empty."""
        if refused := self.refused.get(revision):
            return refused
        if deployment is not None and (why := rollout_trouble(deployment)):
            return why
        for pod, trouble in worst(pods):
            log = self._logs.get(_mark(pod, trouble), "")
            return f"{trouble.text} | {log}" if log else trouble.text
        return ""

    async def read_logs(self, pods: Iterable[Held]) -> None:
        """Of one pod of each revision in trouble, once a failure."""
        wanted: dict[str, tuple[Held, Trouble]] = {}
        for pod, trouble in worst(pods):
            if trouble.container:
                wanted.setdefault(pod.revision, (pod, trouble))
        marks = {_mark(pod, trouble) for pod, trouble in wanted.values()}
        self._logs = {mark: text for mark, text in self._logs.items() if mark in marks}
        for pod, trouble in wanted.values():
            if _mark(pod, trouble) not in self._logs:
                self._logs[_mark(pod, trouble)] = await self._read(pod, trouble)

    async def _read(self, pod: Held, trouble: Trouble) -> str:
        query = {"container": trouble.container, "tailLines": str(LINES), "limitBytes": str(MAX_BYTES)}
        if trouble.previous:
            query["previous"] = "true"
        try:
            text = await self._client.text(f"{pod.path}/log", query)
        except ApiError:
            return ""  # its container was swept away, or nobody may read it: the status alone has to do
        return log_tail(text, LINES)


def _mark(pod: Held, trouble: Trouble) -> tuple[str, str]:
    return pod.uid, trouble.mark

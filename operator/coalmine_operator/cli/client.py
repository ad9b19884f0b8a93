"""Talking to the `coalmine run` of a state directory."""

from __future__ import annotations

import getpass
import http.client
import json
import os
import socket
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec
import psutil
from msgspec import Struct

from ..api.codec import from_json
from ..api.problems import Invalid
from ..web.view import DeploymentView
from .errors import CliError

#: Longer than the web's own deadline, so that its answer comes first.
TIMEOUT: Final = 30.0
MAX_ANSWER: Final = 64 << 20


class RunInfo(Struct, frozen=True, kw_only=True, rename="camel"):
    """`run.json`, its owner's alone: where the running one listens (on 127.0.0.1) and the token of its API."""

    pid: int
    port: int
    token: str
    started_at: float

    @staticmethod
    def path(state: Path) -> Path:
        return state / "run.json"


class NotRunningError(CliError):
    """No `coalmine run` answers for this state directory."""

    def __init__(self, state: Path) -> None:
        super().__init__(f"no coalmine run is running with state directory {state}")


class Client:
    """Raises NotRunningError where nobody answers, or somebody who does not know the token."""

    def __init__(self, state: Path) -> None:
        self._state = state
        try:
            self._info = msgspec.json.decode(RunInfo.path(state).read_bytes(), type=RunInfo)
        except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise NotRunningError(state) from error
        except OSError as error:
            raise CliError(f"{RunInfo.path(state)}: cannot be read: {error.strerror}") from error
        if not psutil.pid_exists(self._info.pid):  # whoever has its port now is not to see its token
            raise NotRunningError(state)

    def views(self) -> list[DeploymentView]:
        status, body = self._ask("GET", "/api/deployments")
        if status != 200:
            raise CliError(_line(body))
        try:
            return from_json(body, list[DeploymentView])
        except Invalid as error:
            raise CliError(f"the running coalmine is of another version: {error}") from error

    def order(self, view: DeploymentView, verb: str, revision: str) -> str:
        """What happened. Raises CliError with why it was refused."""
        order = {"verb": verb, "revision": revision, "actor": actor()}
        path = f"/api/deployments/{quote(view.namespace)}/{quote(view.name)}/orders"
        status, body = self._ask("POST", path, order)
        if status != 200:
            raise CliError(f"{view.name}: {verb} refused: {_line(body)}" if status == 409 else _line(body))
        return str(json.loads(body)["message"])

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._info.port, timeout=TIMEOUT)
        headers = {"Authorization": f"Bearer {self._info.token}"}
        try:
            connection.request(method, path, body=None if body is None else json.dumps(body), headers=headers)
            answer = connection.getresponse()
            status, data = answer.status, answer.read(MAX_ANSWER)
        except TimeoutError as error:
            raise CliError(f"the coalmine run of {self._state} does not answer within {TIMEOUT:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise NotRunningError(self._state) from error
        finally:
            connection.close()
        if status == 401:  # its port belongs to somebody else by now
            raise NotRunningError(self._state)
        return status, data


def actor() -> str:
    """Who gives an order: `ada@laptop`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"[:253]


def pick(views: list[DeploymentView], name: str | None) -> DeploymentView:
    """The one of that name (`fraud` or `default/fraud`), or the only one. Raises CliError."""
    known = ", ".join(sorted(view.name for view in views)) or "none"
    found = [view for view in views if name in (None, view.name, view.key)]
    if not found:
        raise CliError(f"no model deployment {name}: there is {known}" if name else "there is no model deployment")
    if len(found) > 1:
        wanted = ", ".join(view.key for view in found)
        raise CliError(f"name one of the model deployments: {wanted}", code=2)
    return found[0]


def _line(body: bytes) -> str:
    return " ".join(body[:1000].decode("utf-8", "replace").split()) or "an empty answer"

"""The API server, by the official client: plain mappings in and out, one kind of error.

`kubernetes.aio` brings configuration, authentication and connections. Its generated classes are left out: they
convert every object twice, and server-side apply takes exactly what is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Literal

import aiohttp
import msgspec
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from .kinds import Kind

#: Who owns the fields that Coalmine sets.
FIELD_MANAGER: Final = "coalmine"
#: Seconds one call may take.
TIMEOUT: Final = 20.0
#: Calls under way at once.
MAX_CALLS: Final = 32
#: Objects of one page of a list.
PAGE: Final = 50

_PATCHES: Final = {
    "apply": "application/apply-patch+yaml",
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
}


class ApiError(Exception):
    """The API server did not do it; one line. `status` 0: it was not reached."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    @property
    def gone(self) -> bool:
        return self.status == HTTPStatus.NOT_FOUND

    @property
    def refused(self) -> bool:
        """Sending the same again will not help: the request itself is wrong, or not allowed."""
        return self.status in (
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.FORBIDDEN,
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            HTTPStatus.UNPROCESSABLE_ENTITY,
        )


class Client:
    """See `connect`. Close it at last."""

    def __init__(self, api: ApiClient) -> None:
        self._api: Any = api  # it says that it is typed, but half of it is not
        # Not left to the connection pool: a call's time runs from its turn, however many wait for theirs.
        self._turns = asyncio.Semaphore(MAX_CALLS)

    @classmethod
    async def connect(cls, kubeconfig: Path | None = None) -> Client:
        """With a kubeconfig file, or as the pod's service account. Raises ApiError; nothing is asked yet."""
        configuration = Configuration()
        loaders: Any = config
        try:
            if kubeconfig is None:
                loaders.load_incluster_config(client_configuration=configuration)
            else:
                await loaders.load_kube_config(
                    str(kubeconfig), client_configuration=configuration, persist_config=False
                )
        except (config.ConfigException, OSError) as error:
            raise ApiError(0, f"no access to a cluster: {_line(str(error))}") from error
        configuration.connection_pool_maxsize = MAX_CALLS
        api = ApiClient(configuration)
        api.user_agent = "coalmine-operator"
        return cls(api)

    async def close(self) -> None:
        await self._api.close()

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        return await self._call("GET", path, query)

    async def pages(self, path: str, selector: str = "") -> AsyncIterator[Any]:
        """A list, page by page. All pages are of one moment: that of the first one's resourceVersion."""
        token = ""
        while True:
            query = {"limit": str(PAGE)}
            if selector:
                query["labelSelector"] = selector
            if token:
                query["continue"] = token
            page = await self.get(path, query)
            yield page
            token = page["metadata"].get("continue", "")
            if not token:
                return

    async def apply(self, kind: Kind, obj: Mapping[str, Any], *sub: str) -> Any:
        """Server-side apply: what is in `obj` becomes ours, what was ours and is no more in it goes."""
        metadata = obj["metadata"]
        path = kind.path(metadata["namespace"], metadata["name"], *sub)
        return await self.patch(path, obj, "apply", {"fieldManager": FIELD_MANAGER, "force": "true"})

    async def patch(
        self,
        path: str,
        body: Any,
        how: Literal["apply", "json", "merge"] = "merge",
        query: Mapping[str, str] | None = None,
    ) -> Any:
        return await self._call("PATCH", path, query or {"fieldManager": FIELD_MANAGER}, body, _PATCHES[how])

    async def create(self, path: str, body: Mapping[str, Any]) -> Any:
        return await self._call("POST", path, {"fieldManager": FIELD_MANAGER}, body)

    async def delete(self, path: str, uid: str) -> None:
        """Exactly the object that was seen, and what it owns; nothing where it is gone already."""
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._call("DELETE", path, None, body)
        except ApiError as error:
            if error.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                raise

    async def text(self, path: str, query: Mapping[str, str]) -> str:
        """An answer that is no JSON, such as a log."""
        return (await self._send("GET", path, query)).decode("utf-8", "replace")

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Any:
        return msgspec.json.decode(await self._send(method, path, query, body, content_type))

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> bytes:
        headers = {"Content-Type": content_type, "Accept": "application/json, */*"}
        try:
            request = await self._api.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            async with self._turns:
                answer = await self._api.call_api(*request, _request_timeout=aiohttp.ClientTimeout(total=TIMEOUT))
                data: bytes = await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ApiError(0, f"API server: {_line(str(error)) or type(error).__name__}") from error
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise ApiError(answer.status, _reason(data, answer.status))
        return data


def _reason(data: bytes, status: int) -> str:
    """What the API server says, in one line."""
    try:
        message = msgspec.json.decode(data)["message"]
    except (msgspec.MsgspecError, KeyError, TypeError):
        message = data[:200].decode("utf-8", "replace")
    return _line(str(message)) or f"status {status}"


def _line(text: str) -> str:
    return " ".join(text.split())[:1000]

"""The API server: plain mappings in and out, one kind of error.

The official client is left out: its generated classes are 20 MB of memory, convert every object twice, and
server-side apply takes exactly what is written.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import Any, Final, Literal

import aiohttp
import msgspec

from .access import Access
from .kinds import Kind

#: Who owns the fields that Coalmine sets.
FIELD_MANAGER: Final = "coalmine"
#: Seconds one call may take.
TIMEOUT: Final = 20.0
#: Calls under way at once. More only wait at the API server, and each connection is a quarter of a megabyte of TLS.
MAX_CALLS: Final = 16
#: Objects of one page of a list.
PAGE: Final = 50
#: How the API server begins to say, with status 500, that what is applied has a field or a type that it does not know.
_UNTYPED: Final = "failed to create typed patch object"
#: What must not change is quoted whole, before the reason: a record is as long as a template.
_QUOTED: Final = re.compile(r"Invalid value: (?:(?!Invalid value: ).)*?: (?=field is immutable)", re.DOTALL)

_TIMEOUT: Final = aiohttp.ClientTimeout(total=TIMEOUT)
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
        return str(self).startswith(_UNTYPED) or self.status in (
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.FORBIDDEN,
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            HTTPStatus.UNPROCESSABLE_ENTITY,
        )


class Client:
    """Make it inside a running event loop. Close it at last."""

    def __init__(self, access: Access) -> None:
        self._server = access.server
        self._session = access.session(MAX_CALLS)
        # Not left to the connection pool: a call's time runs from its turn, however many wait for theirs.
        self._turns = asyncio.Semaphore(MAX_CALLS)
        #: How many calls ended how: by method and status, 0 where the API server was not reached.
        self.calls: Counter[tuple[str, int]] = Counter()

    async def close(self) -> None:
        await self._session.close()

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
        content = None if body is None else msgspec.json.encode(body)
        try:
            async with (
                self._turns,
                self._session.request(
                    method,
                    self._server + path,
                    params=query,
                    headers=headers,
                    data=content,
                    timeout=_TIMEOUT,
                    allow_redirects=False,
                ) as answer,
            ):
                data = await answer.read()
                status = answer.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.calls[method, 0] += 1
            raise ApiError(0, f"API server: {_line(str(error)) or type(error).__name__}") from error
        self.calls[method, status] += 1
        if status >= HTTPStatus.BAD_REQUEST:
            raise ApiError(status, _reason(data, status))
        return data


def _reason(data: bytes, status: int) -> str:
    """What the API server says, in one line."""
    try:
        message = msgspec.json.decode(data)["message"]
    except (msgspec.MsgspecError, KeyError, TypeError):
        message = data[:200].decode("utf-8", "replace")
    return _line(_QUOTED.sub("", str(message))) or f"status {status}"


def _line(text: str) -> str:
    return " ".join(text.split())[:1000]

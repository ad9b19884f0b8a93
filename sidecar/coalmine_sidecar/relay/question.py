"""What a request asked, kept for who reads it with its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from ..monitoring import Monitoring

_CONTENT_TYPE: Final = b"content-type"
_JSON_LENGTH: Final = b"inference-header-content-length"
#: A longer id names nothing.
MAX_ID: Final = 256
#: Who brings an id to a server of SageMaker's kind names it so.
_INFERENCE_ID: Final = b"x-amzn-sagemaker-inference-id"


class Lookup(Protocol):
    """A request's headers, by lower-case names."""

    def lookup(self, name: bytes, /) -> bytes | None: ...


class Question:
    """One request: its body as it came (None: it was not kept), and what its headers say.

    `size`: of the body; `kept`: bytes of it that are here.
    `id` names the prediction; `given`: the client brought it. `groups`: the values of the headers that slices are made
    of, in the order of `Asks.headers`. `started`: monotonic seconds.
    """

    __slots__ = ("body", "content_type", "given", "groups", "id", "json_length", "kept", "size", "started")

    def __init__(
        self,
        body: list[bytes] | None,
        size: int,
        started: float,
        *,
        id: bytes,
        given: bool,
        content_type: bytes,
        json_length: int | None,
        groups: tuple[bytes | None, ...],
    ) -> None:
        self.body = body
        self.size = size
        self.kept = 0 if body is None else size
        self.started = started
        self.id = id
        self.given = given
        self.content_type = content_type
        self.json_length = json_length
        self.groups = groups


class Asks:
    """What monitoring wants to know of requests beside their answers. Made once for each routing file."""

    __slots__ = ("_generates", "_header", "_name", "headers")

    def __init__(self, monitoring: Monitoring) -> None:
        name = monitoring.prediction_id.header
        self._header = name.lower().encode()
        self._name = name.encode()
        self._generates = monitoring.prediction_id.generate
        self.headers: Sequence[bytes] = tuple(one.header.lower().encode() for one in monitoring.slices if one.header)

    def given(self, request: Lookup) -> bytes:
        """The id that a client brought, or empty."""
        found = request.lookup(self._header) or request.lookup(_INFERENCE_ID)
        return b"" if found is None or len(found) > MAX_ID else found

    def line(self, request: Lookup, request_id: bytes) -> bytes:
        """The answer's header line with the prediction's id; empty where it has none."""
        found = self._id(request, request_id)
        return b"%b: %b\r\n" % (self._name, found) if found else b""

    def field(self, request: Lookup, request_id: bytes) -> tuple[bytes, bytes] | None:
        """The same as a field of HTTP/2."""
        found = self._id(request, request_id)
        return (self._header, found) if found else None

    def question(
        self, request: Lookup, body: list[bytes] | None, size: int, started: float, request_id: bytes
    ) -> Question:
        given = self.given(request)
        length = request.lookup(_JSON_LENGTH)
        return Question(
            body,
            size,
            started,
            id=given or (request_id if self._generates else b""),
            given=bool(given),
            content_type=request.lookup(_CONTENT_TYPE) or b"",
            json_length=int(length) if length is not None and length.isdigit() and len(length) < 10 else None,
            groups=tuple(map(request.lookup, self.headers)),
        )

    def _id(self, request: Lookup, request_id: bytes) -> bytes:
        return self.given(request) or (request_id if self._generates else b"")

"""Who else may answer a request, once an attempt has failed.

A connection that never opened has consumed nothing, so another pod of the revision is asked whatever the request is.
A connection that broke gets one other pod of the revision. A revision that answered with an error, or not in time,
has had its say. After that comes the chain of the fallback, each revision at most once.

Where nobody is left to ask, a revision that did not take the connection in time is asked again for a while: who is dead
refuses, who is busy has a full queue. In that queue a request still gets its answer.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from .endpoints import Endpoint
    from .table import Table, Target

AnswerT = TypeVar("AnswerT")

#: Seconds from a request's start in which a busy revision is asked again if there is no other.
PATIENCE: Final = 5.0

#: What a local sidecar says when its model refused: nothing was consumed, so another pod may be asked.
NEVER_OPENED: Final = "refused"


class Failure(Enum):
    """Why an attempt came to nothing.

    Fields: reason of the retry ("" for none), reason of the fallback, kind of connection error ("" for none), what the
    client gets if nobody else answers, and what whoever handed the request on is told (default: the fallback's reason).
    """

    REFUSED = ("refused", "refused", "connect", 502, "the model refused the connection")
    CONNECT_TIMEOUT = ("timeout", "timeout", "connect", 504, "connecting to the model took too long", NEVER_OPENED)
    STALE = ("stale", "reset", "stale", 502, "the model closed the connection")
    RESET = ("reset", "reset", "reset", 502, "the model broke the connection before it answered")
    TIMEOUT = ("timeout", "timeout", "timeout", 504, "the model did not answer in time")
    STATUS = ("", "status", "", 502, "the model answered with an error")
    NO_ENDPOINT = ("", "no_endpoint", "", 503, "no endpoint", NEVER_OPENED)
    QUEUE_FULL = ("queue_full", "queue_full", "", 503, "the queue of its model is full")
    BREAKER = ("", "breaker", "", 503, "its breaker is open")

    def __init__(self, retry: str, fallback: str, kind: str, status: int, message: str, reason: str = "") -> None:
        self.retry = retry
        self.fallback = fallback
        self.kind = kind
        self.status = status
        self.message = message
        self.reason = (reason or fallback).encode()


#: The model has seen nothing of the request.
UNOPENED: Final = frozenset({
    Failure.REFUSED, Failure.CONNECT_TIMEOUT, Failure.NO_ENDPOINT, Failure.QUEUE_FULL, Failure.BREAKER,
})  # fmt: skip
#: What a breaker counts: a revision was asked, and failed.
BREAKING: Final = frozenset({
    Failure.REFUSED, Failure.CONNECT_TIMEOUT, Failure.STALE, Failure.RESET, Failure.TIMEOUT, Failure.STATUS,
})  # fmt: skip
#: A model may have worked for it, or has too much work: sending it again costs the revision as much as another request,
#: and so is budgeted.
SPENDING: Final = frozenset({Failure.STALE, Failure.RESET, Failure.QUEUE_FULL})
#: Endpoints of one revision that are asked before another revision is, by the last failure.
MAX_ENDPOINTS: Final = {
    Failure.REFUSED: 3, Failure.CONNECT_TIMEOUT: 3, Failure.NO_ENDPOINT: 3, Failure.QUEUE_FULL: 3, Failure.RESET: 2,
}  # fmt: skip
#: The revision as a whole is not to blame if another of its pods answers: pods go, idle connections end.
FORGIVEN: Final = UNOPENED | {Failure.STALE}


class Step(NamedTuple):
    """Who is asked next. `stays`: one more of the revision that failed, by a connection nobody has used yet."""

    target: Target
    endpoint: Endpoint
    stays: bool


class Detour(Generic[AnswerT]):
    """The search of one request. Made when its first attempt has failed, which is rare."""

    __slots__ = ("_asked", "_given_up", "_patient_until", "_table", "_tried", "failure", "kept")

    def __init__(self, table: Table, started: float) -> None:
        """`started`: when the request came, in monotonic seconds."""
        self._table = table
        self._patient_until = started + PATIENCE
        self._tried: list[Endpoint] = []
        #: Attempts at the revision asked now.
        self._asked = 0
        self._given_up: list[Target] = []
        #: What first went wrong with the revision that routing chose.
        self.failure: Failure | None = None
        #: A model's own error, to be passed on if nobody does better.
        self.kept: tuple[AnswerT, Target] | None = None

    def tried(self, endpoint: Endpoint) -> None:
        if endpoint not in self._tried:
            self._tried.append(endpoint)
            self._asked += 1

    def give_up(self, target: Target) -> None:
        """Its pods have failed; the next ones asked are another revision's."""
        self._given_up.append(target)
        self._asked = 0

    def next(self, target: Target, chosen: Target, failure: Failure, now: float) -> Step | None:
        """Whom to ask after `target` failed; None if there is nobody. Asking changes nothing."""
        endpoint = self._endpoint(target, failure, now)
        if endpoint is not None:
            return Step(target, endpoint, stays=True)
        return self.leave(target, chosen, failure, now)

    def leave(self, target: Target, chosen: Target, failure: Failure, now: float) -> Step | None:
        """Who comes after `target`: the next of the chain with an endpoint that is not left out for now."""
        gone = (*self._given_up, target)
        chain = [
            other
            for name in self._table.chain
            if (other := self._table.targets[name]) not in gone and (other.breaker is None or other.breaker.ready(now))
        ]
        for other in chain:
            endpoint = other.pick(now, self._table.below, self._tried)
            if endpoint is not None:
                return Step(other, endpoint, stays=False)
        # Nobody is known to be well. An endpoint left out for having refused may be back, and there is no other hope.
        for other in chain if self._tried or failure is Failure.BREAKER else [chosen, *chain]:
            endpoint = other.any(self._tried)
            if endpoint is not None:
                return Step(other, endpoint, stays=False)
        # Only where requests come in: who handed this one on may know somebody else, and asks again if not.
        patient = failure is Failure.CONNECT_TIMEOUT and self._table.chooser is not None and now < self._patient_until
        endpoint = target.any() if patient else None
        return Step(target, endpoint, stays=False) if endpoint is not None else None

    def _endpoint(self, target: Target, failure: Failure, now: float) -> Endpoint | None:
        """Another endpoint of the same revision; after a stale connection the same one, by a fresh connection."""
        if failure is Failure.STALE:
            return self._tried[-1]
        if self._asked >= MAX_ENDPOINTS.get(failure, 0):
            return None
        return target.pick(now, self._table.below, self._tried)

"""The attempts to have a request answered, HTTP/1.1's and gRPC's alike.

The rule of the fallback: as long as not one byte of an answer is out and the request can be sent again, somebody
else may answer. A connection that never opened has consumed nothing, so trying again is always right. One that broke
or fell silent may have reached a model, so trying again takes a request that may be served twice (`idempotent`, or a
method that is so by definition).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic

from ..contract import OUTCOMES
from .detour import BREAKING, FORGIVEN, AnswerT, Detour, Failure
from .errors import SIDECAR, UPSTREAM

if TYPE_CHECKING:
    from ..telemetry import EpochCell
    from .endpoints import Endpoint
    from .table import Table, Target

OK, CLIENT_ERROR, MODEL_ERROR, TIMEOUT, REJECTED, CANCELLED = range(len(OUTCOMES))

#: The client left before its answer was whole; nginx's number for it.
CLIENT_CLOSED: Final = 499


class Attempts(Generic[AnswerT]):
    """Who is asked. Subclasses set every field, ask one endpoint at a time, and pass the answer on."""

    __slots__ = ("_cell", "_chosen", "_detour", "_started", "_target", "table")

    table: Table
    #: When the request was whole enough to be answered, in monotonic seconds.
    _started: float
    #: The revision asked now.
    _target: Target
    #: The revision that routing chose.
    _chosen: Target
    #: What is charged with the request's end; None once it was, or if chance had no say.
    _cell: EpochCell | None
    _detour: Detour[AnswerT] | None

    def lookup(self, name: bytes) -> bytes | None:
        """The value of a request header by its lower-case name."""
        raise NotImplementedError

    # What a subclass calls

    def _begin(self, now: float) -> None:
        """Ask the revision that routing chooses."""
        table = self.table
        if table.waiting:
            self._answer_error(503, "no routing file yet: try again soon", SIDECAR, REJECTED)
            return
        target, self._cell = table.route(self)
        if target is not self._target:
            self._move_to(target)
        self._chosen = target
        if target.breaker is not None and not target.breaker.admit(now):
            self._failed(Failure.BREAKER, None, now)
            return
        endpoint = target.pick(now, table.below)
        if endpoint is None:
            if target.unmet:
                self._cell = None
            self._failed(Failure.NO_ENDPOINT, None, now)
        else:
            self._attempt(endpoint, now)

    def _failed(self, failure: Failure, endpoint: Endpoint | None, now: float) -> None:
        """An attempt came to nothing: somebody else of the revision, another revision, or an error."""
        telemetry = self.table.telemetry
        target = self._target
        if failure.kind:
            telemetry.connection_error(target.name, failure.kind)
        if failure not in FORGIVEN:
            self._charge()
        detour = self._search(endpoint)
        if detour.failure is None:
            detour.failure = failure
        step = detour.next(target, self._chosen, failure, now) if self._may_be_sent_again(failure) else None
        if target.breaker is not None and failure in BREAKING and not (step is not None and step.stays):
            # The revision as a whole: what one pod fails and another one answers is an answer.
            target.breaker.failed(now)
        if step is None:
            self._charge()
            self._give_up(failure, detour)
            return
        if not step.stays:
            detour.give_up(target)
        if step.target is target:
            telemetry.retry(target.name, failure.retry)
        else:
            if step.target is not self._chosen:
                self._charge()
            self._move_to(step.target)
            if step.target.breaker is not None:
                step.target.breaker.admit(now)
        self._attempt(step.endpoint, now, fresh=step.stays)

    def _withheld(self, status: int, reason: bytes, endpoint: Endpoint | None, now: float) -> Failure | None:
        """The failure that an answer with a status of the fallback is; None if nobody else can answer.

        `reason`: what the sidecar asked, if it was one, says of it.
        """
        failure = Failure.STATUS
        if reason == Failure.REFUSED.reason:
            failure = Failure.CONNECT_TIMEOUT if status == 504 else Failure.REFUSED
        detour = self._search(endpoint)
        if self._may_be_sent_again(failure) and detour.next(self._target, self._chosen, failure, now):
            return failure
        return None

    def _keep(self, answer: AnswerT) -> None:
        """A model's own error: passed on if nobody does better."""
        detour = self._search(None)
        if detour.kept is None:
            detour.kept = (answer, self._target)

    def _charge(self) -> None:
        """The revision chosen failed this request, whoever answers it; once."""
        if self._cell is not None:
            self._cell.failed()
            self._cell = None

    def _judge(self, status: int, now: float) -> None:
        """An answer came to its end, or broke off (status 500): what the breaker of who gave it shall know."""
        target = self._target
        if target.breaker is None:
            return
        if status < 500:
            target.breaker.succeeded(now)
        elif self._detour is None or self._detour.kept is None or self._detour.kept[1] is not target:
            # Else it was counted when it was put aside.
            target.breaker.failed(now)

    def _count_fallback(self) -> None:
        """An answer begins. Whether it is another revision's than the one that was to answer."""
        if self._target is not self._chosen and self._detour is not None and self._detour.failure is not None:
            self.table.telemetry.fallback(self._chosen.name, self._target.name, self._detour.failure.fallback)

    # Inside

    def _search(self, endpoint: Endpoint | None) -> Detour[AnswerT]:
        """The search for somebody else, `endpoint` being one that failed."""
        if self._detour is None:
            self._detour = Detour(self.table, self._started)
        if endpoint is not None:
            self._detour.tried(endpoint)
        return self._detour

    def _give_up(self, failure: Failure, detour: Detour[AnswerT]) -> None:
        if detour.kept is None:
            self._move_to(self._chosen)
            outcome = TIMEOUT if failure.status == 504 else MODEL_ERROR
            message = f"{self._chosen.name}: {failure.message}"
            self._answer_error(failure.status, message, UPSTREAM, outcome, reason=failure.reason)
            return
        # The model's own words say more than ours would.
        answer, target = detour.kept
        self._move_to(target)
        self._pass_on(answer)

    def _move_to(self, target: Target) -> None:
        self._target.series.in_flight -= 1
        target.series.in_flight += 1
        self._target = target

    # What a subclass has to say

    def _may_be_sent_again(self, failure: Failure) -> bool:
        raise NotImplementedError

    def _attempt(self, endpoint: Endpoint, now: float, *, fresh: bool = False) -> None:
        """Ask one endpoint; by a connection that nobody has used yet if `fresh`."""
        raise NotImplementedError

    def _pass_on(self, answer: AnswerT) -> None:
        """Answer with a model's own error that was kept."""
        raise NotImplementedError

    def _answer_error(self, status: int, message: str, blame: bytes, outcome: int, *, reason: bytes = b"") -> None:
        """Answer in the sidecar's own name. `reason`: for the sidecar that handed the request on."""
        raise NotImplementedError

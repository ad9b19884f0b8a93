"""The attempts to have a request answered, HTTP/1.1's and gRPC's alike.

The rule of the fallback: as long as not one byte of an answer is out and the request can be sent again, somebody
else may answer. A connection that never opened has consumed nothing, so trying again is always right. One that broke
or fell silent may have reached a model, so trying again takes a request that may be served twice (`idempotent`, or a
method that is so by definition).
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final, Generic

from ..contract import OUTCOMES
from .detour import BREAKING, FORGIVEN, SPENDING, AnswerT, Detour, Failure
from .errors import BOTH, SIDECAR, UPSTREAM
from .gate import Entry

if TYPE_CHECKING:
    from ..telemetry import EpochCell
    from .endpoints import Endpoint
    from .table import Table, Target

OK, CLIENT_ERROR, MODEL_ERROR, TIMEOUT, REJECTED, CANCELLED = range(len(OUTCOMES))

#: The client left before its answer was whole; nginx's number for it.
CLIENT_CLOSED: Final = 499
#: Seconds after which a client whom a full queue turned away is to come again.
RETRY_AFTER: Final = 1


class Attempts(Generic[AnswerT]):
    """Who is asked. Subclasses set every field, ask one endpoint at a time, and pass the answer on."""

    __slots__ = ("_cell", "_chosen", "_detour", "_started", "_target", "_waits_at", "table")

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
    #: Whose turn it waits for.
    _waits_at: Endpoint | None

    def lookup(self, name: bytes) -> bytes | None:
        """The value of a request header by its lower-case name."""
        raise NotImplementedError

    # What a subclass calls

    def _begin(self, now: float) -> None:
        """Ask the revision that routing chooses."""
        table = self.table
        if table.waiting:
            self._answer_error(503, "no routing file yet: try again soon", SIDECAR, REJECTED, why="no_routing")
            return
        target, self._cell = table.route(self)
        if target is not self._target:
            self._move_to(target)
        self._chosen = target
        target.budget.requests += 1
        if target.breaker is not None and not target.breaker.admit(now):
            self._failed(Failure.BREAKER, None, now)
            return
        endpoint = target.pick(now, table.below)
        if endpoint is None:
            if target.unmet:
                self._cell = None
            self._failed(Failure.NO_ENDPOINT, None, now)
        elif endpoint.gate is None:
            self._ask(endpoint, now)
        else:
            self._attempt(endpoint, now)

    def _attempt(self, endpoint: Endpoint, now: float, *, fresh: bool = False) -> None:
        """Ask an endpoint, when it is this request's turn."""
        gate = endpoint.gate
        if gate is None:
            self._ask(endpoint, now, fresh=fresh)
            return
        entry = gate.enter(self, now)
        if entry is Entry.ADMITTED:
            self._ask(endpoint, now, fresh=fresh)
        elif entry is Entry.QUEUED:
            self._waits_at = endpoint
            self._watch_queue(now + self.table.timeouts.response)
        else:
            self._failed(Failure.QUEUE_FULL, endpoint, now)

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
        hindrance = ""
        step = detour.next(target, self._chosen, failure, now)
        if step is not None and not self._may_be_sent_again(failure):
            hindrance = "" if self._kept_whole else "the request was too long to be kept for another one"
            step = None
        if step is not None and step.stays and failure in SPENDING and not target.budget.withdraw(now):
            # The fallback has a load of its own, and each request comes to it once: that is no retry.
            telemetry.retry_overflow(target.name)
            hindrance = "the retry budget is spent"
            step = detour.leave(target, self._chosen, failure, now)
        if target.breaker is not None and failure in BREAKING and not (step is not None and step.stays):
            # The revision as a whole: what one pod fails and another one answers is an answer.
            target.breaker.failed(now)
        if step is None:
            self._charge()
            self._give_up(failure, detour, hindrance)
            return
        if not step.stays:
            detour.give_up(target)
        if step.target is target:
            telemetry.retry(target.name, failure.retry)
        else:
            if step.target is not self._chosen:
                self._charge()
            self._move_to(step.target)
            step.target.budget.requests += 1
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
        elif reason == Failure.QUEUE_FULL.reason:
            failure = Failure.QUEUE_FULL
        # What another pod's sidecar turned away unread is nobody's answer, whatever the fallback's statuses are.
        if status not in self.table.statuses and (failure is Failure.STATUS or self.table.chooser is None):
            return None
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

    # The queue

    def admitted(self, now: float) -> None:
        """The gate's word that the turn has come."""
        endpoint, self._waits_at = self._waits_at, None
        if endpoint is not None:
            self._ask(endpoint, now, fresh=self._detour is not None)

    def _stop_waiting(self) -> None:
        if self._waits_at is not None:
            endpoint, self._waits_at = self._waits_at, None
            if endpoint.gate is not None:
                endpoint.gate.forget(self, monotonic())

    def _waited_too_long(self, now: float) -> None:
        endpoint, self._waits_at = self._waits_at, None
        if endpoint is not None and endpoint.gate is not None:
            endpoint.gate.time_out(self, now)
        self._failed(Failure.QUEUE_FULL, endpoint, now)

    # Inside

    def _search(self, endpoint: Endpoint | None) -> Detour[AnswerT]:
        """The search for somebody else, `endpoint` being one that failed."""
        if self._detour is None:
            self._detour = Detour(self.table, self._started)
        if endpoint is not None:
            self._detour.tried(endpoint)
        return self._detour

    def _give_up(self, failure: Failure, detour: Detour[AnswerT], hindrance: str) -> None:
        """`hindrance`: why the sidecar asked nobody else although there was somebody; empty if there was not."""
        if detour.kept is None:
            self._move_to(self._chosen)
            message, who = f"{self._chosen.name}: {failure.message}", UPSTREAM
            outcome, wait = TIMEOUT if failure.status == 504 else MODEL_ERROR, 0
            if failure is Failure.QUEUE_FULL:
                who, outcome, wait = SIDECAR, REJECTED, RETRY_AFTER
            elif hindrance:
                message, who = f"{message}; {hindrance}", BOTH
            elif failure is Failure.BREAKER:
                who = BOTH
            why, reason = failure.fallback, failure.reason
            self._answer_error(failure.status, message, who, outcome, why=why, reason=reason, retry_after=wait)
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

    @property
    def _kept_whole(self) -> bool:
        """All that has come of the request is still here."""
        raise NotImplementedError

    def _may_be_sent_again(self, failure: Failure) -> bool:
        raise NotImplementedError

    def _ask(self, endpoint: Endpoint, now: float, *, fresh: bool = False) -> None:
        """Ask one endpoint; by a connection that nobody has used yet if `fresh`."""
        raise NotImplementedError

    def _watch_queue(self, deadline: float) -> None:
        """It waits for its turn, but no longer than this."""
        raise NotImplementedError

    def _pass_on(self, answer: AnswerT) -> None:
        """Answer with a model's own error that was kept."""
        raise NotImplementedError

    def _answer_error(
        self,
        status: int,
        message: str,
        who: bytes,
        outcome: int,
        *,
        why: str,
        reason: bytes = b"",
        retry_after: int = 0,
    ) -> None:
        """Answer in the sidecar's own name.

        `who` failed, and `why` (a word of telemetry.refusals); `reason`: for the sidecar that handed the request on;
        `retry_after`: seconds.
        """
        raise NotImplementedError

"""What people tell it: promote, rollback, pause, resume, retry. An order that means nothing now is refused."""

from __future__ import annotations

from ..api import conditions as reasons
from ..api.status import MAX_ORDERS
from .actions import holding
from .gate import mismatch
from .model import Order
from .steps import waits_to_be_told
from .turn import Turn


def obey(turn: Turn) -> None:
    """Carry out or refuse each order, in the order they came."""
    for order in turn.observed.orders:
        if order.id in turn.status.orders:
            continue
        if order.repeats:
            turn.update(orders=(*turn.status.orders, order.id)[-MAX_ORDERS:])
        refusal = _refusal(turn, order) or _VERBS[order.verb](turn, order)
        if refusal:
            turn.refused[order.id] = refusal
            turn.tell(reasons.ORDER_REFUSED, f"{order.verb}: {refusal}", warning=True)


def _refusal(turn: Turn, order: Order) -> str:
    if not order.revision:
        return ""
    meant = turn.target.name if order.verb == "retry" else turn.rollout.revision if turn.rollout else turn.stable
    if order.revision in (meant, turn.version(meant)):
        return ""
    return f"the order names {order.revision}, but now it is about {turn.version(meant)} ({meant or 'nothing yet'})"


def _by(order: Order) -> str:
    return f" by {order.actor}" if order.actor else ""


def _promote(turn: Turn, order: Order) -> str:
    rollout = turn.rollout
    if rollout is None or rollout.promoted_at:
        return "no rollout is under way"
    if not rollout.previous:
        return "the first revision needs no promotion: it serves as soon as it is ready"
    if why := mismatch(turn):
        return why
    turn.move(rollout, full=True, promoting=True, held="")
    turn.tell("PromoteOrdered", f"rollout {rollout.id}: promotion ordered{_by(order)}")
    return ""


def _rollback(turn: Turn, order: Order) -> str:
    rollout = turn.rollout
    message = f"ordered{_by(order)}"
    if rollout is not None:
        if not rollout.previous:
            return "the first revision has nothing to go back to"
        turn.roll_back(rollout, reasons.ROLLED_BACK_BY_ORDER, message, evidence=turn.status.verdicts, actor=order.actor)
        return ""
    previous = turn.status.previous
    if not turn.stable or previous not in turn.records or previous == turn.stable:
        return "no previous revision is kept"
    if back := turn.quarantined(previous):
        return f"{back.version}, the previous one, is quarantined ({back.reason})"
    turn.retreat_from_stable(message, order.actor)
    return ""


def _pause(turn: Turn, order: Order) -> str:
    rollout = turn.rollout
    if rollout is None or not turn.canary:
        return "no rollout is under way"
    if rollout.held:
        return "it is paused already"
    turn.move(rollout, held="order")
    turn.tell("Paused", f"rollout {rollout.id}: paused{_by(order)}")
    return ""


def _resume(turn: Turn, order: Order) -> str:
    rollout = turn.rollout
    if rollout is None or not turn.canary:
        return "no rollout is under way"
    if turn.spec.paused:
        return "spec.paused is true: set it to false"
    told = waits_to_be_told(turn)
    if not rollout.held and not told:
        alerts = ", ".join(alert.name for alert in holding(turn))
        return f"alert {alerts} holds it: `promote` does not wait for that" if alerts else "it is not paused"
    waives = told or rollout.held == "inconclusive"
    turn.move(rollout, held="", waived=rollout.step if waives else rollout.waived)
    turn.tell("Resumed", f"rollout {rollout.id}: resumed{_by(order)}")
    return ""


def _retry(turn: Turn, order: Order) -> str:
    if turn.quarantined(turn.target.name) is None:
        return f"{turn.target.version} is not quarantined"
    turn.update(quarantined=tuple(q for q in turn.status.quarantined if q.revision != turn.target.name))
    turn.tell("RetryOrdered", f"{turn.target.version} leaves quarantine{_by(order)}")
    return ""


_VERBS = {"promote": _promote, "rollback": _rollback, "pause": _pause, "resume": _resume, "retry": _retry}

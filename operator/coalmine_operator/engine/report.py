"""Phase, message, tracks and conditions: what people and dashboards read. Follows from the rest of the status."""

from __future__ import annotations

from typing import Final, Literal

from ..api import conditions as reasons
from ..api.status import Condition, Phase, TrackStatus
from .actions import holding, standing_in
from .gate import on_stable, tell_stable
from .model import Plan
from .steps import deciding, pods_needed, waits_to_be_told
from .turn import Turn

#: Characters of the status's message.
MAX_TEXT: Final = 2000
#: Characters of a condition's message.
MAX_CONDITION: Final = 1000


def _phase(turn: Turn) -> tuple[Phase, str]:
    rollout = turn.rollout
    if turn.problems:
        return "InvalidSpec", "; ".join(turn.problems)[:MAX_TEXT]
    if rollout is None:
        return _phase_at_rest(turn)
    if not rollout.previous:
        if turn.observed.refused:
            return "Degraded", turn.observed.refused
        return ("Degraded" if turn.waiting_for else "Pending"), turn.waiting_for or _no_pods(turn, rollout.revision)
    if rollout.promoted_at:
        return "Baking", f"{turn.version(rollout.revision)} is stable and still guarded"
    if holding(turn) and not (rollout.held or turn.spec.paused):
        return "Paused", turn.waiting_for
    if rollout.promoting:
        return "Promoting", turn.waiting_for
    if rollout.held == "inconclusive":
        unknown = ", ".join(v.metric for v in deciding(turn, rollout) if v.verdict == "Unknown")
        return "Paused", f"inconclusive ({unknown}): `resume` waives it, `rollback` ends it"
    if rollout.held or turn.spec.paused or waits_to_be_told(turn):
        return "Paused", "spec.paused is true" if turn.spec.paused else "until `resume` or `promote`"
    if not turn.spec.replicas:
        return "Paused", turn.waiting_for
    return "Progressing", turn.waiting_for


def _lost(turn: Turn) -> str:
    """What to do about a stable revision of which nothing but its running pods is left."""
    record = turn.record(turn.stable)
    if record is None or not record.lost:
        return ""
    return (
        f"the record of {record.version} ({record.name}) was deleted: its Deployment runs on as it is, cannot be "
        f"scaled or made again; apply the manifest of {record.version} once more, or promote another version"
    )


def _phase_at_rest(turn: Turn) -> tuple[Phase, str]:
    status = turn.status
    last = status.last_rollback
    if last is not None and not last.done_at:
        return "RollingBack", last.message
    if turn.observed.refused:
        return "Degraded", turn.observed.refused
    if not turn.stable:
        return "Pending", ""
    quarantined = turn.quarantined(turn.target.name) if turn.target.name != turn.stable else None
    if quarantined is not None:
        return "Degraded", f"{quarantined.version} is quarantined ({quarantined.reason}): change it, or `retry`"
    if not turn.ready(turn.stable) and turn.spec.replicas:
        return "Degraded", _no_pods(turn, turn.stable)
    if standing_in(turn):
        return "Degraded", _for_stable(turn)
    return "Healthy", ""


def _for_stable(turn: Turn) -> str:
    """Who answers for a stable that an alert is about."""
    alerts = ", ".join(dict.fromkeys(alert.name for alert in standing_in(turn)))
    return f"{turn.version(turn.fallback)} answers for {turn.version(turn.stable)}: alert {alerts}"


def _no_pods(turn: Turn, revision: str) -> str:
    failure = turn.failure(revision)
    return f"no pod of {turn.version(revision)} is ready" + (f": {failure}" if failure else "")


def _conditions(turn: Turn, plan: Plan, phase: Phase) -> dict[str, tuple[bool, str, str]]:
    rollout, status = turn.rollout, turn.status
    serving = (
        {r.revision for r in plan.routing.routes if r.weight and turn.ready(r.revision)} if plan.routing else set()
    )
    if standing_in(turn):
        available = (True, reasons.SERVED_BY_FALLBACK, _for_stable(turn))
    elif turn.ready(turn.stable):
        available = (True, reasons.MINIMUM_REPLICAS_AVAILABLE, turn.observed.refused)
    elif turn.observed.refused:
        available = (False, reasons.APPLY_REFUSED, turn.observed.refused)
    elif serving:
        names = ", ".join(turn.version(name) for name in sorted(serving))
        available = (True, reasons.SERVED_BY_FALLBACK, f"{names} answers for stable")
    else:
        available = (False, reasons.NO_READY_PODS, turn.failure(turn.stable))
    progressing = {
        "Pending": (True, reasons.WAITING_FOR_PODS),
        "Progressing": (True, reasons.ROLLOUT_IN_PROGRESS),
        "Promoting": (True, reasons.ROLLOUT_IN_PROGRESS),
        "Baking": (True, reasons.BAKING),
        "RollingBack": (True, reasons.ROLLING_BACK),
        "Paused": (False, reasons.ROLLOUT_PAUSED),
        "Healthy": (False, reasons.ROLLOUT_COMPLETE),
        "Degraded": (False, reasons.REVISION_QUARANTINED if turn.stable else reasons.PROGRESS_DEADLINE_EXCEEDED),
        "InvalidSpec": (False, reasons.INVALID_SPEC),
    }[phase]
    if phase == "Degraded" and turn.stable and turn.quarantined(turn.target.name) is None:
        progressing = (False, reasons.NO_READY_PODS if not turn.ready(turn.stable) else reasons.SERVED_BY_FALLBACK)
    if phase == "Paused" and holding(turn) and rollout and not (rollout.held or turn.spec.paused):
        progressing = (False, reasons.HELD_BY_ALERT)
    if phase == "Degraded" and turn.observed.refused:
        progressing = (False, reasons.APPLY_REFUSED)
    if phase in ("Progressing", "Promoting") and rollout and turn.ready(rollout.revision) < pods_needed(turn, rollout):
        progressing = (True, reasons.WAITING_FOR_PODS)
    # While a newer manifest is refused, the target is that of the last good one.
    promoted = bool(turn.stable) and turn.stable == turn.target.name and not turn.problems
    how_far = reasons.ROLLOUT_COMPLETE if promoted else _unpromoted(turn)
    fallback = turn.fallback
    if not fallback:
        standing_by = (False, *_no_fallback(turn))
    elif turn.ready(fallback):
        standing_by = (True, reasons.FALLBACK_HAS_READY_PODS, turn.version(fallback))
    else:
        standing_by = (False, reasons.FALLBACK_NOT_READY, turn.failure(fallback))
    back = turn.quarantined(turn.target.name)
    last = status.last_rollback
    return {
        reasons.AVAILABLE: available,
        reasons.PROGRESSING: (*progressing, status.message),
        reasons.PROMOTED: (promoted, how_far, "; ".join(turn.problems)),
        reasons.ROLLED_BACK: (back is not None, back.reason if back else "None", last.message if back and last else ""),
        reasons.FALLBACK_READY: standing_by,
    }


def _no_fallback(turn: Turn) -> tuple[str, str]:
    previous = turn.status.previous
    if turn.spec.fallback is None:
        return reasons.NO_FALLBACK, ""
    if not previous or previous == turn.stable:
        last = turn.status.last_rollback
        if last is not None and last.promoted and last.target == turn.stable:
            return reasons.NO_FALLBACK, f"{last.source_version} was rolled back: the next promotion leaves a fallback"
        return reasons.NO_FALLBACK, "no version was stable before this one"
    quarantined = turn.quarantined(previous)
    why = f"is quarantined ({quarantined.reason})" if quarantined else "is not kept any more"
    return reasons.FALLBACK_MISSING, f"{turn.version(previous)} {why}: the next promotion leaves another one behind"


def _tell_availability(turn: Turn, before: Condition | None, reason: str, message: str) -> None:
    """Who answers is worth an event, but for the first pods and the first time that they are seen."""
    if before is None or before.reason == reason or any(event.reason == "Promoted" for event in turn.events):
        return
    if reason == reasons.MINIMUM_REPLICAS_AVAILABLE:
        turn.tell(reason, f"{turn.version(turn.stable)} answers again")
    elif reason in (reasons.SERVED_BY_FALLBACK, reasons.NO_READY_PODS):
        turn.tell(reason, message or "no version has a ready pod: requests get 503", warning=True)


def _unpromoted(turn: Turn) -> str:
    if turn.problems:
        return reasons.INVALID_SPEC
    return reasons.ROLLOUT_IN_PROGRESS if turn.rollout is not None else reasons.WAITING_FOR_PODS


def _track(turn: Turn, plan: Plan, revision: str) -> TrackStatus | None:
    if not revision:
        return None
    routes = plan.routing.routes if plan.routing else ()
    return TrackStatus(
        revision=revision,
        version=turn.version(revision),
        weight=next((route.weight for route in routes if route.revision == revision), 0),
        ready=turn.ready(revision),
        desired=plan.replicas.get(revision, 0),
    )


def report(turn: Turn, plan: Plan) -> None:
    """Write what people read into the status."""
    phase, message = _phase(turn)
    rollout = turn.rollout
    stable = rollout.revision if rollout and not rollout.previous else turn.stable
    loaded = on_stable(turn, stable)
    without = loaded[2] if loaded and not loaded[0] else ""
    # Whatever else goes on: these wait for somebody to mend them.
    wrong = [why for why in (turn.observed.refused, _lost(turn), without) if why and why not in message]
    message = "; ".join((*wrong, message) if message else wrong)[:MAX_TEXT]
    steps = turn.spec.strategy.canary.steps
    turn.update(phase=phase, message=message)
    before = {condition.type: condition for condition in turn.status.conditions}
    conditions = []
    found = _conditions(turn, plan, phase)
    if loaded is not None:
        found[reasons.BASELINE_LOADED] = loaded
        tell_stable(turn, stable, before.get(reasons.BASELINE_LOADED), loaded[1], loaded[2][:MAX_CONDITION])
    if turn.stable:
        _tell_availability(turn, before.get(reasons.AVAILABLE), *found[reasons.AVAILABLE][1:])
    for kind, (holds, reason, text) in found.items():
        value: Literal["True", "False"] = "True" if holds else "False"
        old = before.get(kind)
        since = old.last_transition_time if old and old.status == value else turn.now
        generation = turn.metadata.generation
        conditions.append(
            Condition(
                type=kind,
                status=value,
                reason=reason,
                message=text[:MAX_CONDITION],
                last_transition_time=since,
                observed_generation=generation,
            )
        )
    turn.update(
        observed_generation=turn.metadata.generation,
        conditions=tuple(conditions),
        stable=_track(turn, plan, stable),
        canary=_track(turn, plan, turn.canary),
        fallback=_track(turn, plan, turn.fallback),
        step=f"{min(rollout.step, len(steps))}/{len(steps)}" if rollout and turn.canary else "",
        replicas=turn.ready(turn.stable),
    )

"""From step to step: scale the canary, give it weight, pause, ask the verdicts, promote."""

from __future__ import annotations

from collections.abc import Iterable

from ..analysis import by_shadow, worst
from ..api import conditions as reasons
from ..api.duration import show_seconds
from ..api.spec import Pause, Step
from ..api.status import Rollout, Verdict
from .actions import acting, holding
from .alerts import blocking
from .gate import PROBLEM, mismatch, on_baseline
from .traffic import pods_for
from .turn import Turn

#: Seconds until the next look while sidecars take up new weights.
SOON = 0.2
#: Seconds after which those that have not taken them up are named, and how many of them.
PATIENCE = 30.0
NAMED = 3


def epoch_name(rollout: Rollout) -> str:
    """The name under which sidecars count for the present stretch of the rollout."""
    return f"{rollout.id}.{rollout.epoch}"


def waits_to_be_told(turn: Turn) -> bool:
    """The rollout stands at a pause without an end of its own."""
    rollout, steps = turn.rollout, turn.spec.strategy.canary.steps
    if rollout is None or rollout.promoting or rollout.step >= len(steps) or rollout.waived == rollout.step:
        return False
    pause = steps[rollout.step].pause
    return pause is not None and pause.duration is None and pause.requests is None


def pods_needed(turn: Turn, rollout: Rollout) -> int:
    """Pods the canary must have ready before it may go on."""
    replicas = turn.spec.replicas
    if not rollout.previous or rollout.promoting:
        return replicas
    steps = turn.spec.strategy.canary.steps
    step = steps[rollout.step] if rollout.step < len(steps) else Step()
    # A copy is as much work as a request.
    return pods_for(max(rollout.weight, rollout.mirror, step.set_weight or 0, step.set_mirror or 0), replicas)


def step_requests(turn: Turn, rollout: Rollout) -> int:
    """What the canary did since its step began: requests answered, or copies of them that were compared."""
    counts = turn.observed.epochs.get(epoch_name(rollout), {}).get(rollout.revision)
    if counts is None:
        return rollout.step_requests
    return rollout.step_requests + (counts.compared if rollout.epoch_mirror else counts.requests)


def advance(turn: Turn) -> None:
    """Take every step that can be taken now."""
    rollout = turn.rollout
    if rollout is None or rollout.promoted_at:
        return
    if not rollout.previous:
        if turn.ready(rollout.revision) or not turn.spec.replicas:
            turn.promote(rollout)
        return
    if turn.problems or turn.spec.paused or rollout.held:
        return
    if _held_by_alert(turn, rollout):
        return
    if not turn.spec.replicas:
        turn.waiting_for = "spec.replicas is 0: nothing can be compared"
        return
    while rollout is not None and _take_one(turn, rollout):
        rollout = turn.rollout


def _held_by_alert(turn: Turn, rollout: Rollout) -> bool:
    """Told once when it begins, and once when it is over."""
    alerts = holding(turn)
    before = any(condition.reason == reasons.HELD_BY_ALERT for condition in turn.status.conditions)
    if alerts:
        turn.waiting_for = f"held by alert {', '.join(dict.fromkeys(alert.name for alert in alerts))}"
        if not before:
            turn.tell(reasons.HELD_BY_ALERT, f"rollout {rollout.id}: {turn.waiting_for}", warning=True)
    elif before:
        turn.tell(reasons.HOLD_OVER, f"rollout {rollout.id}: no alert holds it any more")
    return bool(alerts)


def _take_one(turn: Turn, rollout: Rollout) -> bool:
    """Try the present step; True when there is another one to try."""
    steps = turn.spec.strategy.canary.steps
    if rollout.promoting:
        return _promote(turn, rollout)
    if rollout.step >= len(steps):
        return _begin_promotion(turn, rollout)
    step = steps[rollout.step]
    if step.pause is not None:
        done = _pause(turn, rollout, step.pause)
    elif step.set_mirror is not None:
        done = _set_mirror(turn, rollout, step.set_mirror)
    else:
        done = _set_weight(turn, rollout, step.set_weight or 0)
    if done and turn.rollout is not None:
        turn.move(turn.rollout, step=rollout.step + 1, step_at=turn.now, step_requests=0)
    return done


def _has_pods(turn: Turn, rollout: Rollout) -> bool:
    needed, ready = pods_needed(turn, rollout), turn.ready(rollout.revision)
    if ready >= needed:
        return True
    failure = turn.failure(rollout.revision)
    turn.waiting_for = f"{ready} of {needed} pods of {turn.version(rollout.revision)} ready{failure and f': {failure}'}"
    return False


def _set_weight(turn: Turn, rollout: Rollout, weight: int) -> bool:
    if not _has_pods(turn, rollout):
        return False
    if weight and rollout.mirror:
        if not _conclusive(turn, rollout):
            return False
        # A canary with users needs no copies: its weight is its load, and comparing goes on with their requests.
        rollout = turn.move(rollout, mirror=0)
    if rollout.weight != weight:
        turn.move(rollout, weight=weight)
        turn.tell("WeightSet", f"rollout {rollout.id}: {turn.version(rollout.revision)} gets {weight} %")
    return _in_force(turn, rollout.revision, weight)


def _set_mirror(turn: Turn, rollout: Rollout, percent: int) -> bool:
    if not _has_pods(turn, rollout):
        return False
    if rollout.mirror != percent:
        turn.move(rollout, mirror=percent)
        turn.tell(
            "MirrorSet",
            f"rollout {rollout.id}: {turn.version(rollout.revision)} gets copies of {percent} % of requests",
        )
    if turn.observed.mirrors.get(rollout.revision, 0) == percent:
        return True
    _wait_for_sidecars(turn, f"mirroring {percent} %")
    return False


def _in_force(turn: Turn, revision: str, weight: int) -> bool:
    if turn.observed.weights.get(revision, 0) == weight:
        return True
    _wait_for_sidecars(turn, f"weight {weight}")
    return False


def _wait_for_sidecars(turn: Turn, what: str) -> None:
    """An epoch begins with the shares that sidecars are to take up: since then they have had time."""
    turn.waiting_for = f"sidecars take up {what}"
    turn.wake(turn.now + SOON)
    rollout, behind = turn.rollout, turn.observed.behind
    if rollout is None or not behind:
        return
    begun = (rollout.epoch_weight, rollout.epoch_mirror) == (rollout.weight, rollout.mirror)
    if not begun or turn.now - rollout.epoch_at < PATIENCE:
        return
    more = f" and {len(behind) - NAMED} more" if len(behind) > NAMED else ""
    named = ", ".join(behind[:NAMED])
    turn.waiting_for += f": {named}{more}; delete a pod that stays behind, and look whether the operator reaches :8010"


def _pause(turn: Turn, rollout: Rollout, pause: Pause) -> bool:
    if rollout.waived == rollout.step:
        return True
    if waits_to_be_told(turn):
        turn.waiting_for = "paused until `resume`"
        return False
    left = (pause.duration or 0.0) - (turn.now - rollout.step_at)
    if left > 0:
        turn.waiting_for = f"pause of {show_seconds(pause.duration or 0.0)}"
        turn.wake(turn.now + left)
        return False
    if pause.requests is not None:
        seen = step_requests(turn, rollout)
        if seen < pause.requests:
            what = "mirrored requests compared" if rollout.mirror else "canary requests"
            turn.waiting_for = f"{seen} of {pause.requests} {what}"
            return False
    return _conclusive(turn, rollout)


def deciding(turn: Turn, rollout: Rollout) -> tuple[Verdict, ...]:
    """The verdicts that the rollout waits for: while the canary has no users, only those that need none."""
    if rollout.weight:
        return turn.status.verdicts
    shadow = by_shadow(turn.spec.analysis, turn.status.verdicts) if rollout.mirror else ()
    return (*shadow, *on_baseline(turn))


def _conclusive(turn: Turn, rollout: Rollout) -> bool:
    """Whether the verdicts let the rollout go on; what `onInconclusive` says is done otherwise."""
    if why := mismatch(turn):
        turn.waiting_for = why
        return False
    verdicts = deciding(turn, rollout)
    if worst(verdicts) == "Pass" or rollout.waived == rollout.step:
        return True
    why = _unknowns(verdicts)
    match turn.spec.analysis.on_inconclusive:
        case "Wait":
            turn.waiting_for = why
        case "Pause":
            turn.move(rollout, held="inconclusive")
            turn.waiting_for = why
            turn.tell(reasons.INCONCLUSIVE_ANALYSIS, f"rollout {rollout.id}: paused: {why}", warning=True)
        case "Rollback":
            turn.roll_back(rollout, reasons.INCONCLUSIVE_ANALYSIS, why, evidence=turn.status.verdicts)
    return False


def _unknowns(verdicts: Iterable[Verdict]) -> str:
    lines = []
    for verdict in verdicts:
        if verdict.verdict == "Unknown":
            why = ": ".join(filter(None, (verdict.reason, str(verdict.evidence.get(PROBLEM, "")))))
            lines.append(f"{verdict.metric}: Unknown ({why})")
    return "; ".join(lines) or "no verdict yet"


def _begin_promotion(turn: Turn, rollout: Rollout) -> bool:
    if not _conclusive(turn, rollout):
        return False
    alerts = blocking(acting(turn), turn.spec.analysis.interval, turn.now)
    if alerts:
        turn.waiting_for = f"{reasons.PREEXISTING_ALERT}: {', '.join(alert.name for alert in alerts)} blocks promotion"
        turn.wake(turn.now + turn.spec.analysis.interval)
        return False
    turn.move(rollout, promoting=True)
    return True


def _promote(turn: Turn, rollout: Rollout) -> bool:
    if not _has_pods(turn, rollout):
        return False
    if rollout.weight != 100:
        if why := mismatch(turn):
            turn.waiting_for = why
            return False
        turn.move(rollout, weight=100, mirror=0)
        turn.tell("Promoting", f"rollout {rollout.id}: {turn.version(rollout.revision)} gets all traffic")
    if _in_force(turn, rollout.revision, 100):
        turn.promote(rollout)
    return False

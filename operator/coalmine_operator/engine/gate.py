"""The gate of the baseline: a canary that is held against another version's data becomes no stable revision.

Of stable, which has no verdict, a condition says what is wrong with its baseline.
"""

from __future__ import annotations

from typing import Any, Final

from ..api import conditions as reasons
from ..api.monitoring import BASELINE
from ..api.status import Condition, Verdict
from .baselines import without_bins
from .model import BaselineState
from .turn import Turn

#: In a verdict's evidence: what is wrong, for people.
PROBLEM: Final = "problem"
_NOT_READ: Final = BaselineState(problem="missing", message="it is not read yet")


def on_baseline(turn: Turn) -> tuple[Verdict, ...]:
    """The verdict on the canary's baseline; none where the spec asks for no baseline, or there is no canary."""
    state = _state(turn)
    if state is None:
        return ()
    if state.problem:
        return (Verdict(metric=BASELINE, verdict="Unknown", reason=_reason(state), evidence={PROBLEM: state.message}),)
    evidence: dict[str, Any] = {"digest": state.digest}
    if state.baseline is not None and turn.spec.monitoring is not None:
        evidence["rows"] = state.baseline.rows
        if missing := without_bins(turn.spec.monitoring, state.baseline):
            evidence["notInIt"] = missing
    return (Verdict(metric=BASELINE, verdict="Pass", reason=reasons.BASELINE_MATCHES, evidence=evidence),)


def mismatch(turn: Turn) -> str:
    """Why the canary must not be promoted whatever else speaks for it, or nothing.

    Too little evidence is for `onInconclusive` to decide and for people to waive; this is a slip, and to be mended.
    """
    state = _state(turn)
    if state is None or state.problem != "mismatch":
        return ""
    return f"{reasons.BASELINE_MISMATCH}: {state.message}"


def tell_mismatch(turn: Turn, before: tuple[Verdict, ...]) -> None:
    """An event, once for each message. `before`: the verdicts of the last look."""
    why = mismatch(turn)
    if why and on_baseline(turn)[0] not in before:
        turn.tell(reasons.BASELINE_MISMATCH, f"{turn.version(turn.canary)} is not promoted: {why}", warning=True)


def on_stable(turn: Turn, revision: str) -> tuple[bool, str, str] | None:
    """Whether the baseline of `revision`, which is stable, is in use, with a reason and what is wrong.

    None where it has none to use.
    """
    state, monitoring = turn.observed.baselines.get(revision), turn.spec.monitoring
    if state is None or monitoring is None:
        return None
    if state.problem:
        return False, _reason(state), f"{turn.version(revision)} has no baseline: {state.message}"
    missing = without_bins(monitoring, state.baseline) if state.baseline is not None else []
    if missing:
        names = ", ".join(missing)
        message = f"the baseline of {turn.version(revision)} has no bins for {names}: no drift is told of what has none"
        return True, reasons.BASELINE_INCOMPLETE, message
    return True, reasons.BASELINE_MATCHES, ""


def tell_stable(turn: Turn, revision: str, before: Condition | None, reason: str, message: str) -> None:
    """An event, once for each message. `before`: the condition as it was."""
    if before is not None and (before.reason, before.message) == (reason, message):
        return
    if message:
        turn.tell(reason, message, warning=True)
    elif before is not None:
        turn.tell(reason, f"the baseline of {turn.version(revision)} is in use")


def _reason(state: BaselineState) -> str:
    return reasons.BASELINE_MISMATCH if state.problem == "mismatch" else reasons.BASELINE_MISSING


def _state(turn: Turn) -> BaselineState | None:
    monitoring = turn.spec.monitoring
    if not turn.canary or monitoring is None or monitoring.baseline is None:
        return None
    return turn.observed.baselines.get(turn.canary, _NOT_READ)

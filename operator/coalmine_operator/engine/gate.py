"""The gate of the baseline: a canary that is held against another version's data becomes no stable revision."""

from __future__ import annotations

from typing import Any, Final

from ..api import conditions as reasons
from ..api.monitoring import BASELINE
from ..api.status import Verdict
from .baselines import with_bins
from .model import BaselineState
from .turn import Turn

#: In a verdict's evidence: what is wrong, for people.
PROBLEM: Final = "problem"
#: Features that are named in a verdict.
NAMED: Final = 5
_NOT_READ: Final = BaselineState(problem="missing", message="it is not read yet")


def on_baseline(turn: Turn) -> tuple[Verdict, ...]:
    """The verdict on the canary's baseline; none where the spec asks for no baseline, or there is no canary."""
    state = _state(turn)
    if state is None:
        return ()
    if state.problem:
        reason = reasons.BASELINE_MISMATCH if state.problem == "mismatch" else reasons.BASELINE_MISSING
        return (Verdict(metric=BASELINE, verdict="Unknown", reason=reason, evidence={PROBLEM: state.message}),)
    evidence: dict[str, Any] = {"digest": state.digest}
    if state.baseline is not None and turn.spec.monitoring is not None:
        evidence["rows"] = state.baseline.rows
        known = with_bins(turn.spec.monitoring, state.baseline)
        if missing := [one.name for one in turn.spec.monitoring.features if one.name not in known]:
            # Watched, and of another kind there, or not there at all: completeness is all that is told of them.
            evidence["notInIt"] = [*missing[:NAMED], *([f"and {len(missing) - NAMED} more"] if missing[NAMED:] else [])]
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


def _state(turn: Turn) -> BaselineState | None:
    monitoring = turn.spec.monitoring
    if not turn.canary or monitoring is None or monitoring.baseline is None:
        return None
    return turn.observed.baselines.get(turn.canary, _NOT_READ)

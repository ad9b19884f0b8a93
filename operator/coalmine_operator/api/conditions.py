"""Types and reasons of the conditions in a status, of rollbacks and of events: one word for one thing everywhere."""

from __future__ import annotations

from typing import Final

# Types.
AVAILABLE: Final = "Available"  # somebody answers requests: stable, or whoever stands in for it
PROGRESSING: Final = "Progressing"  # a rollout is under way and moves
PROMOTED: Final = "Promoted"  # the newest revision of the spec became stable
ROLLED_BACK: Final = "RolledBack"  # the newest revision of the spec was taken out
FALLBACK_READY: Final = "FallbackReady"  # a fallback has a ready pod
BASELINE_LOADED: Final = "BaselineLoaded"  # stable's baseline is in use; absent where it has none
TYPES: Final = (AVAILABLE, PROGRESSING, PROMOTED, ROLLED_BACK, FALLBACK_READY, BASELINE_LOADED)

# Reasons of Available.
MINIMUM_REPLICAS_AVAILABLE: Final = "MinimumReplicasAvailable"  # stable has at least one ready pod
SERVED_BY_FALLBACK: Final = "ServedByFallback"  # another revision answers: stable has no ready pod, or an alert asks
NO_READY_PODS: Final = "NoReadyPods"  # no revision has a ready pod: requests get 503
APPLY_REFUSED: Final = "ApplyRefused"  # the API server, or somebody's object, is in the way of what clients need

# Reasons of Progressing.
ROLLOUT_IN_PROGRESS: Final = "RolloutInProgress"  # the canary goes from step to step
ROLLOUT_PAUSED: Final = "RolloutPaused"  # a pause step, an order, `spec.paused` or `onInconclusive: Pause` holds it
HELD_BY_ALERT: Final = "HeldByAlert"  # an alert whose action is `hold` or `fallback` fires
HOLD_OVER: Final = "HoldOver"  # an event: that alert resolved
WAITING_FOR_PODS: Final = "WaitingForPods"  # the canary's pods are not ready yet
BAKING: Final = "Baking"  # promoted, and still guarded for `bakeTime`
ROLLING_BACK: Final = "RollingBack"  # the canary is being taken out
ROLLOUT_COMPLETE: Final = "RolloutComplete"  # nothing to do: the spec's revision is stable

# Why a rollout stands still.
INCONCLUSIVE_ANALYSIS: Final = "InconclusiveAnalysis"  # a verdict stays Unknown and `onInconclusive` decides
PREEXISTING_ALERT: Final = "PreexistingAlert"  # an alert fired before the rollout: no rollback, no promotion either
BASELINE_MISMATCH: Final = "BaselineMismatch"  # the canary's baseline is another version's: never promoted with it
BASELINE_MISSING: Final = "BaselineMissing"  # it cannot be read: Unknown, and `onInconclusive` decides
BASELINE_MATCHES: Final = "BaselineMatches"  # the verdict is Pass
REVISION_QUARANTINED: Final = "RevisionQuarantined"  # rolled back before: comes back by `retry` or a changed template

# Reasons of BaselineLoaded beside the three of baselines above.
BASELINE_INCOMPLETE: Final = "BaselineIncomplete"  # it has no bins for some of the features that are watched

# Why a rollout was rolled back.
PROGRESS_DEADLINE_EXCEEDED: Final = "ProgressDeadlineExceeded"  # nothing advanced for `progressDeadlineSeconds`
ANALYSIS_FAILED: Final = "AnalysisFailed"  # a metric's verdict is Fail
ALERT_FIRING: Final = "AlertFiring"  # an alert of `autoRollback.alerts` began to fire
ROLLED_BACK_BY_ORDER: Final = "RolledBackByOrder"  # somebody told it to

# How else a rollout ends.
WITHDRAWN: Final = "Withdrawn"  # the spec changed on the way: neither promoted nor found bad
PROMOTED_BY_STEPS: Final = "PromotedBySteps"  # all steps done, no verdict against it
PROMOTED_BY_ORDER: Final = "PromotedByOrder"  # somebody told it to
FIRST_REVISION: Final = "FirstRevision"  # nothing was there to compare it with

# Reasons of FallbackReady.
FALLBACK_HAS_READY_PODS: Final = "FallbackReady"
FALLBACK_NOT_READY: Final = "FallbackNotReady"  # there is a fallback, none of its pods is ready
NO_FALLBACK: Final = "NoFallback"  # the spec asks for none, or there is no previous revision yet
FALLBACK_MISSING: Final = "FallbackMissing"  # there was a previous revision, and it cannot stand by

# Of the spec, and of orders.
INVALID_SPEC: Final = "InvalidSpec"  # the newest spec can't be used; the last good one stays in force
ORDER_REFUSED: Final = "OrderRefused"  # an order that means nothing now, such as `promote` without a rollout

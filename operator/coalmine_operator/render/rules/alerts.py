"""Alerts as data: what is asked, from which threshold on, for how long, and what is to be done about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from msgspec import Struct

from ...api.monitoring import Action
from .parameters import Parameters
from .promql import VERSION, Rule, Scope, duration

#: A rollout is undone, or the fallback answers: somebody should know at once. The others can wait for the morning.
_CRITICAL: Final = ("rollback", "fallback")


class Alert(Struct, frozen=True, kw_only=True):
    """`expr` is made with the threshold in force; `hold`: seconds for which it has to be true.

    `retired`: also about versions that get no requests now. `summary` says what is wrong, with the value;
    `description` what to look at.
    """

    name: str
    expr: Callable[[float], str]
    threshold: float
    hold: float
    action: Action
    summary: str
    description: str
    retired: bool = False


def alert_rules(scope: Scope, parameters: Parameters, alerts: Iterator[Alert]) -> Iterator[Rule]:
    """Those that are wanted, as they are wanted."""
    for alert in alerts:
        override = parameters.overrides.get(alert.name)
        if not parameters.defaults if override is None else override.enabled is False:
            continue
        threshold, hold, action = alert.threshold, alert.hold, alert.action
        if override is not None:
            threshold = threshold if override.threshold is None else override.threshold
            hold = hold if override.hold is None else override.hold
            action = override.action or action
        expr = alert.expr(threshold)
        if not alert.retired:
            # Outermost, so that precedence cannot let a part of the expression escape it.
            expr = f"(\n{expr}\n)\nand on ({VERSION}) {scope.own('coalmine:version:serving')}"
        yield {
            "alert": alert.name,
            "expr": expr,
            "for": duration(hold),
            "labels": {
                **scope.labels,
                "severity": "critical" if action in _CRITICAL else "warning",
                "action": action,
            },
            "annotations": _annotations(alert, threshold),
        }


def _annotations(alert: Alert, threshold: float) -> Mapping[str, str]:
    words = {"THRESHOLD": f"{threshold:.4g}", "PERCENT": f"{100 * threshold:.4g} %"}
    texts = {"summary": alert.summary, "description": alert.description}
    for word, value in words.items():
        texts = {key: text.replace(word, value) for key, text in texts.items()}
    return texts


#: How a sentence names a version.
WHO: Final = "{{ $labels.model }} {{ $labels.version }}"
VALUE: Final = "{{ $value | printf `%.3g` }}"
SHARE: Final = "{{ $value | humanizePercentage }}"

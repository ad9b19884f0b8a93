"""The rollout engine: pure functions from spec, status and what is observed to the next status and a plan."""

from .model import BaselineState, Event, Observed, Order, Plan, RevisionRecord, RevisionState, Route, RoutePlan
from .step import step

__all__ = [
    "BaselineState",
    "Event",
    "Observed",
    "Order",
    "Plan",
    "RevisionRecord",
    "RevisionState",
    "Route",
    "RoutePlan",
    "step",
]

"""Counters of the sidecar: plain arrays, written on the hot path, read on a scrape. No I/O, no asyncio, no clock."""

from .counters import EpochCell, QueueCounters, Series
from .store import Telemetry

__all__ = ["EpochCell", "QueueCounters", "Series", "Telemetry"]

"""Small spellings that all views share: times, durations, evidence, text from strangers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from ..api.duration import show_seconds

#: Characters of a text from elsewhere (a log line, a label) that are shown.
SHOWN = 300


def clean(text: str, limit: int = SHOWN) -> str:
    """One printable line: a model's log must not be able to drive the terminal."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def when(at: float) -> str:
    """Local time with its offset: `2026-11-21T22:43:01+00:00`; Unix seconds in."""
    return dt.datetime.fromtimestamp(at, dt.UTC).astimezone().isoformat(timespec="seconds")


def clock(at: float) -> str:
    """Local time of day: `22:43:01`."""
    return dt.datetime.fromtimestamp(at, dt.UTC).astimezone().strftime("%H:%M:%S")


def took(seconds: float) -> str:
    """A length of time to the second, `<1s` for less than one."""
    return show_seconds(round(seconds)) if seconds >= 1 else "<1s"


def number(value: float) -> str:
    """Four significant digits, no exponent for what people count."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{value:.4g}"


def evidence(found: Mapping[str, Any]) -> str:
    """`canary.errors=12 canary.requests=300`: nested mappings by dotted names, in their order."""
    return clean(" ".join(f"{name}={_plain(value)}" for name, value in _flat("", found)))


def labels(given: Mapping[str, str]) -> str:
    return clean(", ".join(f"{name}={value}" for name, value in sorted(given.items()) if name != "alertname"))


def _flat(prefix: str, found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for name, value in found.items():
        if isinstance(value, Mapping):
            flat += _flat(f"{prefix}{name}.", value)
        else:
            flat.append((prefix + str(name), value))
    return flat


def _plain(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ",".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)
    return number(value)

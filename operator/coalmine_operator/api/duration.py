"""Durations as Kubernetes users write them: `250ms`, `15s`, `10m`, `1h30m`, `7d`."""

from __future__ import annotations

import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
#: Ten years: a longer one is a slip of the pen, and times stay exact to the millisecond.
LONGEST = 3650 * 86400.0


class Duration(float):
    """Seconds, to the millisecond, read from a string with units."""

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Raises ValueError with the remedy where the text is no duration."""
        parts = _PART.findall(text) if len(text) <= 64 else []
        if not parts or "".join(number + unit for number, unit in parts) != text:
            raise ValueError("is no duration: write it like 250ms, 15s, 10m or 1h30m")
        seconds = round(sum(float(number) * _UNITS[unit] for number, unit in parts), 3)
        if seconds > LONGEST:
            raise ValueError("is too long: at most 3650d")
        return cls(seconds)

    def __str__(self) -> str:
        return show_seconds(self)


def show_seconds(seconds: float) -> str:
    """The shortest spelling: 0.25 -> `250ms`, 90 -> `1m30s`."""
    if seconds < 0:
        return "-" + show_seconds(-seconds)
    milliseconds = round(seconds * 1000)
    if milliseconds % 1000 and milliseconds < 10_000:
        return f"{milliseconds}ms" if milliseconds < 1000 else f"{milliseconds / 1000:g}s"
    left = round(seconds)
    text = ""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            text += f"{count}{unit}"
    return text or "0s"

"""The one error of the local platform that is meant for people."""

from __future__ import annotations


class Refused(Exception):  # noqa: N818 - a refusal is an answer, not a fault
    """Nothing was started or changed. `lines` say why, one line each: path or place, value, remedy."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines

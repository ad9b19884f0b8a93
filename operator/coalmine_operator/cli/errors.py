"""The errors that the command line shows as one line."""

from __future__ import annotations


class CliError(Exception):
    """`lines` are shown as they are; `code` is the exit status: 1 refused or failed, 2 bad input."""

    def __init__(self, *lines: str, code: int = 1) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
        self.code = code

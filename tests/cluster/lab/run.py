"""Running other programs, with errors that say what they said."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path


class LabError(Exception):
    """The lab cannot do what was asked of it; the text says what happened and where to look."""


def run(
    *argv: str | Path,
    input: str | None = None,  # the name subprocess gives it
    timeout: float = 600,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> str:
    """What the program wrote to standard output.

    Raises LabError with the end of its standard error if it fails or takes longer than `timeout` seconds.
    """
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words, input=input, capture_output=True, text=True, timeout=timeout, env=environment, cwd=folder
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{_short(words)}: no end after {timeout:g} s") from error
    except OSError as error:
        raise LabError(f"{_short(words)}: {error.strerror}") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise LabError(f"{_short(words)}: exit status {done.returncode}: {said}")
    return done.stdout


def _short(words: list[str]) -> str:
    text = " ".join([Path(words[0]).name, *words[1:]])
    return text if len(text) <= 160 else text[:157] + "..."

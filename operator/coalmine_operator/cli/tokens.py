"""Bearer tokens: made, kept for their owner alone, read."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from ..platforms.local.state import write_atomically
from .errors import CliError

MAX_TOKEN: Final = 4096


def new_token() -> str:
    return secrets.token_urlsafe(32)


def read_token(path: Path) -> str:
    """A token from a file. Raises CliError (bad input) where there is none to be had."""
    try:
        with path.open("rb") as file:
            token = file.read(MAX_TOKEN + 1).decode("ascii").strip()
    except OSError as error:
        raise CliError(f"{path}: cannot be read: {error.strerror}", code=2) from error
    except UnicodeDecodeError as error:
        raise CliError(f"{path}: holds a token that is no ASCII text: write a new one", code=2) from error
    if not token or len(token) > MAX_TOKEN or not token.isprintable() or " " in token:
        raise CliError(f"{path}: holds no token: write one word of at most {MAX_TOKEN} characters", code=2)
    return token


def keep_new_token(path: Path) -> str:
    """A new token, kept in a file that only its owner reads: whoever was told it can use it after a restart too."""
    token = new_token()
    write_atomically(path, token.encode() + b"\n")
    return token

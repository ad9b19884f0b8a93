"""Options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

DEFAULT_STATE: Final = Path(".coalmine")

Command = Callable[..., Any]


def state_option(command: Command) -> Command:
    return click.option(
        "--state",
        type=click.Path(path_type=Path, file_okay=False),
        default=DEFAULT_STATE,
        show_default=True,
        metavar="DIR",
        help="State directory of the `coalmine run`.",
    )(command)


def name_argument(command: Command) -> Command:
    """Optional: where there is only one model deployment, that one is meant."""
    return click.argument("name", required=False)(command)


def output_option(command: Command) -> Command:
    return click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)(command)

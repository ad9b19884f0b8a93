"""`coalmine run`: the options; what they start is in `running.py`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from .errors import CliError
from .options import state_option


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@state_option
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8008,
    show_default=True,
    help="Where requests come in; a second model deployment of the file gets ten more, and so on.",
)
@click.option(
    "--web-port",
    type=click.IntRange(0, 65535),
    default=8011,
    show_default=True,
    help="Alerts, API and metrics; 0: any free one.",
)
@click.option(
    "--on-exit",
    type=click.Choice(["stop", "leave"]),
    default="stop",
    show_default=True,
    help="What becomes of the model processes: drained and stopped, or left for the next run.",
)
@click.option(
    "--alerts-token-file",
    type=click.Path(path_type=Path),
    metavar="F",
    help="Bearer token of /alerts  [default: made in the state directory]",
)
@click.pass_obj
def run(
    debug: bool, file: Path, state: Path, port: int, web_port: int, on_exit: str, alerts_token_file: Path | None
) -> None:
    """Run the model deployments of FILE on this machine, and follow the file while it is edited."""
    # Other commands start in a third of the time without what this one needs.
    from coalmine_sidecar.push.settings import push_settings

    from .running import Settings, serve

    try:
        push = push_settings(os.environ)
    except ValueError as error:
        raise CliError(str(error), code=2) from error
    serve(
        Settings(
            file=file,
            state=state,
            port=port,
            web_port=web_port,
            leave=on_exit == "leave",
            alerts_token_file=alerts_token_file,
            debug=debug,
            push=push,
        )
    )

"""`coalmine promote|rollback|pause|resume|retry`: orders to a running `coalmine run`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from .client import Client, pick
from .options import name_argument, state_option
from .words import clean

_VERBS: Final = {
    "promote": "Make the canary stable now, whatever steps are left.",
    "rollback": "Take the canary out, or go back to the previous stable revision.",
    "pause": "Hold the rollout where it is.",
    "resume": "Let a held or waiting rollout go on.",
    "retry": "Try a revision again that was rolled back.",
}


def commands() -> list[click.Command]:
    return [_command(verb, text) for verb, text in _VERBS.items()]


def _command(verb: str, text: str) -> click.Command:
    @click.command(name=verb, help=text)
    @name_argument
    @click.option("--revision", default="", metavar="R", help="Only if the rollout is about this revision or version.")
    @state_option
    def order(name: str | None, revision: str, state: Path) -> None:
        client = Client(state)
        view = pick(client.views(), name)
        click.echo(f"{view.name}: {clean(client.order(view, verb, revision))}")

    return order

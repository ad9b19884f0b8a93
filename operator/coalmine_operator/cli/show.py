"""`coalmine status` and `coalmine history`: of a running `coalmine run`, or of what it left behind."""

from __future__ import annotations

import json
from pathlib import Path

import click
import msgspec
from rich.console import Console, Group

from ..api.codec import from_json, to_builtins
from ..api.problems import Invalid
from ..api.status import Status
from ..web.view import DeploymentView, RevisionView
from .client import Client, NotRunningError, pick
from .errors import CliError
from .history import history_lines, history_view
from .options import name_argument, output_option, state_option
from .views import deployment_panel, plain_lines
from .words import when


@click.command()
@name_argument
@state_option
@output_option
def status(name: str | None, state: Path, output: str) -> None:
    """Phase, weights, verdicts and traffic of model deployments."""
    views, running = _views(state, name)
    console = Console()
    if output == "json":
        click.echo(json.dumps({"running": running, "deployments": to_builtins(views)}, indent=2))
    elif console.is_terminal:
        console.print(Group(*map(deployment_panel, views)))
    else:
        for view in views:
            click.echo("\n".join(plain_lines(view)))
    if not running and output == "text":
        click.echo(f"no coalmine run is running with state directory {state}: this is as of {_as_of(views)}")


@click.command()
@name_argument
@state_option
@output_option
def history(name: str | None, state: Path, output: str) -> None:
    """Rollouts that ended: result, reason and evidence of each."""
    views, _ = _views(state, name)
    console = Console()
    if output == "json":
        click.echo(json.dumps({view.key: to_builtins(view.status.history) for view in views}, indent=2))
    elif console.is_terminal:
        console.print(Group(*map(history_view, views)))
    else:
        for view in views:
            click.echo("\n".join(history_lines(view)))


def _views(state: Path, name: str | None) -> tuple[list[DeploymentView], bool]:
    """The model deployments asked for, and whether somebody is running them."""
    try:
        views, running = Client(state).views(), True
    except NotRunningError:
        views, running = _left_behind(state), False
        if not views:
            raise
    # Without a name all of them; `pick` says what is missing where there is none.
    return ([pick(views, name)] if name or not views else views), running


class _Manifest(msgspec.Struct):
    """What of the platform's manifest.json is needed here."""

    document: dict[str, object]
    gone: bool = False


def _left_behind(state: Path) -> list[DeploymentView]:
    """What the last `coalmine run` wrote. Raises CliError where it cannot be read."""
    views = []
    for path in sorted(state.glob("*/status.json")):
        try:
            manifest = msgspec.json.decode((path.parent / "manifest.json").read_bytes(), type=_Manifest)
            metadata = msgspec.convert(manifest.document["metadata"], dict[str, object])
            found = from_json(path.read_bytes(), Status)
            at = path.stat().st_mtime
        except FileNotFoundError:
            continue
        except (OSError, KeyError, msgspec.MsgspecError, Invalid) as error:
            raise CliError(f"{path.parent}: cannot be read: {' '.join(str(error).split())}") from error
        if not manifest.gone:
            views.append(
                DeploymentView(
                    namespace=str(metadata.get("namespace", "default")),
                    name=str(metadata.get("name", path.parent.name)),
                    at=at,
                    status=found,
                    revisions=tuple(
                        RevisionView(revision=track.revision, version=track.version, track=role, weight=track.weight)
                        for role, track in (
                            ("stable", found.stable),
                            ("canary", found.canary),
                            ("fallback", found.fallback),
                        )
                        if track
                    ),
                )
            )
    return views


def _as_of(views: list[DeploymentView]) -> str:
    return when(max(view.at for view in views))

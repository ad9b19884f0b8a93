"""`coalmine`: the command line. Errors are one line; nobody gets a traceback who did not ask with --debug."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from importlib.metadata import version

import click

from ..api.problems import Invalid
from .baseline import baseline
from .errors import CliError
from .lint import lint
from .orders import commands
from .rules import rules
from .run import run
from .show import history, status


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("coalmine"), prog_name="coalmine")
@click.option("--debug", is_flag=True, help="Show where an unexpected error came from.")
@click.pass_context
def coalmine(context: click.Context, debug: bool) -> None:
    """Canary, guard and roll back model servers."""
    context.obj = debug


for _command in (run, status, history, lint, baseline, rules, *commands()):
    coalmine.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: exits with 0, 1 (refused, failed) or 2 (usage, bad input)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(_guarded(given))


def _guarded(arguments: list[str]) -> int:
    try:
        coalmine.main(arguments, prog_name="coalmine", standalone_mode=False)
    except CliError as error:
        return _say(error.lines, error.code)
    except Invalid as error:
        return _say(map(str, error.problems), 2)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # Python flushes once more on its way out, and would tell about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - the last one that can spare the user a traceback
        if "--debug" in arguments:
            traceback.print_exc()
        text = " ".join(str(error).split())
        return _say([f"unexpected {type(error).__name__}: {text} (coalmine --debug shows where)"], 1)
    return 0


def _say(lines: Iterable[str], code: int) -> int:
    for line in lines:
        click.echo(line, err=True)
    return code

"""Reading reference rows twice: what is in them, then how often."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..analysis.reference import RowError, RowsError
from ..analysis.reference_build import Counting, Identity
from ..analysis.reference_plan import Asked, Planner
from ..api.baseline import Baseline
from .baseline_source import Source, spelled
from .errors import CliError
from .tables import plan_lines

#: Told what is being done, and which share of everything is done.
Advance = Callable[[str, float], None]


def make(data: Sequence[Path], source: Source, asked: Asked, identity: Identity) -> tuple[list[str], Baseline]:
    """The lines that tell what was made of `data`, and the baseline. Raises CliError."""
    try:
        planner = Planner(asked, source.columns)
        with _progress() as advance:
            for batch, share in source.batches(planner.columns):
                planner.add(batch)
                advance("looking", share / 2)
            plan = planner.plan()
            counting = Counting(asked, plan)
            for batch, share in source.batches(planner.columns):
                counting.add(batch)
                advance("counting", 0.5 + share / 2)
        made = counting.baseline(identity)
    except RowError as error:
        file, row = source.place(error.row)
        where = f"{file or spelled(data)}: column {error.column!r}, row {row + 1}"
        raise CliError(f"{where}: {error.why}", code=2) from error
    except RowsError as error:
        raise CliError(f"{spelled(data)}: {error}", code=2) from error
    return [*(f"{spelled(data)}: {note}" for note in (*source.notes(), *plan.notes)), *plan_lines(plan, made)], made


@contextlib.contextmanager
def _progress() -> Iterator[Advance]:
    """A bar on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda what, share: None
        return
    columns = (TextColumn("{task.description:8}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=1.0)
        yield lambda what, share: progress.update(task, completed=share, description=what)

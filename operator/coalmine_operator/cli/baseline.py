"""`coalmine baseline`: what a model is compared with, from data that it is trusted with."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final, get_args

import click
from rich.console import Console

from coalmine_sidecar.contract import MAX_OUTPUTS
from coalmine_sidecar.monitoring import MAX_BINS, MAX_SCORE_BINS, FeatureType, Task

from ..api import baseline as files
from .baseline_open import files_of, open_source
from .baseline_source import Named, Source, spelled
from .errors import CliError
from .tables import baseline_view, lines_of, yaml_lines

_TYPES: Final[tuple[FeatureType, ...]] = get_args(FeatureType)
_FILE: Final = click.Path(path_type=Path, dir_okay=False)


@click.group()
def baseline() -> None:
    """What a model's features, outputs and performance are compared with."""


@baseline.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DATA...")
@click.option("-o", "--output", "target", required=True, type=_FILE, metavar="FILE", help="Where the baseline goes.")
@click.option("--model", required=True, help="Name of the model (spec.model.name).")
@click.option("--version", required=True, help="Version of the model that gave these answers (spec.model.version).")
@click.option("--task", type=click.Choice(get_args(Task)), default="binary", show_default=True, help="Of the model.")
@click.option("--score", default="", metavar="COL", help="Probability of --positive; a regression's number.")
@click.option("--label", default="", metavar="COL", help="What is true: performance is measured by it.")
@click.option("--prediction", default="", metavar="COL", help="The predicted class; default: score >= threshold.")
@click.option("--positive", default="1", show_default=True, help="The label of the class that the score is of.")
@click.option(
    "--threshold", type=float, default=0.5, show_default=True, help="From this score on --positive is predicted."
)
@click.option(
    "--feature",
    "named",
    multiple=True,
    metavar="COL[:TYPE]",
    help="A feature, once for each; TYPE is numeric or categorical, and guessed without. NAME=PATH of a recording.",
)
@click.option(
    "--features",
    "many",
    type=click.Choice(["all", "none"]),
    default="all",
    show_default=True,
    help="Without --feature: all columns that are nothing else, or none.",
)
@click.option(
    "--as", "outputs", multiple=True, metavar="OUTPUT=COL", help="The column that live answers call OUTPUT; repeatable."
)
@click.option(
    "--chunk",
    type=click.IntRange(1),
    default=5000,
    show_default=True,
    help="Rows; how far the figures of so many rows lie apart is told, too.",
)
@click.option(
    "--bins",
    type=click.IntRange(2, MAX_BINS),
    default=10,
    show_default=True,
    help="Of a column of numbers, at most; about equal counts in each.",
)
@click.option(
    "--score-bins",
    type=click.IntRange(2, MAX_SCORE_BINS),
    default=100,
    show_default=True,
    help="Of a score with labels: areas under curves are known to these.",
)
def build(
    data: tuple[Path, ...],
    target: Path,
    model: str,
    version: str,
    task: Task,
    score: str,
    label: str,
    prediction: str,
    positive: str,
    threshold: float,
    named: tuple[str, ...],
    many: str,
    outputs: tuple[str, ...],
    chunk: int,
    bins: int,
    score_bins: int,
) -> None:
    """Make a baseline of DATA: CSV, Parquet, or recordings of the payload log (CloudEvents in JSON lines or Parquet).

    A folder stands for the files in it. Columns of a recording are called as in spec.monitoring: a name, NAME[3], or a
    JSON path: --feature of requests, --label too; --score, --prediction and --as of answers. Reads DATA twice and keeps
    no more of it in memory than a sample of 100,000 rows.
    """
    # numpy is 60 MB that no other command needs.
    from ..analysis.reference_build import Identity
    from ..analysis.reference_plan import Asked
    from .baseline_build import make

    paths = files_of(data, but=target)
    if target.resolve() in [path.resolve() for path in paths]:
        raise CliError(f"{target}: is the data itself: give --output another name", code=2)
    _check(task, score=score, label=label, prediction=prediction, threshold=threshold)
    types = dict(map(_typed, named))
    renamed = dict(map(_renamed, outputs))
    answers = (score, prediction, *renamed.values())
    source = open_source(paths, Named(features=tuple(types), label=label, answers=answers, version=version))
    features = {source.feature(name): kind for name, kind in types.items()}
    asked = Asked(
        task=task,
        score=source.answer(score),
        label=label,
        prediction=source.answer(prediction),
        positive=positive,
        threshold=threshold,
        features=features if named or many == "none" else None,
        outputs=_outputs(source, renamed),
        chunk=chunk,
        bins=bins,
        score_bins=score_bins,
        live=source.live,
    )
    source_name = spelled([Path(path.name) for path in data])
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    lines, made = make(data, source, asked, Identity(model=model, version=version, created_at=now, source=source_name))
    encoded = files.encode_baseline(made)
    try:
        files.decode_baseline(encoded)
    except ValueError as error:
        raise CliError(f"{spelled(data)}: makes no baseline: {error}", code=2) from error
    _write(target, encoded)
    for line in lines:
        click.echo(line)
    click.echo(f"{target}: {files.digest_of(encoded)}")


@baseline.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--image", type=_FILE, metavar="FILE.svg", help="Draw all bins.")
@click.option("--width", type=click.IntRange(40, 400), default=None, help="Columns; default: the terminal's.")
def show(file: Path, image: Path | None, width: int | None) -> None:
    """A baseline's bins and performance, its digest, and what to paste into a manifest."""
    data = read_file(file)
    try:
        made = files.decode_baseline(data)
    except ValueError as error:
        raise CliError(f"{file}: {error}", code=2) from error
    digest = files.digest_of(data)
    if image and image.suffix.lower() != ".svg":
        raise CliError(f"--image {image}: pictures are SVG: call it {image.stem}.svg", code=2)
    if image:
        from .baseline_picture import picture

        _write(image, picture(made, digest).encode())
    console = Console(width=width)
    if console.is_terminal:
        console.print(baseline_view(made, digest))
    else:
        click.echo("\n".join(lines_of(made, digest)))
    click.echo("\n".join(["", *yaml_lines(made, digest, file.name)]))
    if image:
        click.echo(f"\n{image}: drawn")


def read_file(path: Path) -> bytes:
    """Raises CliError. At most one byte more than a baseline may have is read."""
    try:
        with path.open("rb") as opened:
            return opened.read(files.MAX_BYTES + 1)
    except OSError as error:
        raise CliError(f"{path}: cannot be read: {error.strerror}", code=2) from error


def _check(task: Task, *, score: str, label: str, prediction: str, threshold: float) -> None:
    """Options that make no sense together. Raises CliError."""
    if label and task == "multiclass" and not prediction:
        raise CliError("--label of a multiclass task is compared with --prediction: give both", code=2)
    if label and task in ("binary", "regression") and not (score or prediction):
        raise CliError("--label alone measures nothing: give --score or --prediction too", code=2)
    if label and task == "ranking" and not score:
        raise CliError("--label of a ranking task is compared with --score: give both", code=2)
    if not math.isfinite(threshold) or (task == "binary" and not 0 < threshold < 1):
        raise CliError(f"--threshold {threshold}: scores of a binary task are cut between 0 and 1", code=2)


def _typed(text: str) -> tuple[str, FeatureType | None]:
    """`NAME` or `NAME:categorical`; other colons are part of a name."""
    name, _, last = text.rpartition(":")
    for kind in _TYPES:
        if name and last == kind:
            return name, kind
    return text, None


def _renamed(text: str) -> tuple[str, str]:
    name, equals, column = text.partition("=")
    if not (name and equals and column):
        raise CliError(f"--as {text}: write it like OUTPUT=COLUMN", code=2)
    return name, column


def _outputs(source: Source, given: Mapping[str, str]) -> dict[str, str]:
    """Columns by the names of outputs: those that a recording has, unless they are given another name."""
    renamed = {name: source.answer(column) for name, column in given.items()}
    found = [(name, column) for name, column in source.outputs.items() if column not in renamed.values()]
    return dict(found[: max(MAX_OUTPUTS - len(renamed), 0)]) | renamed


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all. Raises CliError."""
    beside = path.with_name(f".{path.name}.new")
    try:
        try:
            beside.write_bytes(data)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise CliError(f"{path}: cannot be written: {error.strerror}", code=2) from error

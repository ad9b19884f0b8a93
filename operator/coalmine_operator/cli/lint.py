"""`coalmine lint`: what is wrong with manifests, without starting or asking anything."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click
from msgspec import Struct

from ..api.decode import Document, Invalid, check_many, decode, read_manifests
from ..api.documents import MAX_BYTES
from ..api.spec import ModelDeployment
from ..api.template import model_container

STDIN: Final = "-"


class Checked(Struct, frozen=True, kw_only=True):
    """`problems` and `warnings` are whole lines."""

    deployments: tuple[ModelDeployment, ...] = ()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=str), metavar="FILE...")
@click.option("--local", is_flag=True, help="Warn of what `coalmine run` could not start, such as no command.")
def lint(files: tuple[str, ...], local: bool) -> None:
    """Check manifests offline: one line for each problem. FILE may be - for standard input."""
    failed = False
    for file in files:
        checked = check(file, local=local)
        for line in (*checked.problems, *checked.warnings):
            click.echo(line)
        failed = failed or bool(checked.problems)
        if not checked.problems:
            count = len(checked.deployments)
            click.echo(f"{_source(file)}: ok: {count} ModelDeployment{'s' if count > 1 else ''}")
    if failed:
        raise SystemExit(2)


def check(file: str, *, local: bool = False) -> Checked:
    """Everything that is wrong with one file, as lines that begin with its name."""
    source = _source(file)
    try:
        text = _read(file)
    except OSError as error:
        return Checked(problems=(f"{source}: cannot be read: {error.strerror}",))
    except UnicodeDecodeError as error:
        return Checked(problems=(f"{source}: byte {error.start} is no UTF-8: save the file as UTF-8",))
    documents, found = read_manifests(text, source=source)
    problems = [str(problem) for problem in found]
    warnings: list[str] = []
    good: list[ModelDeployment] = []
    for document in documents:
        # With several documents in a file a path alone does not say where.
        place = f"{source}:{document.line}" if len(documents) > 1 else source
        try:
            good.append(decode(document.raw))
        except Invalid as error:
            problems += [f"{place}: {problem}" for problem in error.problems]
        else:
            warnings += [f"{place}: warning: {line}" for line in (_not_local(document, good[-1]) if local else ())]
    problems += [f"{source}: {problem}" for problem in check_many(good)]
    return Checked(deployments=tuple(good), problems=tuple(problems), warnings=tuple(warnings))


def _not_local(document: Document, deployment: ModelDeployment) -> list[str]:
    """What the local platform would refuse: it starts commands, not images."""
    templates = {"spec.template": deployment.spec.template}
    if deployment.spec.fallback and deployment.spec.fallback.template:
        templates["spec.fallback.template"] = deployment.spec.fallback.template
    lines = []
    for path, template in templates.items():
        index, container = model_container(template)
        if not container.get("command"):
            lines.append(
                f"{path}.spec.containers[{index}].command: is missing: `coalmine run` starts commands, not images"
            )
    return lines


def _read(file: str) -> str:
    """At most one byte more than a manifest may have, so that a large file is refused and not read."""
    if file == STDIN:
        return sys.stdin.buffer.read(MAX_BYTES + 1).decode()
    with Path(file).open("rb") as opened:
        return opened.read(MAX_BYTES + 1).decode()


def _source(file: str) -> str:
    return "stdin" if file == STDIN else file

"""`coalmine lint`: what is wrong with manifests, without starting or asking anything."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click
from msgspec import Struct

from ..api.decode import Invalid, check_many, decode, read_manifests
from ..api.documents import MAX_BYTES
from ..api.problems import Problem
from ..api.spec import ModelDeployment
from ..render.advice import advice
from ..render.container import local_container
from ..render.injection import InjectionSettings
from ..render.manifests import problems as problems_in_a_cluster
from ..render.monitoring import ignored
from .lint_baseline import baseline_warnings
from .lint_payload_log import payload_log_warnings

STDIN: Final = "-"
#: Which sidecar it is makes no difference to what is wrong with a template.
_ANY_SIDECAR: Final = InjectionSettings(image="coalmine-sidecar")


class Checked(Struct, frozen=True, kw_only=True):
    """`problems` and `warnings` are whole lines; warnings are of what is taken all the same."""

    deployments: tuple[ModelDeployment, ...] = ()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=str), metavar="FILE...")
@click.option(
    "--local",
    is_flag=True,
    help="For `coalmine run`: warn of what it could not start, such as no command; a cluster's rules do not count.",
)
def lint(files: tuple[str, ...], local: bool) -> None:
    """Check manifests offline: one line for each problem. FILE may be - for standard input."""
    failed = False
    for file in files:
        checked = check(file, local=local, cluster=not local)
        for line in (*checked.problems, *checked.warnings):
            click.echo(line)
        failed = failed or bool(checked.problems)
        if not checked.problems:
            count = len(checked.deployments)
            click.echo(f"{_source(file)}: ok: {count} ModelDeployment{'s' if count > 1 else ''}")
    if failed:
        raise SystemExit(2)


def check(file: str, *, local: bool = False, cluster: bool = True) -> Checked:
    """Everything that is wrong with one file, as lines that begin with its name.

    `local`: with warnings of what `coalmine run` could not do, or would find beside the manifest; `cluster`: with what
    only a cluster refuses.
    """
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
            deployment = decode(document.raw)
        except Invalid as error:
            problems += [f"{place}: {problem}" for problem in error.problems]
            continue
        good.append(deployment)
        wrong, only_local = _containers(deployment)
        only_local += ignored(deployment.spec.monitoring)
        if local and file != STDIN:
            only_local += baseline_warnings(deployment, Path(file).parent)
            only_local += payload_log_warnings(deployment, Path(file).parent)
        if cluster:
            wrong += problems_in_a_cluster(deployment.metadata, deployment.spec, _ANY_SIDECAR)
        problems += dict.fromkeys(f"{place}: {problem}" for problem in wrong)
        hardly_meant = [*advice(deployment.spec), *(only_local if local else ())]
        warnings += [f"{place}: warning: {line}" for line in hardly_meant]
    problems += [f"{source}: {problem}" for problem in check_many(good)]
    return Checked(deployments=tuple(good), problems=tuple(problems), warnings=tuple(warnings))


def _containers(deployment: ModelDeployment) -> tuple[list[Problem], list[str]]:
    """What is wrong anywhere with the containers of the templates, and what `coalmine run` can't do or leaves out."""
    spec = deployment.spec
    templates = {"spec.template": spec.template}
    if spec.fallback and spec.fallback.template:
        templates["spec.fallback.template"] = spec.fallback.template
    wrong: list[Problem] = []
    only_local: list[str] = []
    for path, template in templates.items():
        try:
            only_local += local_container(template, model=spec.model, path=path).ignored
        except Invalid as error:
            wrong += [problem for problem in error.problems if not problem.local]
            only_local += [str(problem) for problem in error.problems if problem.local]
    return wrong, only_local


def _read(file: str) -> str:
    """At most one byte more than a manifest may have, so that a large file is refused and not read."""
    if file == STDIN:
        return sys.stdin.buffer.read(MAX_BYTES + 1).decode()
    with Path(file).open("rb") as opened:
        return opened.read(MAX_BYTES + 1).decode()


def _source(file: str) -> str:
    return "stdin" if file == STDIN else file

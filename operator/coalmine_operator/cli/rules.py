"""`coalmine rules`: the rules for Prometheus that a manifest's `spec.monitoring` asks for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import click
import yaml

from ..api.baseline import MAX_BYTES, Baseline, decode_baseline
from ..api.spec import ModelDeployment
from ..render.rules import as_prometheus_rule, render_rules
from .errors import CliError
from .lint import check

Format = Literal["prometheus", "prometheusrule"]


@click.command()
@click.argument("manifest", type=click.Path(path_type=str))
@click.option(
    "--format",
    "form",
    type=click.Choice(["prometheus", "prometheusrule"]),
    default="prometheus",
    show_default=True,
    help="A file for `rule_files`, or a PrometheusRule for the Prometheus operator.",
)
@click.option(
    "--baseline",
    "baseline_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The model's baseline.json: over how many rows its performance was seen to spread.",
)
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="KEY=VALUE",
    help="A label of the PrometheusRule, by which your Prometheus selects it. May be repeated.",
)
def rules(manifest: str, form: Format, baseline_file: Path | None, labels: tuple[str, ...]) -> None:
    """Print recording and alerting rules as YAML. MANIFEST may be - for standard input."""
    checked = check(manifest, cluster=False)
    if checked.problems:
        raise CliError(*checked.problems, code=2)
    monitored = [one for one in checked.deployments if one.spec.monitoring is not None]
    if not monitored:
        raise CliError(f"{manifest}: spec.monitoring: is absent: there is nothing to make rules for", code=2)
    baseline = _baseline(baseline_file, monitored) if baseline_file else None
    click.echo(show(monitored, form, baseline, _labels(labels, form)), nl=False)


def show(
    deployments: list[ModelDeployment],
    form: Format,
    baseline: Baseline | None = None,
    labels: Mapping[str, str] | None = None,
) -> str:
    """The rules of all of them as YAML: one file, or one PrometheusRule each, with `labels`."""
    found = {
        (one.metadata.name, one.metadata.namespace): render_rules(
            one.spec, one.metadata.name, one.metadata.namespace, baseline
        )
        for one in deployments
    }
    documents: list[dict[str, Any]] = [{"groups": [group for groups in found.values() for group in groups]}]
    if form == "prometheusrule":
        documents = [as_prometheus_rule(*named, groups, labels or {}) for named, groups in found.items()]
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def _labels(given: tuple[str, ...], form: Format) -> dict[str, str]:
    if given and form != "prometheusrule":
        raise CliError("--label: a file of rules has no labels: give it with --format prometheusrule", code=2)
    pairs = [text.partition("=") for text in given]
    for text, (key, equals, _) in zip(given, pairs, strict=True):
        if not key or not equals:
            raise CliError(f"--label: {text!r} is no label: write KEY=VALUE, such as release=prometheus", code=2)
    return {key: value for key, _, value in pairs}


def _baseline(file: Path, deployments: list[ModelDeployment]) -> Baseline:
    if len(deployments) > 1:
        raise CliError(
            f"--baseline: is of one model, and the manifest has {len(deployments)}: give one of them", code=2
        )
    try:
        with file.open("rb") as opened:
            baseline = decode_baseline(opened.read(MAX_BYTES + 1))
    except OSError as error:
        raise CliError(f"{file}: cannot be read: {error.strerror}", code=2) from error
    except ValueError as error:
        raise CliError(f"{file}: {error}", code=2) from error
    (one,) = deployments
    model = one.spec.model.name or one.metadata.name
    if baseline.model != model:
        raise CliError(f"{file}: model: is {baseline.model!r}, and the manifest's is {model!r}: give its own", code=2)
    return baseline


class _Dumper(yaml.SafeDumper):
    """Expressions of several lines stay as they are."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)

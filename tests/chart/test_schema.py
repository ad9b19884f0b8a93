"""Values that are wrong are refused, with their path."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pytest
import yaml
from tests.chart.chart import CHART, NAMESPACE, RELEASE, ROOT, SETS, Chart, RefusedValuesError

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def closed(schema: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all objects of the schema with named fields."""
    schema = resolved(schema)
    if "properties" in schema:
        yield path
        for name, inner in schema["properties"].items():
            yield from closed(inner, (*path, name))


def at(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for name in reversed(path):
        value = {name: value}
    return value


def merged(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            both = isinstance(value, dict) and isinstance(whole.get(name), dict)
            whole[name] = merged((whole[name], value)) if both else value
    return whole


@pytest.fixture(scope="module")
def refused(chart: Chart) -> str:
    """What helm says of an unknown key in every place there is; it tells all it finds at once."""
    with pytest.raises(RefusedValuesError) as refusal:
        chart.text(merged(at((*path, "replica"), 1) for path in closed(SCHEMA)))
    return str(refusal.value)


@pytest.mark.parametrize("path", list(closed(SCHEMA)), ids=".".join)
def test_unknown_keys_are_refused_everywhere(refused: str, path: tuple[str, ...]) -> None:
    assert f"at '{'/'.join(('', *path))}': additional properties 'replica' not allowed" in refused


WRONG: list[tuple[str, Any]] = [
    ("fullnameOverride", "Coal_mine"),
    ("fullnameOverride", "c" * 41),
    ("watchNamespaces", "models"),
    ("watchNamespaces", ["Models"]),
    ("watchNamespaces", ["models", "models"]),
    ("clusterDomain", ""),
    ("image.repository", ""),
    ("image.repository", "coalmine-operator:1.2"),
    ("sidecar.image.repository", "registry:5000/coalmine-sidecar:1.2"),
    ("image.tag", "v1@sha256"),
    ("image.tag", 1.10),
    ("image.digest", "sha256:abc"),
    ("image.pullPolicy", "Sometimes"),
    ("sidecar.resources.requests.cpu", "a lot"),
    ("sidecar.resources.limits.memory", "256 MB"),
    ("push.graphite.address", "graphite"),
    ("push.graphite.address", "http://graphite:2003"),
    ("push.graphite.prefix", "ml..models"),
    ("push.otlp.url", "otel:4318"),
    ("push.otlp.url", "http://user:password@otel:4318"),
    ("push.otlp.headersSecret.name", "Otlp"),
    ("push.otlp.headersSecret.key", "a/b"),
    ("push.interval", 0),
    ("push.interval", "15s"),
    ("crds.enabled", "yes"),
    ("operator.logLevel", "verbose"),
    ("operator.tolerations", [{"keey": "gpu"}]),
    ("operator.tolerations", [{"key": "gpu", "operator": "Is"}]),
    ("operator.affinity", {"foo": "bar"}),
    ("webhook.affinity", {"nodeAffinity": {"required": {}}}),
    ("webhook.replicas", 0),
    ("webhook.replicas", "2"),
    ("webhook.timeoutSeconds", 31),
    ("webhook.failurePolicy", "Maybe"),
    ("webhook.podDisruptionBudget.maxUnavailable", 0),
    ("certificates.certManager.duration", "90d"),
    ("networkPolicy.apiServerPorts", []),
    ("networkPolicy.apiServerPorts", ["https"]),
    ("podMonitor.interval", "15"),
    ("rules.window", "five minutes"),
    ("rules.errors.ratio", 5),
    ("rules.errors.for", ""),
    ("rules.latency.quantile", 0.9),
    ("rules.latency.seconds", 0),
    ("rules.disabled", ["ModelTooSlow"]),
    ("commonLabels", {"team": 1}),
    ("alerts.existingSecret.key", ""),
]


PLACES_OF_LABELS = [
    "operator.podLabels",
    "webhook.podLabels",
    *(f"{one}.labels" for one in ("podMonitor", "serviceMonitor", "prometheusRule", "rulesConfigMap", "dashboard")),
]


@pytest.fixture(scope="module")
def refusals(chart: Chart) -> dict[int, str]:
    """What helm says of each of WRONG, asked together where their paths differ."""
    said: dict[int, str] = {}
    while len(said) < len(WRONG):
        together: dict[str, int] = {}
        for index, (path, _) in enumerate(WRONG):
            if index not in said:
                together.setdefault(path, index)
        with pytest.raises(RefusedValuesError) as refusal:
            chart.text(merged(at(tuple(path.split(".")), WRONG[index][1]) for path, index in together.items()))
        said |= dict.fromkeys(together.values(), str(refusal.value))
    return said


@pytest.mark.parametrize("index", range(len(WRONG)), ids=[f"{path}={value!r:.30}" for path, value in WRONG])
def test_wrong_values_are_refused(refusals: dict[int, str], index: int) -> None:
    assert f"at '/{WRONG[index][0].replace('.', '/')}" in refusals[index]


OPEN = (".limits", ".requests", ".nodeAffinity", ".podAffinity", ".podAntiAffinity")


def test_every_value_of_the_chart_is_known_to_the_schema_and_the_other_way_round() -> None:
    def keys(value: Any, schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
        schema = resolved(schema)
        if "properties" in schema:
            for name in value.keys() | schema["properties"].keys():
                here = f"{path}.{name}"
                if name not in value:
                    yield here, "only in values.schema.json"
                elif name not in schema["properties"]:
                    yield here, "only in values.yaml"
                else:
                    yield from keys(value[name], schema["properties"][name], here)

    # Resources and affinity are maps: of what they may hold none stands in values.yaml.
    known = {(".global", "only in values.schema.json")}
    assert {found for found in keys(VALUES, SCHEMA) if not found[0].endswith(OPEN)} == known


@pytest.mark.parametrize("repository", ["coalmine-operator", "registry:5000/team/coalmine-operator"])
def test_a_registry_may_have_a_port(chart: Chart, repository: str) -> None:
    assert f'"{repository}:' in chart.text({"image": {"repository": repository}})


@pytest.mark.parametrize("path", ["commonLabels", *PLACES_OF_LABELS])
def test_labels_of_the_chart_itself_cannot_be_given(chart: Chart, path: str) -> None:
    keys = list(chart.render()[0]["metadata"]["labels"])
    for key in keys if path == "commonLabels" else keys[:1]:
        with pytest.raises(RefusedValuesError, match=f"{path}: {key} is the chart's own: take another name"):
            chart.text(at(tuple(path.split(".")), {key: "mine"}))


@pytest.mark.parametrize("path", PLACES_OF_LABELS)
def test_a_label_of_one_object_goes_before_that_of_all(chart: Chart, path: str) -> None:
    group, _, rest = path.partition(".")
    switch = {} if group in ("operator", "webhook") else {"enabled": True}
    text = yaml.safe_dump(chart.render({"commonLabels": {"team": "all"}, group: {**switch, rest: {"team": "one"}}}))
    assert "team: one" in text
    assert "team: all" in text


@pytest.mark.parametrize(
    ("asked", "limit", "taken"),
    [("64Mi", "32Mi", False), ("1Gi", "1G", False), ("0.5Gi", "512Mi", True), (1000, "1k", True), (1001, "1k", False)],
)
def test_a_sidecar_may_not_ask_for_more_than_its_limit(chart: Chart, asked: object, limit: str, taken: bool) -> None:
    values = {"sidecar": {"resources": {"requests": {"memory": asked}, "limits": {"memory": limit}}}}
    if taken:
        assert chart.text(values)
    else:
        said = f"sidecar.resources.limits.memory: {limit} is less than the {asked} of"
        with pytest.raises(RefusedValuesError, match=said):
            chart.text(values)


def test_every_group_of_values_is_described() -> None:
    paragraphs = (CHART / "values.yaml").read_text().split("\n\n")
    assert [text.splitlines()[0] for text in paragraphs if not text.startswith("# ")] == []


@pytest.mark.parametrize("name", SETS)
def test_lint(chart: Chart, name: str) -> None:
    file = SETS[name]
    done = chart.run("lint", "--strict", CHART, *(("--values", file) if file else ()))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


def test_as_a_dependency_helm_hands_it_global_values(chart: Chart) -> None:
    assert chart.text({"global": {"whatever": 1}})


def test_the_chart_takes_every_value_that_the_readme_names(chart: Chart) -> None:
    rows = re.findall(
        r"^\| (`.*`) \|", (ROOT / "README.md").read_text().partition("| value |")[2].partition("\n\n")[0], re.M
    )
    named = [value for row in rows for value in re.findall(r"`([^`]+)`", row)]
    assert len(named) > 4
    flags = [word for one in named for word in ("--set", value_of(one))]
    done = chart.run("template", RELEASE, CHART, "--namespace", NAMESPACE, *flags)
    assert done.returncode == 0, done.stderr


def value_of(named: str) -> str:
    """`name=value` as `--set` takes it, from a cell that may leave the value out."""
    name, _, value = named.partition("=")
    return f"{name}={value.lower() or ('true' if name.endswith('.enabled') else 'mine')}"

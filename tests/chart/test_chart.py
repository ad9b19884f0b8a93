"""The chart and the project say the same."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from tests.chart.chart import CHART, ROOT, Chart, RefusedValuesError, named
from tests.chart.promtool import needs_promtool, tool

META = yaml.safe_load((CHART / "Chart.yaml").read_text())
README = (CHART / "README.md").read_text()


def test_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (META["version"], META["appVersion"]) == (project, project)


def test_no_registry_is_written_down() -> None:
    """Images are named without one: whoever installs knows where theirs are."""
    text = "".join(path.read_text() for path in CHART.rglob("*") if path.is_file() and "crds" not in path.parts)
    assert re.findall(r"\b(?:docker\.io|ghcr\.io|quay\.io|registry\.[a-z.]+|[a-z]+\.gcr\.io)\b", text) == []


@pytest.mark.parametrize(("version", "message"), [("1.28.15", "kubeVersion"), ("1.29.0", ""), ("1.36.3", "")])
def test_versions_of_kubernetes(chart: Chart, version: str, message: str) -> None:
    done = chart.run("template", "coalmine", CHART, "--kube-version", version)
    assert (done.returncode != 0) == bool(message)
    assert message in done.stderr


def test_every_file_of_values_is_said_how_to_use() -> None:
    for path in CHART.glob("values-*.yaml"):
        assert f"-f helm/coalmine/{path.name}" in path.read_text()


def test_a_value_that_breaks_yaml_cannot_come_in(chart: Chart) -> None:
    with pytest.raises(RefusedValuesError):
        chart.text({"image": {"repository": "a b"}})
    rendered = chart.render({"commonLabels": {"note": 'a: "b" # c'}})
    assert all(one["metadata"]["labels"]["note"] == 'a: "b" # c' for one in rendered)


@needs_promtool
def test_prometheus_takes_the_jobs_of_the_readme(tmp_path: Path) -> None:
    (jobs,) = re.findall(r"```yaml\n(scrape_configs:.*?)```", README, re.DOTALL)
    # Debian's promtool is built without Kubernetes' discovery; what is left of a job it reads.
    readable = re.sub(r"kubernetes_sd_configs: .*", "static_configs: [{targets: [pod]}]", jobs)
    (tmp_path / "prometheus.yml").write_text(readable)
    assert tool(tmp_path, "check", "config", "--syntax-only", "prometheus.yml") == ""


def test_the_readme_names_every_alert(chart: Chart) -> None:
    custom = named(chart.render({"prometheusRule": {"enabled": True}}), "PrometheusRule", "coalmine")
    alerts = {rule["alert"] for group in custom["spec"]["groups"] for rule in group["rules"] if "alert" in rule}
    rows = [line for line in README.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`([A-Z]\w+)`", row.split("|")[1])} == alerts
    schema = json.loads((CHART / "values.schema.json").read_text())
    disabled = schema["properties"]["rules"]["properties"]["disabled"]
    assert set(disabled["items"]["enum"]) == alerts


def test_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (CHART / target).exists(), target

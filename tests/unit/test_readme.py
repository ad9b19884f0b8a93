"""What the README shows is what Coalmine does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from tests.exported import exported

from coalmine_operator.api.decode import Invalid, decode, read_manifests
from coalmine_operator.render import labels
from coalmine_operator.render.adoption import asks
from coalmine_operator.render.injection import PORT_NAMES
from coalmine_sidecar.contract import RevisionRoute, Routing
from coalmine_sidecar.telemetry import QueueCounters, Telemetry
from coalmine_sidecar.telemetry.generations import counters_of
from coalmine_sidecar.telemetry.render import TelemetryCollector

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


def manifest() -> str:
    found = re.search(r"```yaml\n(apiVersion: .*?)```", README, re.DOTALL)
    assert found
    return found[1]


def test_the_manifest_is_a_good_one() -> None:
    (document,), problems = read_manifests(manifest(), source="README.md")
    assert problems == []
    assert decode(document.raw).metadata.name == "fraud"


def test_the_mistakes_are_named_as_shown() -> None:
    broken = manifest().replace("setWeight: 25", "setWeight: 140").replace("interval: 15s", "interval: 5 minutes")
    (document,), _ = read_manifests(broken, source="README.md")
    with pytest.raises(Invalid) as refused:
        decode(document.raw)
    shown = re.findall(r"^fraud\.yaml: (.*)$", README, re.MULTILINE)
    assert sorted(map(str, refused.value.problems)) == sorted(shown)
    assert len(shown) == 2


def test_the_metrics_named_are_those_there_are() -> None:
    telemetry = Telemetry(pod="p", revision="r")
    route = RevisionRoute(name="r", version="v1", track="stable", weight=100)
    telemetry.configure(Routing(deployment="d", model="m", generation=1, revisions=(route,)))
    counters_of(telemetry.series("r", "ingress"), "chat")
    telemetry.queue = QueueCounters()
    there = {family.name for family in TelemetryCollector(telemetry).collect()}
    named = {name.removesuffix("_total") for name in re.findall(r"`(coalmine_\w+)`", README)}
    elsewhere = {name.removesuffix("_total").removesuffix("_bucket") for name in exported()}
    assert named <= there | elsewhere
    assert there - named <= {"coalmine_build_info", "coalmine_draining", "coalmine_model_cpu_limit_cores"}


def test_a_deployment_is_adopted_as_shown() -> None:
    (section,) = re.findall(r"^## Adopt an existing Deployment$(.*?)^## ", README, re.MULTILINE | re.DOTALL)
    (shown,) = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    deployment, service = yaml.safe_load_all(shown)
    assert asks(deployment["spec"]["template"])
    assert service["spec"]["ports"][0]["targetPort"] == PORT_NAMES["coalmine"]
    assert "the name `coalmine`" in section
    annotations = set(re.findall(r"^\| `(coalmine\.dev/[a-z-]+)` \|", section, re.MULTILINE))
    assert annotations == {labels.MODEL_PORT, labels.MODEL_CONTAINER, labels.MODEL_NAME}

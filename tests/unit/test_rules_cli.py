"""`coalmine rules`: from a manifest to YAML that Prometheus reads, and one line where it can't."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tests.chart.promtool import needs_promtool, tool

from coalmine_operator.api import baseline as api
from coalmine_operator.api.decode import decode
from coalmine_operator.api.monitoring import AlertName
from coalmine_operator.cli.main import main
from coalmine_operator.render.rules import alerts_of, parameters_of
from coalmine_operator.render.rules.parameters import Override, Parameters, SliceRules

MANIFEST = {
    "apiVersion": "coalmine.dev/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {"name": "fraud", "namespace": "shop"},
    "spec": {
        "model": {"version": "v3"},
        "template": {"spec": {"containers": [{"name": "model", "image": "model:1"}]}},
        "analysis": {"metrics": [{"name": "p99", "preset": "latency", "threshold": "250ms"}]},
        "monitoring": {
            "prediction": {"positive": "yes"},
            "baseline": {"configMap": "fraud-baseline"},
            "feedback": {"expectedCoverage": 0.5},
            "slices": [
                {"attribute": "sex", "path": "sex", "favourable": "yes"},
                {"attribute": "race", "header": "x-race", "privileged": "white", "favourable": "no", "minSamples": 40},
            ],
            "drift": {"statistic": "js", "warn": 0.13, "critical": 0.19, "window": "6h"},
            "alerts": {"overrides": [{"name": "RecallDrop", "threshold": 0.05, "for": "10m", "action": "hold"}]},
        },
    },
}
BASELINE = api.Baseline(
    schema=1, model="fraud", version="v3", task="binary", rows=9000, performance=api.Performance(chunk_rows=300)
)


def manifest(folder: Path, *documents: object) -> str:
    (folder / "fraud.yaml").write_text(yaml.safe_dump_all(documents or (MANIFEST,)))
    return str(folder / "fraud.yaml")


def rules(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["rules", *words])
    code = ended.value.code
    assert isinstance(code, int)
    return code


def test_what_the_spec_says() -> None:
    spec = decode(MANIFEST).spec
    assert parameters_of(spec, "fraud", "shop", BASELINE) == Parameters(
        namespace="shop", deployment="fraud", model="fraud", window=21600.0, statistic="js", warn=0.13, critical=0.19,
        baseline=True, feedback=True, expected_coverage=0.5, latency_budget=0.25, chunk_rows=300,
        slices=(
            SliceRules(attribute="sex", favourable="1"),
            SliceRules(attribute="race", privileged="white", favourable="0", min_samples=40),
        ),
        overrides={"RecallDrop": Override(threshold=0.05, hold=600.0, action="hold")},
    )  # fmt: skip


@needs_promtool
def test_a_file_for_prometheus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rules(manifest(tmp_path)) == 0
    text = capsys.readouterr().out
    (tmp_path / "rules.yaml").write_text(text)
    assert tool(tmp_path, "check", "rules", "--lint=all", "--lint-fatal", "rules.yaml") == ""
    found = [group["name"] for group in yaml.safe_load(text)["groups"]]
    assert found == [f"coalmine.shop.fraud.{part}" for part in ("service", "data", "quality", "fairness")]
    assert "[6h]" in text
    assert "\\n" not in text, "expressions of several lines are blocks"


def test_a_resource_for_the_prometheus_operator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = {**MANIFEST, "metadata": {"name": "other"}}
    assert rules(manifest(tmp_path, MANIFEST, other), "--format", "prometheusrule", "--label", "release=a=b") == 0
    documents = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [one["kind"] for one in documents] == ["PrometheusRule"] * 2
    assert [one["metadata"]["name"] for one in documents] == ["coalmine-fraud", "coalmine-other"]
    assert documents[0]["metadata"]["namespace"] == "shop"
    assert documents[0]["metadata"]["labels"] == {
        "app.kubernetes.io/name": "coalmine", "coalmine.dev/modeldeployment": "fraud", "release": "a=b",
    }  # fmt: skip
    assert documents[1]["spec"]["groups"][0]["name"] == "coalmine.default.other.service"


def test_a_baseline_tells_its_chunks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "baseline.json").write_bytes(api.encode_baseline(BASELINE))
    assert rules(manifest(tmp_path), "--baseline", str(tmp_path / "baseline.json")) == 0
    assert "sqrt(300 / " in capsys.readouterr().out


def bad(folder: Path, what: str) -> tuple[list[str], str]:
    """Words after `rules`, and what the one line says."""
    file = folder / "baseline.json"
    file.write_bytes(api.encode_baseline(BASELINE))
    match what:
        case "no file":
            return [str(folder / "none.yaml")], "cannot be read"
        case "nothing monitored":
            plain = {**MANIFEST, "spec": {"template": MANIFEST["spec"]["template"]}}  # type: ignore[index]
            return [manifest(folder, plain)], "spec.monitoring: is absent"
        case "an unknown alert":
            spec = {**MANIFEST["spec"], "monitoring": {"alerts": {"overrides": [{"name": "X"}]}}}  # type: ignore[dict-item]
            return [manifest(folder, {**MANIFEST, "spec": spec})], "spec.monitoring.alerts.overrides[0].name"
        case "no baseline there":
            return [manifest(folder), "--baseline", str(folder / "none.json")], "cannot be read"
        case "a baseline of another model":
            file.write_bytes(api.encode_baseline(BASELINE).replace(b'"fraud"', b'"other"'))
            return [manifest(folder), "--baseline", str(file)], "give its own"
        case "labels of a file":
            return [manifest(folder), "--label", "a=b"], "--format prometheusrule"
        case "no label":
            return [manifest(folder), "--format", "prometheusrule", "--label", "a"], "write KEY=VALUE"
        case "no baseline":
            file.write_text("{}")
            return [manifest(folder), "--baseline", str(file)], "baseline.json: "
        case _:
            other = {**MANIFEST, "metadata": {"name": "other"}}
            return [manifest(folder, MANIFEST, other), "--baseline", str(file)], "give one of them"


@pytest.mark.parametrize(
    "what",
    [
        "no file", "nothing monitored", "an unknown alert", "no baseline there", "a baseline of another model",
        "no baseline", "two models and a baseline", "labels of a file", "no label",
    ],
)  # fmt: skip
def test_bad_input_is_one_line(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, says = bad(tmp_path, what)
    assert rules(*words) == 2
    said = capsys.readouterr()
    assert (said.out, len(said.err.splitlines())) == ("", 1)
    assert says in said.err


def test_every_alert_may_be_overridden() -> None:
    """By its name in `spec.monitoring.alerts`."""
    tasks = ("binary", "regression")
    everything = [Parameters(namespace="n", deployment="d", model="m", task=task, feedback=True, latency_budget=1.0,
                             slices=(SliceRules(attribute="a"),)) for task in tasks]  # fmt: skip
    known = {alert.name for parameters in everything for alert in alerts_of(parameters)}
    assert known == set(AlertName.__args__)  # type: ignore[attr-defined]

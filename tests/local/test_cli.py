"""The command line as people meet it: real processes, exact lines, exit statuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.local.running import COALMINE, coalmine, said

from coalmine_operator.api.baseline import Baseline, Numeric, Score, encode_baseline

SCORE = Score(threshold=0.5, positive="1", edges=(0.5,), calibration=(0.1, 0.9), counts=(10, 10), positives=(1, 9))
BASELINE = Baseline(schema=1, model="fraud", version="v1", task="binary", rows=20, score=SCORE)
GOOD = """\
apiVersion: coalmine.dev/v1alpha1
kind: ModelDeployment
metadata: {name: fraud}
spec:
  model: {version: v1}
  template:
    spec:
      containers: [{name: model, command: [python, model.py]}]
"""


def test_version(tmp_path: Path) -> None:
    assert coalmine("--version", cwd=tmp_path).stdout == "coalmine, version 0.1.0\n"


def test_help_names_every_command(tmp_path: Path) -> None:
    text = coalmine("--help", cwd=tmp_path).stdout
    for command in ("run", "status", "promote", "rollback", "pause", "resume", "retry", "history", "lint"):
        assert f"  {command} " in text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["explode"], "Error: No such command 'explode'."),
        (["lint"], "Error: Missing argument 'FILE...'."),
        (["run"], "Error: Missing argument 'FILE'."),
        (["status", "--output", "yaml"], "Error: Invalid value for '--output': 'yaml' is not one of 'text', 'json'."),
        (
            ["run", "x.yaml", "--port", "70000"],
            "Error: Invalid value for '--port': 70000 is not in the range 1<=x<=65535.",
        ),
    ],
)
def test_usage_errors_exit_2(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, *arguments)
    assert (code, out, err.splitlines()[-1]) == (2, "", line)


def test_lint_of_a_good_manifest(tmp_path: Path) -> None:
    (tmp_path / "fraud.yaml").write_text(GOOD)
    assert coalmine("lint", "fraud.yaml", cwd=tmp_path).stdout == "fraud.yaml: ok: 1 ModelDeployment\n"
    assert coalmine("lint", "-", cwd=tmp_path, stdin=GOOD).stdout == "stdin: ok: 1 ModelDeployment\n"
    two = GOOD + "---\n" + GOOD.replace("name: fraud", "name: other")
    assert coalmine("lint", "-", cwd=tmp_path, stdin=two).stdout == "stdin: ok: 2 ModelDeployments\n"


BAD_STRATEGY = GOOD + "  strategy: {canary: {steps: [{setWeight: 5}, {setWeight: 140}]}}\n"


BAD = (
    (BAD_STRATEGY, "spec.strategy.canary.steps[1].setWeight: 140 is over 100"),
    (GOOD + "  replica: 2\n", "spec.replica: "),
    (GOOD + "  replicas: many\n", 'spec.replicas: "many" '),
    (GOOD + "  progressDeadlineSeconds: 0\n", "spec.progressDeadlineSeconds: 0 "),
    (GOOD + "  analysis: {interval: 5 minutes}\n", 'spec.analysis.interval: "5 minutes" is no duration'),
    ("", "holds no manifest"),
    ("kind: Service\n", "kind: "),
    (GOOD + "---\n" + GOOD, "metadata.name: default/fraud stands twice"),
    ("a: [1\n", "no YAML: "),
)


def test_lint_of_bad_manifests_names_the_path_and_exits_2(tmp_path: Path) -> None:
    for number, (text, _) in enumerate(BAD):
        (tmp_path / f"{number}.yaml").write_text(text)
    names = [f"{number}.yaml" for number in range(len(BAD))]
    lines = coalmine("lint", *names, cwd=tmp_path, code=2).stdout.splitlines()
    for name, (_, begins) in zip(names, BAD, strict=True):
        place = f"{name}:2: " if begins.startswith("no YAML") else f"{name}: "
        assert any(line.startswith(place + begins) for line in lines), lines
    assert not any("ok:" in line for line in lines)


def test_lint_tells_every_problem_of_every_file(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text(GOOD + "  replicas: -1\n  paused: perhaps\n")
    (tmp_path / "two.yaml").write_text(GOOD + "---\n" + BAD_STRATEGY.replace("name: fraud", "name: other"))
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    lines = coalmine(
        "lint", "good.yaml", "bad.yaml", "two.yaml", "latin.yaml", "gone.yaml", ".", cwd=tmp_path, code=2
    ).stdout.splitlines()
    assert lines[0] == "good.yaml: ok: 1 ModelDeployment"
    assert [line.split(": ")[:2] for line in lines[1:3]] == [["bad.yaml", "spec.replicas"], ["bad.yaml", "spec.paused"]]
    assert lines[3].startswith("two.yaml:9: spec.strategy.canary.steps[1].setWeight: 140 is over 100")
    assert lines[4:] == [
        "latin.yaml: byte 3 is no UTF-8: save the file as UTF-8",
        "gone.yaml: cannot be read: No such file or directory",
        ".: cannot be read: Is a directory",
    ]


def test_lint_warns_of_what_cannot_run_here(tmp_path: Path) -> None:
    (tmp_path / "fraud.yaml").write_text(GOOD.replace("command: [python, model.py]", "image: 'models/fraud:1'"))
    assert coalmine("lint", "--local", "fraud.yaml", cwd=tmp_path).stdout.splitlines() == [
        "fraud.yaml: warning: spec.template.spec.containers[0].command: missing: coalmine run starts processes, not "
        "images: give the command that starts the model server",
        "fraud.yaml: ok: 1 ModelDeployment",
    ]
    assert "warning" not in coalmine("lint", "fraud.yaml", cwd=tmp_path).stdout


def test_lint_warns_of_what_is_looked_for_elsewhere_here(tmp_path: Path) -> None:
    (tmp_path / "fraud.yaml").write_text(GOOD + "  monitoring: {baseline: {configMap: fraud-v1}}\n")
    assert coalmine("lint", "--local", "fraud.yaml", cwd=tmp_path).stdout.splitlines() == [
        "fraud.yaml: warning: spec.monitoring.baseline.configMap: ignored: baseline.json is looked for beside the "
        "manifest",
        "fraud.yaml: warning: spec.monitoring.baseline: baseline.json: is not there: write it with `coalmine baseline "
        "build`",
        "fraud.yaml: ok: 1 ModelDeployment",
    ]
    (tmp_path / "fraud.yaml").write_text(GOOD + "  monitoring: {baseline: {file: v1.json}}\n")
    (tmp_path / "v1.json").write_bytes(encode_baseline(BASELINE))
    assert coalmine("lint", "--local", "fraud.yaml", cwd=tmp_path).stdout == "fraud.yaml: ok: 1 ModelDeployment\n"
    assert coalmine("lint", "fraud.yaml", cwd=tmp_path, code=2).stdout.splitlines() == [
        'fraud.yaml: spec.monitoring.baseline.file: "v1.json" is for `coalmine run` (`coalmine lint --local`): '
        "in a cluster give a configMap"
    ]


def test_lint_holds_the_baseline_against_the_manifest(tmp_path: Path) -> None:
    """What `coalmine run` would refuse, and what it would not: another threshold makes other predictions of it."""
    (tmp_path / "v1.json").write_bytes(encode_baseline(BASELINE))
    prediction = "prediction: {threshold: 0.4, positive: fraud}"
    (tmp_path / "fraud.yaml").write_text(GOOD + f"  monitoring: {{{prediction}, baseline: {{file: v1.json}}}}\n")
    file = f"{tmp_path.name}/fraud.yaml"
    where = f"{file}: warning: spec.monitoring.prediction"
    remedy = "write that, or build it with"
    assert coalmine("lint", "--local", file, cwd=tmp_path.parent).stdout.splitlines() == [
        f"{where}.threshold: 0.4, and the baseline's is 0.5: {remedy} --threshold 0.4",
        f'{where}.positive: "fraud", and the baseline\'s is "1": {remedy} --positive "fraud"',
        f"{file}: ok: 1 ModelDeployment",
    ]
    label = f"{prediction[:-1]}, label: chosen}}"
    (tmp_path / "fraud.yaml").write_text(GOOD + f"  monitoring: {{{label}, baseline: {{file: v1.json}}}}\n")
    assert ".threshold" not in coalmine("lint", "--local", "fraud.yaml", cwd=tmp_path).stdout, "the model chooses"
    (tmp_path / "v1.json").write_bytes(encode_baseline(replace(BASELINE, version="v0")))
    assert coalmine("lint", "--local", "fraud.yaml", cwd=tmp_path).stdout.splitlines()[0] == (
        'fraud.yaml: warning: spec.monitoring.baseline: v1.json: is of version "v0", not "v1": '
        "name the one that is its own in spec.monitoring.baseline"
    )


def test_lint_names_features_that_the_baseline_has_no_bins_for(tmp_path: Path) -> None:
    age = Numeric(edges=(30.0,), counts=(10, 10), mean=30.0, stddev=5.0, min=20.0, max=40.0)
    (tmp_path / "v1.json").write_bytes(encode_baseline(replace(BASELINE, features={"age": age})))
    features = "[{name: gone}, {name: age, type: categorical}]"
    (tmp_path / "fraud.yaml").write_text(
        GOOD + f"  monitoring: {{baseline: {{file: v1.json}}, features: {features}}}\n"
    )
    where = "fraud.yaml: warning: spec.monitoring.features"
    assert coalmine("lint", "--local", "fraud.yaml", cwd=tmp_path).stdout.splitlines() == [
        f'{where}[0]: "gone" is not in the baseline: no drift is told of it until it is built with it',
        f'{where}[1].type: "age" is categorical, and numeric in the baseline: write that, or build anew',
        "fraud.yaml: ok: 1 ModelDeployment",
    ]


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("logs", '"logs" is a folder: write a file\'s name, such as payloads.jsonl'),
        ("note/p.jsonl", '"note/p.jsonl": {folder}/note is no folder: write another path'),
    ],
)
def test_lint_warns_of_a_payload_log_that_can_be_no_file(tmp_path: Path, file: str, said: str) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "note").write_text("")
    (tmp_path / "fraud.yaml").write_text(GOOD + f"  monitoring: {{payloadLog: {{file: {file}}}}}\n")
    assert coalmine("lint", "--local", "fraud.yaml", cwd=tmp_path).stdout.splitlines() == [
        f"fraud.yaml: warning: spec.monitoring.payloadLog.file: {said.format(folder=tmp_path)}",
        "fraud.yaml: ok: 1 ModelDeployment",
    ]


def test_lint_warns_of_a_window_that_rules_hardly_see(tmp_path: Path) -> None:
    (tmp_path / "fraud.yaml").write_text(GOOD + "  monitoring: {drift: {window: 30s}}\n")
    for options in ((), ("--local",)):
        warning, ok = coalmine("lint", *options, "fraud.yaml", cwd=tmp_path).stdout.splitlines()
        assert warning == (
            "fraud.yaml: warning: spec.monitoring.drift.window: 30s is short for rules that look once in 1m: "
            "much of the data is in no window; write 2m or more"
        )
        assert ok == "fraud.yaml: ok: 1 ModelDeployment"


@pytest.mark.parametrize(
    ("container", "line"),
    [
        ("args: fast", 'args: "fast" is no list'),
        ("args: [1]", "args[0]: 1 is no text"),
        ("env: [{name: DEPTH, value: 3}]", "env[0].value: 3 is no text"),
        (
            "readinessProbe: {httpGet: {path: /}, periodSeconds: 0}",
            "readinessProbe.periodSeconds: 0 is no whole number",
        ),
    ],
)
def test_lint_reads_containers_as_a_cluster_does(container: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "fraud.yaml").write_text(GOOD.replace("command: [python, model.py]", f"image: m:1, {container}"))
    (said_,) = coalmine("lint", "fraud.yaml", cwd=tmp_path, code=2).stdout.splitlines()
    assert said_.startswith(f"fraud.yaml: spec.template.spec.containers[0].{line}")


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ("hostNetwork: true", "hostNetwork: true is not possible with a sidecar"),
        ("initContainers: [{name: coalmine-sidecar}]", "initContainers: has coalmine-sidecar already"),
        ("volumes: [{name: coalmine-routing}]", 'volumes[0].name: "coalmine-routing" is the sidecar\'s'),
    ],
)
def test_lint_tells_what_only_a_cluster_would_refuse(more: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "fraud.yaml").write_text(f"{GOOD}      {more}\n")
    said = coalmine("lint", "fraud.yaml", cwd=tmp_path, code=2).stdout.splitlines()
    assert said[0].startswith(f"fraud.yaml: spec.template.spec.{line}")
    assert len(said) == len(set(said))


@pytest.mark.parametrize("command", ["status", "history", "promote", "rollback", "pause", "resume", "retry"])
def test_without_a_running_one(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lost = tmp_path / "lost"
    line = f"no coalmine run is running with state directory {lost}"
    assert said(capsys, command, "--state", str(lost)) == (1, "", line + "\n")
    assert not lost.exists()


@pytest.mark.parametrize("text", ["{", "{}", '{"pid": "x"}'])
def test_a_broken_run_file_is_nobody_running(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.json").write_text(text)
    line = f"no coalmine run is running with state directory {tmp_path}"
    assert said(capsys, "pause", "--state", str(tmp_path)) == (1, "", line + "\n")


def test_a_stale_run_file_is_nobody_running(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for pid in (ended.pid, os.getpid()):
        run = {"pid": pid, "port": 1, "token": "t", "startedAt": 1.0}
        (tmp_path / "run.json").write_text(json.dumps(run))
        done = coalmine("pause", "--state", str(tmp_path), cwd=tmp_path, code=1)
        assert done.stderr == f"no coalmine run is running with state directory {tmp_path}\n"


def test_a_closed_pipe_is_no_error_to_shout_about(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(GOOD)
    process = subprocess.Popen(
        [COALMINE, "lint", *["bad.yaml"] * 3000], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    assert process.stderr
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 1

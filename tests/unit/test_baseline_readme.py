"""The commands of README's section on baselines do what they say."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from tests.local.running import said
from tests.unit.recordings import lines

from coalmine_operator.api.baseline import decode_baseline

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


def test_the_commands_are_true(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (section,) = re.findall(r"^## Baselines$(.*?)^## ", README, re.MULTILINE | re.DOTALL)
    commands = [
        shlex.split(line)
        for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
        for line in block.splitlines()
        if line.startswith("coalmine")
    ]
    assert [command[2] for command in commands] == ["build", "show", "build"]
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{i},{'ny' if i % 3 else 'ca'},{20 + i % 50},{i % 10 / 10},{i % 7 % 2}\n" for i in range(500))
    Path("reference.csv").write_text("id,state,age,score,is_fraud\n" + rows)
    Path("payloads").mkdir()
    for pod in range(2):
        pairs = [lines(i, {"instances": [{"age": i}]}, {"predictions": [i / 100]}) for i in range(100)]
        Path(f"payloads/payload.pod-{pod}.jsonl").write_bytes(b"".join(line for pair in pairs for line in pair))
    for _, *words in commands:
        code, _, err = said(capsys, *words)
        assert (code, err) == (0, "")
    made = decode_baseline(Path("baseline.json").read_bytes())
    assert list(made.features) == ["state", "age"]
    assert made.performance
    assert Path("baseline.svg").read_text().startswith("<svg")
    assert decode_baseline(Path("traffic.json").read_bytes()).rows == 200


def test_an_answer_may_be_given_its_live_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "`--as predictions=score`" in README
    (tmp_path / "rows.csv").write_text("score\n0.5\n0.25\n")
    target = tmp_path / "made.json"
    words = ["baseline", "build", str(tmp_path / "rows.csv"), "-o", str(target), "--model", "m", "--version", "v"]
    assert said(capsys, *words, "--as", "predictions=score")[0] == 0
    assert list(json.loads(target.read_bytes())["outputs"]) == ["predictions"]

"""Rules judged by the real promtool: a little language for `promtool test rules`.

A scenario is series that grow by a constant, and what fires after ten minutes of them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool here: apt-get install prometheus")

#: Minutes of a scenario, and when it is looked at.
MINUTES = 30
LOOK = "29m"

#: Of every pod of a model deployment, as the PodMonitor labels them.
WHERE = {"namespace": "shop", "modeldeployment": "fraud", "model": "fraud"}
V1 = {"version": "v1", "track": "stable"}
V2 = {"version": "v2", "track": "canary"}


def selector(name: str, labels: Mapping[str, str]) -> str:
    return f"{name}{{{','.join(f'{key}={json.dumps(value)}' for key, value in labels.items())}}}"


def grows(name: str, per_minute: float, *labels: Mapping[str, str], **more: str) -> dict[str, str]:
    """A counter."""
    return _series(name, f"0+{per_minute}x{MINUTES}", labels, more)


def stays(name: str, value: float, *labels: Mapping[str, str], **more: str) -> dict[str, str]:
    """A gauge."""
    return _series(name, f"{value}x{MINUTES}", labels, more)


def _series(name: str, values: str, labels: Iterable[Mapping[str, str]], more: Mapping[str, str]) -> dict[str, str]:
    merged = {key: value for part in (*labels, more) for key, value in part.items()}
    return {"series": selector(name, merged), "values": values}


def run(folder: Path, rules: str, *tests: Mapping[str, Any]) -> str:
    """What promtool has against the rules or against the scenarios; empty: nothing."""
    (folder / "rules.yaml").write_text(rules)
    (folder / "test.yaml").write_text(
        json.dumps({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests})
    )
    return tool(folder, "test", "rules", "test.yaml")


def tool(folder: Path, *words: str) -> str:
    assert PROMTOOL
    done = subprocess.run([PROMTOOL, *words], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def alerts(name: str, *expected: Mapping[str, str], series: list[dict[str, str]], at: str = LOOK) -> dict[str, Any]:
    """A scenario: `expected` holds the labels of each alert of this name that fires, but `alertname`."""
    return {
        "interval": "1m",
        "input_series": series,
        "alert_rule_test": [
            {"eval_time": at, "alertname": name, "exp_alerts": [{"exp_labels": labels} for labels in expected]}
        ],
    }

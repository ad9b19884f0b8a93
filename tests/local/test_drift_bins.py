"""A regression model's canary in a real `coalmine run`, begun before stable had answered anything."""

from __future__ import annotations

from pathlib import Path

from tests.local.running import Run, manifest
from tests.local.test_mirror import users

MORE = """  monitoring: {task: regression}
  strategy:
    canary:
      steps: [{setWeight: 50}, {pause: {requests: 20}}]
  analysis:
    interval: 500ms
    metrics:
      - {name: prices, preset: outputDrift, threshold: 0.2}
"""


def test_ten_times_the_price_is_rolled_back_though_no_bins_were_there_to_begin_with(tmp_path: Path) -> None:
    run = Run(tmp_path, manifest("v1", "--score", "250000", more=MORE))
    try:
        run.until_phase("Healthy", "v1")
        run.edit(manifest("v2", "--score", "2500000", more=MORE))
        run.until_phase("Progressing", "v1")
        with users(run) as answered:
            status = run.until_phase("Degraded", "v1")
        assert answered["v2"]
        assert status["lastRollback"]["message"] == "verdict Fail: prices"
        assert "bins are cut from stable's answers anew: score" in run.said()
        (verdict,) = status["lastRollback"]["evidence"]
        assert verdict["evidence"]["outputs"]["score"]["psi"] > 1
    finally:
        run.clean()

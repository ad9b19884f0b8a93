"""Car loans (synthetic, NannyML's): the documented estimates of ten chunks, from scores alone."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from tests.acceptance import nannyml_data
from tests.acceptance.nannyml_data import CAR_LOAN_CBPE
from tests.acceptance.story import Story, manifest, numeric
from tests.local.running import coalmine

pytestmark = pytest.mark.timeout(900)


def test_estimated_auc_of_ten_chunks(tmp_path: Path) -> None:
    reference = nannyml_data.car_loan_reference()
    with (tmp_path / "reference.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["score", "repaid"])
        writer.writerows(zip(reference.scores, reference.labels.astype(int), strict=True))
    coalmine(
        "baseline", "build", "reference.csv", "-o", "baseline.json", "--model", "loans", "--version", "v1",
        "--score", "score", "--label", "repaid", "--features", "none", cwd=tmp_path,
    )  # fmt: skip
    live = nannyml_data.car_loan_analysis()
    document = manifest("loans", "score", {"baseline": {"file": "baseline.json"}})
    story = Story(tmp_path, document, "--baseline", "baseline.json")
    found = []
    try:
        for number, rows in enumerate(live.chunks()):
            end = story.play(live, rows, lambda all_, part: [numeric("score", list(all_.scores[part]))], f"c{number}")
            found.append(story.one('coalmine:auc:ratio{truth="estimate"}', end))
            print(f"chunk {number}: {found[-1]:.6f}, documented {CAR_LOAN_CBPE[number]:.6f}", flush=True)
    finally:
        story.stop()
    errors = np.abs(np.array(found) - CAR_LOAN_CBPE)
    print(f"largest difference to the documented estimates: {errors.max():.6f}")
    assert errors.max() < 0.0005

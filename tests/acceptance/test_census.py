"""US Census data (NannyML's `employment_MA`): 208,892 rows, their labels as feedback, and what Prometheus says of it.

A model of 2015 meets later years. In two of the 42 chunks it fails: these two are found without labels, and
nothing else is, where every look at single features would have raised an alarm in most of them.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pytest
from msgspec import Struct
from sklearn.metrics import roc_auc_score
from tests.acceptance import nannyml_data
from tests.acceptance.nannyml_data import Scored
from tests.acceptance.story import Story, manifest, numeric, text
from tests.local.running import coalmine

from coalmine_operator.api.baseline import decode_baseline

pytestmark = pytest.mark.timeout(1800)

SCORE: Final = "predicted_probability"
#: Columns that are no features: the row's number, the label, what the model said.
OTHERS: Final = frozenset({"id", "employed", "year", "prediction", SCORE})
#: Estimated and realised AUC of the two chunks that fail, as NannyML and scikit-learn have them.
FAILING: Final = {27: (0.8368, 0.8035), 28: (0.8729, 0.8642)}
ALERT: Final = "EstimatedPerformanceDrop"


class Chunk(Struct, frozen=True, kw_only=True):
    """What Prometheus said at the end of a chunk's window."""

    estimated: float
    realised: float
    firing: frozenset[str]
    psi: dict[str, float]
    coverage: float


@pytest.fixture(scope="module")
def live() -> Scored:
    return nannyml_data.employment_analysis()


@pytest.fixture(scope="module")
def features(live: Scored) -> list[str]:
    return [name for name in live.columns if name not in OTHERS]


def monitoring(features: dict[str, str], digest: str) -> dict[str, Any]:
    now = {"for": "0s"}
    return {
        "features": [{"name": name, "type": kind} for name, kind in features.items()],
        "baseline": {"file": "baseline.json", "digest": digest},
        "slices": [{"attribute": "sex", "path": "SEX"}],
        "alerts": {"overrides": [{"name": ALERT, **now}, {"name": "FeatureDrift", **now}]},
    }


@pytest.fixture(scope="module")
def chunks(live: Scored, features: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[Chunk]:
    """All of them, played one after the other."""
    folder = tmp_path_factory.mktemp("census")
    reference = nannyml_data.employment_reference_file(folder)
    wanted = [option for name in features for option in ("--feature", name)]
    coalmine(
        "baseline", "build", reference.name, "-o", "baseline.json", "--model", "census", "--version", "v1",
        "--score", SCORE, "--label", "employed", *wanted, cwd=folder,
    )  # fmt: skip
    baseline = decode_baseline((folder / "baseline.json").read_bytes())
    kinds = {name: "numeric" if hasattr(baseline.features[name], "edges") else "categorical" for name in features}
    digest = coalmine("baseline", "show", "baseline.json", cwd=folder).stdout.partition("sha256:")[2][:64]
    document = manifest("census", SCORE, monitoring(kinds, f"sha256:{digest}"))
    story = Story(folder, document, "--baseline", "baseline.json")

    def tensors(rows: Scored, part: slice) -> list[dict[str, Any]]:
        columns = [
            (numeric if kind == "numeric" else text)(name, rows.columns[name][part]) for name, kind in kinds.items()
        ]
        return [*columns, numeric(SCORE, list(rows.scores[part]))]

    found = []
    try:
        for number, rows in enumerate(live.chunks()):
            end = story.play(live, rows, tensors, f"chunk-{number}")
            found.append(look(story, end))
            said = found[-1]
            drifted = sum(psi > 0.2 for psi in said.psi.values())
            print(
                f"chunk {number:2}: AUC {said.realised:.4f}, estimated {said.estimated:.4f},"
                f" labels {said.coverage:.2f}, features over PSI 0.2: {drifted}; {' '.join(sorted(said.firing))}",
                flush=True,
            )
    finally:
        story.stop()
    return found


def look(story: Story, at: float) -> Chunk:
    prometheus = story.prometheus
    return Chunk(
        estimated=story.one('coalmine:auc:ratio{truth="estimate"}', at),
        realised=story.one('coalmine:auc:ratio{truth="label"}', at),
        coverage=story.one("coalmine:labels:coverage", at),
        psi={labels["feature"]: value for labels, value in prometheus.query("coalmine:feature_psi:baseline", at)},
        firing=frozenset(labels["alertname"] for labels, _ in prometheus.query('ALERTS{alertstate="firing"}', at)),
    )


def test_the_realised_auc_is_scikit_learns(chunks: list[Chunk], live: Scored) -> None:
    wanted = np.array([roc_auc_score(live.labels[rows], live.scores[rows]) for rows in live.chunks()])
    errors = np.abs(np.array([chunk.realised for chunk in chunks]) - wanted)
    print(f"largest difference to scikit-learn's AUC: {errors.max():.5f}")
    assert errors.max() < 0.0005
    assert np.allclose([wanted[number] for number in FAILING], [auc for _, auc in FAILING.values()], atol=0.0001)


def test_the_estimated_auc_is_nannymls(chunks: list[Chunk], live: Scored) -> None:
    wanted = nannyml_data.cbpe_auc(nannyml_data.employment_reference(), live)
    errors = np.abs(np.array([chunk.estimated for chunk in chunks]) - wanted)
    print(f"largest difference to NannyML's CBPE: {errors.max():.5f}")
    assert errors.max() < 0.001
    assert np.allclose([wanted[number] for number in FAILING], [auc for auc, _ in FAILING.values()], atol=0.0001)


def test_the_performance_alert_fires_in_exactly_the_chunks_that_fail(chunks: list[Chunk]) -> None:
    assert {number for number, chunk in enumerate(chunks) if ALERT in chunk.firing} == set(FAILING)


def test_every_row_had_its_label(chunks: list[Chunk]) -> None:
    assert all(abs(chunk.coverage - 1) < 0.001 for chunk in chunks)


def test_a_plain_psi_would_have_alerted_most_of_the_time(chunks: list[Chunk]) -> None:
    alarmed = sum(any(psi > 0.2 for psi in chunk.psi.values()) for chunk in chunks)
    print(f"chunks in which some feature has a PSI over 0.2: {alarmed} of {len(chunks)}")
    assert alarmed > len(chunks) / 2

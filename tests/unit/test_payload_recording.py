"""What the payload log writes is what `coalmine baseline build` reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.test_payload_events import exchange
from tests.unit.test_payload_logger import logger

from coalmine_operator.cli.baseline_open import files_of, open_source
from coalmine_operator.cli.baseline_source import Named
from coalmine_sidecar.monitoring import PayloadLog


def tensor(name: str, *values: float) -> dict[str, object]:
    return {"name": name, "shape": [len(values)], "datatype": "FP64", "data": list(values)}


@pytest.mark.parametrize("file", ["recording.jsonl", "recording.parquet"])
async def test_a_recording_is_rows_of_features_and_scores(tmp_path: Path, file: str):
    settings = PayloadLog(percent=100, file=str(tmp_path / file), redact=("$.inputs[*].parameters",))
    log = logger(settings)
    for number in range(300):
        if number == 150:
            # A process ends and the next one goes on: of Parquet there are two files then.
            await log.close(60)
            log = logger(settings)
        ages = (number, number + 0.5)
        request = {"inputs": [tensor("age", *ages) | {"parameters": {"ssn": "s3cret"}}, tensor("income", 1, 2)]}
        answer = {"model_name": "m", "outputs": [tensor("score", *(age / 1000 for age in ages))]}
        log.offer(
            exchange(
                json.dumps(request, indent=2).encode(),
                json.dumps(answer).encode(),
                id=f"p-{number}",
                version="v1" if number % 3 else "v2",
            )
        )
    log.offer(exchange(b"not json", b"{}", id="p-x", version="v1"))
    await log.close(60)
    source = open_source(files_of([tmp_path], but=tmp_path / "baseline.json"), Named(version="v1"))
    assert list(source.columns) == ["age", "income", "score"]
    assert list(source.outputs) == ["score"]
    rows = [row for batch, _ in source.batches(["age", "score"]) for row in zip(*batch.values(), strict=True)]
    expected = [(age, age / 1000) for number in range(300) if number % 3 for age in (number, number + 0.5)]
    assert rows == expected
    assert "1 exchanges with a body that is omitted" in source.notes()

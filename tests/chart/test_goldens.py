"""What the chart renders, whole, for the values it brings.

COALMINE_UPDATE_GOLDENS=1 writes the files anew: look at their diff before it is committed.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from tests.chart.chart import SETS, Chart

GOLDENS = Path(__file__).parent / "goldens"
_TOKEN = re.compile(r"^(  token: )\S+$", re.MULTILINE)
#: The definitions stand in `crds/`; test_crds.py compares them with what is rendered.
_DEFINITIONS = re.compile(r"^---\n# Source: coalmine/templates/crds\.yaml\n.*?(?=^---$)", re.MULTILINE | re.DOTALL)
#: The dashboards stand in `files/`; test_metrics.py compares them.
_DASHBOARDS = re.compile(r"^(  coalmine(?:-deployment)?\.json: \|-\n)(?:    .*\n|\n)+", re.MULTILINE)


def golden(text: str) -> str:
    text = _DEFINITIONS.sub("---\n# Source: coalmine/templates/crds.yaml\n# (left out)\n", text)
    text = _DASHBOARDS.sub(r"\1    (left out)\n", text)
    text = _TOKEN.sub(r"\1(random)", text)
    return re.sub(r"\n+(?=---$)", "\n", text, flags=re.MULTILINE)


@pytest.mark.parametrize("name", SETS)
def test_rendered_as_before(chart: Chart, name: str) -> None:
    file = GOLDENS / f"{name}.yaml"
    rendered = golden(chart.text(file=SETS[name]))
    if os.environ.get("COALMINE_UPDATE_GOLDENS") == "1":
        file.parent.mkdir(exist_ok=True)
        file.write_text(rendered)
    assert rendered == file.read_text(), (
        "if that is meant: COALMINE_UPDATE_GOLDENS=1 pytest tests/chart/test_goldens.py"
    )


def test_no_stray_blanks(chart: Chart) -> None:
    assert [line for line in chart.text().splitlines() if line != line.rstrip()] == []

"""`coalmine baseline show`: what is said of a baseline, the picture of it, and the lines to paste."""

from __future__ import annotations

import io
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
import yaml
from rich.console import Console
from tests.local.running import said

from coalmine_operator.api.baseline import Baseline, Categorical, Figure, Numeric, Performance, Score, encode_baseline
from coalmine_operator.api.baseline import digest_of as digest
from coalmine_operator.api.decode import decode
from coalmine_operator.cli.baseline_picture import picture
from coalmine_operator.cli.tables import baseline_view, lines_of, yaml_lines

AMOUNT = Numeric(edges=(10.0, 20.0), counts=(40, 40, 10), missing=10, mean=14.5, stddev=6.25, min=0.0, max=25.0)
KIND = Categorical(categories=("<b>", "web & shop"), counts=(30, 60), unseen=10)
SCORE = Score(
    threshold=0.5,
    positive="yes",
    edges=(0.2, 0.5),
    calibration=(0.1, 0.3, 0.8),
    counts=(50, 30, 20),
    positives=(5, 9, 16),
)
MADE = Baseline(
    schema=1,
    model="fraud",
    version="v3",
    task="binary",
    rows=100,
    created_at="2026-11-22T16:00:00Z",
    source="rows.csv",
    features={"amount": AMOUNT, "kind: of sale": KIND},
    outputs={"score": AMOUNT},
    score=SCORE,
    performance=Performance(
        chunk_rows=50,
        metrics={"auc": Figure(value=0.81234, mean=0.79, stddev=0.02), "auc_estimated": Figure(value=0.8)},
    ),
)
BARE = Baseline(schema=1, model="m", version="v", task="text", rows=0)
CONSTANT = Numeric(edges=(2.999997, 3.000003), counts=(0, 5, 0), mean=3.0, stddev=0.0, min=3.0, max=3.0)
DIGEST = digest(encode_baseline(MADE))


def test_plain_lines() -> None:
    assert lines_of(MADE, DIGEST) == [
        "fraud v3: binary, 100 rows of rows.csv, made 2026-11-22T16:00:00Z",
        DIGEST,
        "",
        "feature amount: numeric, mean 14.5, deviation 6.25, from 0 to 25",
        "  < 10     40.0% ##############################",
        "  10 – 20  40.0% ##############################",
        "  ≥ 20     10.0% ###############",  # half as wide, so half as dense is a quarter of the rows
        "  missing  10.0%",
        "",
        "feature kind: of sale: categorical, 2 names",
        "  <b>         30.0% ###############",
        "  web & shop  60.0% ##############################",
        "  unseen      10.0%",
        "",
        "output score: numeric, mean 14.5, deviation 6.25, from 0 to 25",
        "  < 10     40.0% ##############################",
        "  10 – 20  40.0% ##############################",
        "  ≥ 20     10.0% ###############",
        "  missing  10.0%",
        "",
        "auc 0.8123 (chunks of 50: mean 0.7900, deviation 0.0200)",
        "auc_estimated 0.8000",
    ]


def test_on_a_terminal_there_are_bars() -> None:
    drawn = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    drawn.print(baseline_view(MADE, DIGEST))
    text = drawn.file.getvalue()  # type: ignore[attr-defined]
    assert DIGEST in text
    assert "< 10     40.0%  " + "█" * 30 in text
    assert "≥ 20     10.0%  " + "█" * 15 + " " in text
    assert "web & shop  60.0%" in text
    assert "auc 0.8123 0.7900 0.0200" in " ".join(text.split())


def test_the_lines_to_paste_are_a_good_manifest() -> None:
    lines = yaml_lines(MADE, DIGEST, "baseline.json")
    manifest = yaml.safe_load(
        "apiVersion: coalmine.dev/v1alpha1\nkind: ModelDeployment\nmetadata: {name: fraud}\nspec:\n"
        "  template: {spec: {containers: [{name: model, image: x}]}}\n" + "".join(f"  {line}\n" for line in lines)
    )
    monitoring = decode(manifest).spec.monitoring
    assert monitoring
    assert monitoring.task == "binary"
    assert (monitoring.prediction.threshold, monitoring.prediction.positive) == (0.5, "yes")
    assert monitoring.baseline
    assert (monitoring.baseline.file, monitoring.baseline.digest) == ("baseline.json", DIGEST)
    assert [(one.name, one.type) for one in monitoring.features] == [
        ("amount", "numeric"),
        ("kind: of sale", "categorical"),
    ]


@pytest.mark.parametrize("made", [MADE, BARE, msgspec.structs.replace(MADE, features={"c": CONSTANT})])
def test_the_picture_is_well_formed_and_inside_its_frame(made: Baseline) -> None:
    root = ElementTree.fromstring(picture(made, DIGEST))
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    panels = root.findall(f"{space}g")
    assert len(panels) == len(made.features) + len(made.outputs) + bool(made.score) + bool(made.performance)
    for panel in panels:
        x, y = map(float, panel.attrib["transform"].removeprefix("translate(").rstrip(")").split())
        card = panel[0]
        right, bottom = float(card.attrib["width"]), float(card.attrib["height"])
        assert x + right <= width
        assert y + bottom <= height
        for bar in panel.findall(f"{space}rect")[1:]:
            assert 0 <= float(bar.attrib["x"]) <= right - float(bar.attrib["width"])
            assert 0 <= float(bar.attrib["y"]) <= bottom - float(bar.attrib["height"])


def test_the_picture_tells_shares_by_its_areas() -> None:
    root = ElementTree.fromstring(picture(MADE, DIGEST))
    panel = root.findall("{http://www.w3.org/2000/svg}g")[0]
    bars = panel.findall("{http://www.w3.org/2000/svg}rect")[1:]
    areas = [(float(bar.attrib["width"]) + 1) * float(bar.attrib["height"]) for bar in bars]
    assert [area / areas[0] for area in areas] == pytest.approx([1, 1, 0.25], rel=0.02)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, image = tmp_path / "baseline.json", tmp_path / "baseline.svg"
    path.write_bytes(encode_baseline(MADE))
    code, out, err = said(capsys, "baseline", "show", str(path), "--image", str(image))
    assert (code, err) == (0, "")
    shown = [*lines_of(MADE, DIGEST), "", *yaml_lines(MADE, DIGEST, "baseline.json"), "", f"{image}: drawn"]
    assert out.splitlines() == shown
    assert image.read_text() == picture(MADE, DIGEST)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "baseline: is no JSON: Input data was truncated"),
        (b"{}", "baseline: object missing required field schema"),
        (encode_baseline(MADE).replace(b'"rows": 100', b'"rows": "x"'), "rows: expected int, got str"),
        (b" " * (9 << 20), "baseline: 8388609 bytes, and a baseline has at most 8388608"),
    ],
    ids=range(4),
)
def test_a_file_that_is_none(content: bytes, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, image = tmp_path / "baseline.json", tmp_path / "never.svg"
    path.write_bytes(content)
    code, out, err = said(capsys, "baseline", "show", str(path), "--image", str(image))
    assert (code, out, err) == (2, "", f"{path}: {line}\n")
    assert not image.exists()


def test_files_that_cannot_be_had(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.json"
    code, _, err = said(capsys, "baseline", "show", str(path))
    assert (code, err) == (2, f"{path}: cannot be read: No such file or directory\n")
    path.write_bytes(encode_baseline(MADE))
    image = tmp_path / "none" / "x.svg"
    code, _, err = said(capsys, "baseline", "show", str(path), "--image", str(image))
    assert (code, err) == (2, f"{image}: cannot be written: No such file or directory\n")

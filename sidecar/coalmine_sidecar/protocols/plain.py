"""Answers in formats of their own, or in none: Seldon, DataRobot, H2O, Azure ML, TorchServe, Ray Serve, CSV.

Sources: docs.seldon.ai (SeldonMessage), docs.datarobot.com (Prediction API), H2O's scorer (dai-deployment-templates),
learn.microsoft.com (online endpoints), pytorch.org/serve, sagemaker-xgboost-container.
"""

from __future__ import annotations

from typing import Any, Final

from .csvtext import csv_rows, has_header
from .jsontext import read_json
from .outputs import MAX_COLUMNS, MAX_ROWS, Answer, UnreadableError, Value, failure, id_of
from .tables import from_text
from .v1 import read_rows
from .wanted import SCALARS, Wanted

#: What a list or a value without any name is called.
NAMELESS: Final = "output"
#: A designer's pipeline repeats its inputs beside these.
_SCORED: Final = "Scored "


def read_known(document: Any, wanted: Wanted | None) -> Answer | None:
    """An answer that tells by its keys whose it is; None where it does not."""
    if not isinstance(document, dict):
        return None
    data = document.get("data")
    if isinstance(data, dict) and ("ndarray" in data or "tensor" in data):
        return _read_seldon(document, data, wanted)
    if "jsonData" in document:
        answer = read_plain(document["jsonData"], wanted)
        answer.id = _puid(document)
        return answer
    if isinstance(data, list) and data and isinstance(data[0], dict):
        if "prediction" in data[0] or "predictionValues" in data[0]:
            return _read_datarobot(data, wanted)
    elif isinstance(score := document.get("score"), list) and score and isinstance(score[0], list):
        return _read_named(document.get("fields"), "score", score, wanted)
    elif isinstance(results := document.get("Results"), dict | list):
        return _read_results(results, wanted)
    return None


def read_plain(document: Any, wanted: Wanted | None) -> Answer:
    """One object, value or list of them, one a row. Of objects what has one value or a short list of them is read."""
    if isinstance(document, str) and document[:1] in ("{", "["):
        # What a scoring script of Azure's has already written as JSON is written as JSON once more.
        try:
            document = read_json(document.encode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return failure("not_json")
    answer = Answer()
    rows = document if isinstance(document, list) else [document]
    if rows and isinstance(rows[0], dict):
        rows = [_flat(row) if isinstance(row, dict) else row for row in rows[:MAX_ROWS]] + rows[MAX_ROWS:]
        if not any(rows):
            return failure("unknown_protocol")
    read_rows(NAMELESS, rows, answer, wanted)
    return answer


def read_torchserve(document: Any, wanted: Wanted | None) -> Answer:
    """TorchServe's own handlers of images and texts answer with the likeliest classes, each with its probability."""
    best = _likeliest(document)
    if best is None and isinstance(document, list) and len(document) == 1:
        best = _likeliest(document[0])
    if best is None:
        return read_plain(document, wanted)
    return Answer(1, [("label", [best[0]]), ("score", [best[1]])])


def read_lines(rows: list[Any], wanted: Wanted | None) -> Answer:
    """JSON lines: one row each."""
    return read_plain(rows, wanted) if rows else Answer()


def read_csv(body: bytes, wanted: Wanted | None) -> Answer:
    """A line is a row; see has_header for the first."""
    try:
        texts, count = csv_rows(body, MAX_ROWS + 1)
    except UnreadableError:
        return failure("not_json")
    rows = [[from_text(cell) for cell in row] for row in texts]
    if has_header(rows):
        names = [str(cell) for cell in rows.pop(0)]
        count -= 1
    else:
        names = []
    answer = _read_named(names, NAMELESS, rows[:MAX_ROWS], wanted)
    answer.saw(count)
    return answer


def _read_seldon(document: dict[str, Any], data: dict[str, Any], wanted: Wanted | None) -> Answer:
    tensor = data.get("tensor")
    rows: Any = data.get("ndarray")
    if isinstance(tensor, dict):
        shape, values = tensor.get("shape"), tensor.get("values")
        if not isinstance(shape, list) or not isinstance(values, list) or not 1 <= len(shape) <= 2:
            return failure("shape")
        width = shape[1] if len(shape) == 2 else 1
        if type(width) is not int or type(shape[0]) is not int or width < 1 or shape[0] * width != len(values):
            return failure("shape")
        rows = values if width == 1 else [values[at : at + width] for at in range(0, len(values), width)]
    if not isinstance(rows, list):
        return failure("shape")
    answer = _read_named(data.get("names"), "data", rows, wanted)
    answer.id = _puid(document)
    return answer


def _puid(document: dict[str, Any]) -> str:
    meta = document.get("meta")
    return id_of(meta.get("puid")) if isinstance(meta, dict) else ""


def _read_datarobot(rows: list[Any], wanted: Wanted | None) -> Answer:
    """`prediction` of each row, and `predictionValues.LABEL`, the probability of each class."""
    objects: list[Any] = []
    for row in rows[:MAX_ROWS]:
        if not isinstance(row, dict):
            return failure("shape")
        flat = {"prediction": row.get("prediction")}
        values = row.get("predictionValues")
        for value in values[:MAX_COLUMNS] if isinstance(values, list) else ():
            if isinstance(value, dict) and type(label := value.get("label")) in SCALARS:
                flat[f"predictionValues.{_label(label)}"] = value.get("value")
        objects.append(flat)
    answer = Answer()
    read_rows(NAMELESS, objects, answer, wanted)
    answer.saw(len(rows))
    return answer


def _label(value: Value) -> str:
    """Classes that are whole numbers come as 1.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _read_results(results: Any, wanted: Wanted | None) -> Answer:
    if isinstance(results, dict):
        results = next((port for port in results.values() if isinstance(port, list)), None)
        if results is None:
            return failure("no_outputs")
    if results and isinstance(results[0], dict) and any(key.startswith(_SCORED) for key in results[0]):
        results = [
            {key: value for key, value in row.items() if key.startswith(_SCORED)} if isinstance(row, dict) else row
            for row in results
        ]
    return _numbered(read_plain(results, wanted))


def _numbered(answer: Answer) -> Answer:
    """Of servers that write numbers as text."""
    columns = answer.columns
    for at, (name, values) in enumerate(columns):
        columns[at] = (name, [from_text(value) if isinstance(value, str) else value for value in values])
    return answer


def _read_named(names: Any, name: str, rows: list[Any], wanted: Wanted | None) -> Answer:
    """Arrays whose columns have `names`, if these are as many; else they are called by `name` and their position."""
    first = rows[0] if rows else None
    width = len(first) if isinstance(first, list) else 1
    answer = Answer()
    if not isinstance(names, list) or len(names) != width or width > MAX_COLUMNS:
        read_rows(name, rows, answer, wanted)
    elif width == 1:
        read_rows(str(names[0]), rows, answer, wanted)
    else:
        answer.saw(len(rows))
        rows = rows[:MAX_ROWS]
        if not all(isinstance(row, list) and len(row) == width for row in rows):
            answer.fail("shape")
            return answer
        for at, called in enumerate(names):
            read_rows(str(called), [row[at] for row in rows], answer, wanted, objects=False)
    return _numbered(answer)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not isinstance(value, dict)}


def _likeliest(found: Any) -> tuple[str, float] | None:
    if not isinstance(found, dict) or len(found) < 2 or len(found) > 1000:
        return None
    if (
        not all(isinstance(value, float) and 0.0 <= value <= 1.0 for value in found.values())
        or sum(found.values()) > 1.01
    ):
        return None
    label = max(found, key=found.__getitem__)
    return label, found[label]

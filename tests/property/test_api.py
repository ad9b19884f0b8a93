"""Reading manifests, for any input: a deployment or lines that name a path, never anything else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.manifests import changed, get, good, problem_lines

from coalmine_operator.api.codec import from_json, spec_from_json, to_json
from coalmine_operator.api.decode import Invalid, decode, read_manifests
from coalmine_operator.api.duration import LONGEST, Duration
from coalmine_operator.api.spec import ModelDeployment
from coalmine_operator.api.walk import BROKEN, Walker

PATH = re.compile(r'[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*|\[-?[0-9]+\]|\["[^\n]*?"\])*')

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=80)
    | st.sampled_from(
        ["15s", "0s", "previous", "v2", "errorRate", "baseline", "a\n", "\ud800", "\u2028", 0, 1, 101, 1.0]
    )
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def paths_of(raw: Any, path: str = "") -> Iterator[str]:
    """Every field of the manifest that the types describe: not inside the parts that are passed on."""
    if path in ("metadata.creationTimestamp",):
        return
    if path:
        yield path
    if path in ("spec.template", "spec.fallback.template", "spec.model.lineage"):
        return
    if isinstance(raw, dict):
        for key, value in raw.items():
            yield from paths_of(value, f"{path}.{key}" if path else key)
    elif isinstance(raw, list):
        for index, value in enumerate(raw):
            yield from paths_of(value, f"{path}[{index}]")


PATHS = sorted(paths_of(good()))


def decode_or_lines(raw: Any) -> ModelDeployment | None:
    try:
        return decode(raw)
    except Invalid as error:
        problems = error.problems
    assert problems
    for problem in problems:
        assert PATH.fullmatch(problem.path), problem.path
        assert problem.message
        assert str(problem).isprintable()
        assert len(problem.message) < 400
    return None


@given(values)
@example({"apiVersion": {}, 5: 6})
def test_any_value_decodes_or_is_refused_in_lines(raw: Any) -> None:
    decode_or_lines(raw)


@given(st.sampled_from(PATHS), values)
def test_any_value_at_any_field_decodes_or_is_refused_in_lines(path: str, value: Any) -> None:
    deployment = decode_or_lines(changed(path, value))
    if deployment is not None:
        assert spec_from_json(to_json(deployment.spec)) == deployment.spec


@pytest.mark.parametrize("path", PATHS)
def test_a_field_of_the_wrong_kind_is_named_and_nothing_else(path: str) -> None:
    wrong: Any = 5 if isinstance(get(good(), path), dict | list) else {"wrong": "kind"}
    (line,) = problem_lines(changed(path, wrong))
    assert line.startswith(f"{path}: ")


@pytest.mark.parametrize("path", [path for path in PATHS if isinstance(get(good(), path), dict)])
def test_an_unknown_field_is_named_wherever_it_stands(path: str) -> None:
    free = ("metadata", "metadata.labels", "spec.template", "spec.fallback.template", "spec.model.lineage")
    raw = changed(f"{path}.qqqq", "x")
    if path in free or path.endswith(".matchLabels"):
        decode(raw)
    else:
        (line,) = problem_lines(raw)
        assert line.startswith(f"{path}.qqqq: unknown field; known here: ")


# Where ours is wider: null is absent, and 3.0 is a whole number as it is to Kubernetes.
narrow = scalars.filter(lambda value: value is not None and not (isinstance(value, float) and value.is_integer()))


@given(st.sampled_from(PATHS), narrow)
def test_the_walker_takes_what_msgspec_takes(path: str, value: Any) -> None:
    """msgspec reads the same types in its own way: an oracle."""
    raw = changed(path, value)
    ours = Walker({}).read(ModelDeployment, raw)
    try:
        theirs = msgspec.json.decode(
            json.dumps(raw), type=ModelDeployment, dec_hook=lambda kind, text: kind.parse(text)
        )
    except (msgspec.DecodeError, TypeError):
        assert ours is BROKEN
        return
    if (
        ours is BROKEN
    ):  # stricter on purpose: 64 bits, and a pattern is for the whole text, its last line break included
        assert (isinstance(value, int) and abs(value) >= 1 << 63) or str(value).endswith("\n")
    else:
        assert ours == theirs


@given(st.text(max_size=200) | st.text(alphabet="ab:-[]{}&*<\n \"'!|>#%@~19.", max_size=60))
@example("&a [*a]")
@example("? a\n: b")
@example("%YAML 9.9\n---\na: b")
@example("\ufeffa: 1")
@example("!<tag:yaml.org,2002:str> a")
def test_any_text_is_documents_or_lines(text: str) -> None:
    documents, problems = read_manifests(text, source="m.yaml")
    assert documents or problems
    for problem in problems:
        assert re.fullmatch(r"m\.yaml(:[0-9]+)?", problem.path)
        assert str(problem).isprintable()
    for document in documents:
        msgspec.json.encode(document.raw)
        decode_or_lines(document.raw)


@given(st.integers(0, int(LONGEST * 1000)))
def test_durations_read_back_to_the_millisecond(milliseconds: int) -> None:
    duration = Duration.parse(f"{milliseconds}ms")
    assert duration == milliseconds / 1000
    assert from_json(to_json(duration), Duration) == duration

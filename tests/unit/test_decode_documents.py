"""YAML text into documents: scalars as kubectl reads them, every refusal with its line, bombs defused."""

from __future__ import annotations

from typing import Any

import pytest

from coalmine_operator.api.decode import read_manifests


def value_of(text: str) -> Any:
    documents, problems = read_manifests(f"v: {text}\n", source="m.yaml")
    assert problems == []
    return documents[0].raw["v"]


def problem_lines(text: str) -> list[str]:
    _, problems = read_manifests(text, source="m.yaml")
    return [str(problem) for problem in problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("yes", True),
        ("Off", False),
        ("17", 17),
        ("-0", 0),
        ("+5", 5),
        ("0x1F", 31),
        ("0o17", 15),
        ("017", 15),
        ("-0b11", -3),
        ("08", 8.0),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("'17'", "17"),
        ('"yes"', "yes"),
        ("!!str 17", "17"),
        ("!!float 17", 17),
        ("2026-11-20", "2026-11-20"),
        ("12:30:45", "12:30:45"),
        ("1_000", "1_000"),
        ("5 minutes", "5 minutes"),
        ("|\n  two\n  lines", "two\nlines\n"),
        ("[1, {a: b}]", [1, {"a": "b"}]),
    ],
)
def test_scalars_mean_what_they_mean_to_kubectl(text: str, value: Any) -> None:
    found = value_of(text)
    assert found == value
    assert type(found) is type(value)


def test_documents_know_their_lines_and_empty_ones_are_left_out() -> None:
    documents, problems = read_manifests("# c\n---\na: 1\n---\n---\nb: 2\n", source="m.yaml")
    assert problems == []
    assert [(d.raw, d.source, d.line) for d in documents] == [({"a": 1}, "m.yaml", 2), ({"b": 2}, "m.yaml", 5)]


def test_aliases_and_merge_keys() -> None:
    text = "base: &b {x: 1, y: 2}\nover: {<<: *b, y: 3}\nmany: {<<: [*b, {z: 4}]}\nword: &w hi\nagain: [*w, *w]\n"
    (document,), problems = read_manifests(text, source="m.yaml")
    assert problems == []
    assert document.raw["over"] == {"x": 1, "y": 3}
    assert document.raw["many"] == {"x": 1, "y": 2, "z": 4}
    assert document.raw["again"] == ["hi", "hi"]


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
TOWER = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 100))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["m.yaml: holds no manifest"]),
        ("# only a comment\n---\n---\n", ["m.yaml: holds no manifest"]),
        ("a: 1\nb: 2\na: 3\n", ['m.yaml:3: "a" stands twice in one mapping, first in line 1']),
        ("{a: 1, a: 1}", ['m.yaml:1: "a" stands twice in one mapping, first in line 1']),
        (
            "a: {x: 1,\n x: 2}\nb: 1\nb: 2\n",
            [
                'm.yaml:2: "x" stands twice in one mapping, first in line 1',
                'm.yaml:4: "b" stands twice in one mapping, first in line 3',
            ],
        ),
        ("1: a\n", ["m.yaml:1: 1 is no name of a field: put it in quotes"]),
        ("on: a\n", ["m.yaml:1: true is no name of a field: put it in quotes"]),
        ("{[a]: b}\n", ["m.yaml:1: a list is no name of a field"]),
        ("a: .inf\n", ['m.yaml:1: ".inf" is no finite number: put it in quotes if text is meant']),
        ("a: 1e999\n", ['m.yaml:1: "1e999" is no finite number: put it in quotes if text is meant']),
        (
            "a: 9223372036854775808\n",
            ['m.yaml:1: "9223372036854775808" is a number too large: put it in quotes if text is meant'],
        ),
        (
            "a: " + "9" * 5000 + "\n",
            [f'm.yaml:1: "{"9" * 57}…" is a number too large: put it in quotes if text is meant'],
        ),
        ("a: !!int x\n", ['m.yaml:1: "x" is not what its tag !!int says']),
        (
            "a: 1\nb: !!python/object/apply:os.system [ls]\n",
            [
                'm.yaml:2: tag "tag:yaml.org,2002:python/object/apply:os.system" '
                "has no meaning in a manifest: leave it out"
            ],
        ),
        ("a: !secret x\n", ['m.yaml:1: tag "!secret" has no meaning in a manifest: leave it out']),
        ("a: *b\n", ["m.yaml:1: alias *b stands for nothing that is complete before it"]),
        ("a: &a [*a]\n", ["m.yaml:1: alias *a stands for nothing that is complete before it"]),
        ("a: 1\n---\nb: {<<: 5}\n", ["m.yaml:3: << takes a mapping, or a list of mappings"]),
        ("[" * 100 + "]" * 100, ["m.yaml:1: nested deeper than 64"]),
        (TOWER, ["m.yaml:64: nested deeper than 64"]),
        (LAUGHS, ["m.yaml:5: more than 100000 values, counted with what aliases stand for"]),
        ("a: '\ud800'\n", ["m.yaml: holds a character that is no Unicode text: save it as UTF-8"]),
        ("#" * ((1 << 20) + 1), ["m.yaml: has 1048577 bytes: a manifest may have 1048576"]),
    ],
)
def test_refused(text: str, expected: list[str]) -> None:
    assert problem_lines(text) == expected


# What is wrong is told in the words of the parser in use; libyaml's and Python's differ.
@pytest.mark.parametrize(
    ("text", "line"),
    [("a: b: c\n", 1), ("a: 1\n\tb: 2\n", 2), ("a: [1, 2\nb: 3\n", 2), ('a: "x\n', 2), ("a: 1\n b: 2\n", 2)],
)
def test_broken_yaml_is_one_line_with_its_line(text: str, line: int) -> None:
    (found,) = problem_lines(text)
    assert found.startswith(f"m.yaml:{line}: no YAML: ")
    assert len(found) > len(f"m.yaml:{line}: no YAML: ")
    assert "\n" not in found


def test_a_control_character_is_one_line() -> None:
    (found,) = problem_lines("a: 1\nb: \x01\n")
    assert "no YAML: " in found
    assert "\n" not in found


def test_documents_before_a_broken_one_are_read_and_the_broken_one_is_not() -> None:
    documents, problems = read_manifests("a: 1\n---\nb: 1\nb: 2\n---\nc: 3\n", source="m.yaml")
    assert [document.raw for document in documents] == [{"a": 1}, {"c": 3}]
    assert len(problems) == 1


def test_problems_are_bounded() -> None:
    assert len(problem_lines("".join("a: 1\n" for _ in range(1000)))) == 50

"""Paths that name values: what they mean, and what is said of wrong ones."""

import pytest

from coalmine_sidecar.jsonpath import EVERY, column_of_path, path_problem, steps_of


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("$", ()),
        ("$.instances[*].age", ("instances", EVERY, "age")),
        ("$['a b'][\"it's\"][0]", ("a b", "it's", 0)),
        ("$[*][3]", (EVERY, 3)),
        ("$.größe.x-y", ("größe", "x-y")),
        ("$['']", ("",)),
        ("$['a]b']", ("a]b",)),
    ],
)
def test_steps(path: str, steps: tuple[object, ...]) -> None:
    assert steps_of(path) == steps
    assert path_problem(path) == ""


@pytest.mark.parametrize(
    ("path", "column"),
    [
        ("", ("", None)),
        ("age", ("age", None)),
        ("x[3]", ("x", 3)),
        ("[12]", ("", 12)),
        ("temperature [C]", ("temperature [C]", None)),
        ("a.b", ("a.b", None)),
        ("x[1][2]", ("x[1]", 2)),
    ],
)
def test_columns(path: str, column: tuple[str, int | None]) -> None:
    assert column_of_path(path) == column
    assert path_problem(path) == ""


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("$x", "'x' should begin with . or ["),
        ("$.", "no name after the dot at character 2"),
        ("$..age", "no name after the dot at character 2"),
        ("$.*", "for all rows write [*]"),
        ("$.a]", "'a]' is no name"),
        ("$[", "no ] ends the bracket at character 2"),
        ("$[-1]", "[-1] is neither a position from 0"),
        ("$[?(@.a>1)]", "[?(@.a>1)] is neither a position from 0"),
        ("$[99999999999]", "[99999999999] is neither a position from 0"),
        ("$['a]", "no '] ends the name at character 3"),
        ("$['a'x", "no '] ends the name at character 3"),
        ("$.a[*].b[*]", "[*] stands for the rows, so at most once"),
        ("x[*]", "leave [*] out, or begin with $"),
        ("$" + ".a" * 400, "801 characters; at most 512 are read"),
    ],
)
def test_wrong_paths(path: str, said: str) -> None:
    problem = path_problem(path)
    assert problem.startswith(f"path {path[:40]!r}")
    assert said in problem
    assert "\n" not in problem


def test_only_a_json_path_has_steps() -> None:
    with pytest.raises(ValueError, match=r"path 'x': a JSON path begins with \$"):
        steps_of("x")

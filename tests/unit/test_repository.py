"""Rules about the tree itself, which no linter of ours knows."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = (ROOT / "pyproject.toml").read_text()
CONTRACTS = tomllib.loads(PYPROJECT)["tool"]["importlinter"]["contracts"]
PRODUCT = [path for part in ("operator", "sidecar", "examples") for path in sorted((ROOT / part).rglob("*.py"))]


def tracked() -> list[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("no git work tree: nothing says which files are tracked")
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


def test_operator_never_shadows_the_standard_library() -> None:
    assert not (ROOT / "operator/__init__.py").exists()
    assert "operator/__init__.py" not in tracked()


def test_every_directory_of_the_packages_is_a_package() -> None:
    """One without `__init__.py` escapes mypy and the import rules."""
    packages = (ROOT / "operator/coalmine_operator", ROOT / "sidecar/coalmine_sidecar")
    for package in packages:
        for directory in {path.parent for path in package.rglob("*.py")}:
            assert (directory / "__init__.py").is_file(), directory


def test_no_lock_file_that_records_registry_addresses() -> None:
    assert [name for name in tracked() if Path(name).name in ("uv.lock", "package-lock.json")] == []


def test_import_rules_hold() -> None:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", [contract["name"] for contract in CONTRACTS])
def test_import_rules_have_sentences_for_names(name: str) -> None:
    assert re.fullmatch(r"[A-Z]\S*( \S+){4,}", name), f"a sentence says what breaks with the rule: {name}"


def test_images_are_compiled_by_the_compiler_that_is_tested() -> None:
    tools = tomllib.loads(PYPROJECT)["project"]["optional-dependencies"]["dev"]
    dockerfile = (ROOT / "Dockerfile").read_text()
    for tool in ("mypy", "setuptools"):
        (wanted,) = (one for one in tools if re.match(rf"{tool}\b", one))
        assert f"'{wanted}'" in dockerfile


def test_dependencies_are_argued_with_their_size() -> None:
    """Of what users install; the extra `dev` is tools that never leave this tree."""
    arrays = re.findall(r"^(dependencies|cli|demo) = \[\n(.*?)^\]", PYPROJECT, re.MULTILINE | re.DOTALL)
    assert {name for name, _ in arrays} == {"dependencies", "cli", "demo"}
    for line in "".join(array for _, array in arrays).splitlines():
        if not line.strip().startswith(("#", '"coalmine[')):
            assert re.search(r'",\s+# [\d.]+ MB +\w', line), f"pyproject.toml: size and reason are missing: {line}"


def test_no_rule_is_switched_off_without_an_argument() -> None:
    silent = re.compile(r"# (noqa|type: ignore)(?!(: [A-Z0-9, ]+|\[[a-z, -]+\])\s+[-#] ?\w.{6,})")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in PRODUCT
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if silent.search(line)
    ]
    assert found == [], "write why behind it: `# noqa: X123 - because`\n" + "\n".join(found)


def test_ci_runs_the_test_command_of_the_readme() -> None:
    """The first command in a code block under README's heading on tests is what `.ci/run` ends with."""
    readme = (ROOT / "README.md").read_text()
    found = re.search(r"^#+ [^\n]*\btests?\b[^\n]*\n(?:(?!^#).)*?^```\w*\n([^\n]+)\n", readme, re.M | re.S | re.I)
    assert found, "README.md: a heading with the word `test` and a code block with the command under it"
    script = [line.strip() for line in (ROOT / ".ci/run").read_text().splitlines()]
    commands = [line for line in script if line and not line.startswith("#")]
    assert commands[-1].removeprefix("exec ") == found[1].split("#")[0].strip().removeprefix("$ ")


def test_the_test_command_runs_every_folder_of_tests() -> None:
    lines = [line for line in (ROOT / "Makefile").read_text().splitlines() if "/pytest " in line]
    run = {"/".join(word.split("/")[:2]) for line in lines for word in line.split() if word.startswith("tests/")}
    folders = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    assert {"/".join(folder.split("/")[:2]) for folder in folders} == run

"""What the README tells a reader to type is typed here: every command of two sections, in order, on the node."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.lab import images
from tests.cluster.lab.cache import PROJECT
from tests.cluster.lab.cluster import NodeCluster

SECTIONS = ("Install", "Your first ModelDeployment")
#: What a reader must put in its place, and what a node has instead of docker and a registry: see `docker`.
SUBSTITUTES = {"REGISTRY": "readme.test"}
IMAGES = (images.OPERATOR, images.SIDECAR, images.MODEL)
SYSTEM = "coalmine-system"
#: Commands that say nothing when all is well.
SILENT = ("sed ",)
#: As kubectl writes one.
AGE = r"\d+[smh](?:\d+s)?"
#: Seconds for one command, and for what a command that watches must show.
PATIENCE = 240.0

pytestmark = pytest.mark.timeout(900, func_only=True)


@dataclass(frozen=True)
class Command:
    """`shown`: lines of output below it, empty where none are."""

    text: str
    shown: tuple[str, ...]

    @property
    def watches(self) -> bool:
        return bool(re.search(r" (-w|--watch)\b", self.text))


def commands(readme: str) -> list[Command]:
    """Of the fenced blocks `sh` (commands alone) and `console` (`$ command`, then its output)."""
    found = []
    for section in SECTIONS:
        (body,) = re.findall(rf"^## {section}$(.*?)(?=^## )", readme, re.MULTILINE | re.DOTALL)
        for kind, block in re.findall(r"^```(sh|console)\n(.*?)^```$", body, re.MULTILINE | re.DOTALL):
            text = block.replace("\\\n", "")
            if kind == "sh":
                found += [Command(line, ()) for line in text.splitlines()]
            else:
                for part in re.findall(r"^\$ (.*(?:\n(?!\$ ).*)*)", text, re.MULTILINE):
                    command, *shown = part.splitlines()
                    found.append(Command(command, tuple(shown)))
    return found


class Reader:
    """A reader in a copy of the project, with kubectl and helm, and a node in the place of a registry."""

    def __init__(self, node: NodeCluster, folder: Path) -> None:
        self.node = node
        self.folder = folder
        self._built: dict[str, images.Image] = {}
        for name in ("helm", "examples"):
            shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))

    def type(self, command: Command) -> None:
        text = command.text
        for word, instead in SUBSTITUTES.items():
            text = text.replace(word, instead)
        print(f"$ {text}", flush=True)
        if text.startswith("docker "):
            self._docker(shlex.split(text)[1:])
        elif command.watches:
            self._watch(text, command.shown)
        else:
            ended = self._bash(text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            said = ended.communicate(timeout=PATIENCE)[0]
            print(said, flush=True)
            assert ended.returncode == 0, f"{text}: exit status {ended.returncode}: {said}"
            assert said or text.startswith(SILENT), f"{text}: says nothing"
            missing = not_shown(command.shown, said.splitlines())
            assert not missing, f"{text}: the README shows {missing!r}, but this was said:\n{said}"

    def _bash(self, text: str, **options: Any) -> subprocess.Popen[str]:
        argv = ["bash", "-e", "-o", "pipefail", "-c", text]
        return subprocess.Popen(argv, cwd=self.folder, env=self.node.environment, text=True, **options)

    def _watch(self, text: str, shown: tuple[str, ...]) -> None:
        """Until all that the README shows was seen, as somebody would who then presses Ctrl-C."""
        seen: list[str] = []
        with self._bash(f"exec {text}", stdout=subprocess.PIPE) as watching:
            assert watching.stdout is not None
            stop = threading.Timer(PATIENCE, watching.kill)
            stop.start()
            for line in watching.stdout:
                seen.append(line)
                if not not_shown(shown, seen):
                    break
            stop.cancel()
            watching.kill()
        print("".join(seen), flush=True)
        missing = not_shown(shown, seen)
        assert not missing, f"{text}: the README shows {missing!r}, but this was seen:\n{''.join(seen)}"

    def _docker(self, words: list[str]) -> None:
        """`build` builds as the tests do, with buildah on a base of Debian's; `push` brings it to the node."""
        verb, *rest = words
        if verb == "push":
            (tag,) = rest
            self.node.load(images.archive(self._built[tag]))
            self.node.name_again(self._built[tag].name, tag)
            return
        assert verb == "build"
        given = dict(zip(rest[:-1:2], rest[1:-1:2], strict=True))
        assert rest[-1] == "."
        recipe = (PROJECT / given.get("--file", "Dockerfile"), given.get("--target", "model"))
        (self._built[given["--tag"]],) = (one for one in IMAGES if (one.dockerfile, one.target) == recipe)


def not_shown(shown: Sequence[str], said: Sequence[str]) -> str:
    """The first of the lines shown that was not said after those before it; empty if all were.

    Spaces do not count, an age matches any other, and `...` matches anything.
    """
    rest = iter(said)
    for line in shown:
        words = [AGE if re.fullmatch(AGE, word) else re.escape(word) for word in line.split()]
        pattern = re.compile(r"\s+".join(words).replace(re.escape("..."), ".*"))
        if not any(pattern.fullmatch(one.strip()) for one in rest):
            return line
    return ""


def test_what_is_shown_must_be_said_in_its_order() -> None:
    said = ["NAME  PHASE AGE", "a  Progressing  4s", "a  Healthy  1m3s"]
    assert not_shown(["NAME PHASE AGE", "a Healthy 70s"], said) == ""
    assert not_shown(["a Healthy 70s", "a Progressing 4s"], said) == "a Progressing 4s"
    assert not_shown(["a Healthy"], said) == "a Healthy"
    assert not_shown(["a Hea...hy 1s"], said) == ""


@pytest.fixture
def bare(node: NodeCluster) -> Iterator[NodeCluster]:
    """The node without anything of Coalmine's, before and after."""

    def clean() -> None:
        node.helm("uninstall", "coalmine", "--namespace", SYSTEM, "--ignore-not-found", "--wait")
        node.kubectl("delete", "crd", "modeldeployments.coalmine.dev", "--ignore-not-found", timeout=120)
        node.kubectl("delete", "deployment/clients", "--ignore-not-found", "--wait=false")
        node.kubectl("delete", "namespace", SYSTEM, "--ignore-not-found", timeout=120)

    clean()
    yield node
    clean()


def test_every_command_of_the_readme_does_what_it_says(bare: NodeCluster, tmp_path: Path) -> None:
    reader = Reader(bare, tmp_path / "coalmine")
    typed = commands((PROJECT / "README.md").read_text())
    assert len(typed) > 15
    for command in typed:
        reader.type(command)

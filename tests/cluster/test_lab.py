"""The lab's parts that need no cluster, and what happens where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.cluster.absence import absent
from tests.cluster.lab import __main__ as lab
from tests.cluster.lab import cache
from tests.cluster.lab.archive import Layer, read_config, read_names, write_archive
from tests.cluster.lab.cache import PROJECT, fingerprint, made_once
from tests.cluster.lab.need import chosen, missing
from tests.cluster.lab.run import LabError, run
from tests.cluster.operating import troubles

#: Any test that asks for a cluster.
ASKING = "tests/cluster/test_node.py::test_helm_speaks_to_it"


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without the variables that say which cluster is wanted."""
    for name in ("CI", "COALMINE_CLUSTER", "COALMINE_KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_a_machine_that_can_run_no_node_says_why(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("PATH", "/nowhere")
    assert missing().startswith("a node of our own")


def test_without_a_cluster_a_user_is_told_why(bare: pytest.MonkeyPatch) -> None:
    with pytest.raises(pytest.skip.Exception, match="no cluster: no root"):
        absent("no root")


def test_ci_can_do_without_by_choice(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("CI", "true")
    bare.setenv("COALMINE_CLUSTER", "none")
    with pytest.raises(pytest.skip.Exception):
        absent("COALMINE_CLUSTER=none")


def test_without_a_cluster_ci_fails() -> None:
    kept = {name: value for name, value in os.environ.items() if name != "COALMINE_CLUSTER"}
    environment = kept | {"PATH": "/nowhere", "COALMINE_KUBECONFIG": "", "CI": "true"}
    argv = [sys.executable, "-m", "pytest", "-rA", "--no-header", ASKING]
    said = subprocess.run(argv, cwd=PROJECT, env=environment, capture_output=True, text=True).stdout

    assert "no cluster: a node of our own" in said
    assert "1 error" in said


def test_an_unknown_choice_is_refused(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("COALMINE_CLUSTER", "kind")
    with pytest.raises(LabError, match="COALMINE_CLUSTER=kind: own, kubeconfig or none"):
        chosen("own", "kubeconfig", "none")


def test_the_users_cluster_needs_its_file(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("COALMINE_CLUSTER", "kubeconfig")
    with pytest.raises(LabError, match="set COALMINE_KUBECONFIG to the file"):
        chosen("own", "kubeconfig", "none")


def test_what_is_cached_is_made_once_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "CACHE", tmp_path)
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "it").write_text("it")

    first = made_once("thing", "1", make)
    assert made_once("thing", "1", make) == first
    assert len(made) == 1
    assert (first / "it").read_text() == "it"

    newest = [made_once("thing", str(number), make) for number in range(2, 6)][-cache.KEPT :]
    assert set((tmp_path / "thing").iterdir()) == set(newest)


def test_a_maker_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "CACHE", tmp_path)

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise LabError("no")

    with pytest.raises(LabError, match="no"):
        made_once("thing", "1", fail)
    assert list((tmp_path / "thing").iterdir()) == []


def test_a_fingerprint_knows_names_contents_and_words() -> None:
    files = [PROJECT / "pyproject.toml", PROJECT / "README.md"]
    seen = {fingerprint(files), fingerprint(files[:1]), fingerprint(files, "a"), fingerprint(files, "a", "b")}

    assert len(seen) == 4
    assert fingerprint(files) == fingerprint(reversed(files))


def test_an_archive_reads_back(tmp_path: Path) -> None:
    write_archive(tmp_path / "a.tar", "x.test/a:1", Layer.of_file(Path(__file__), "bin/a"), entrypoint=["/bin/a"])

    assert read_names(tmp_path / "a.tar") == {"bin/a"}
    assert read_config(tmp_path / "a.tar")["Entrypoint"] == ["/bin/a"]


def test_a_program_that_fails_is_quoted() -> None:
    with pytest.raises(LabError, match=r"sh -c echo why >&2; exit 3: exit status 3: why"):
        run("sh", "-c", "echo why >&2; exit 3")
    with pytest.raises(LabError, match=r"sleep 5: no end after 0\.1 s"):
        run("sleep", "5", timeout=0.1)
    with pytest.raises(LabError, match="no-such-program: No such file"):
        run("no-such-program")


def test_the_command_for_the_node_names_the_images_that_it_has() -> None:
    """`make cluster` says it; images are called as the chart's values have them, but for the tag."""
    values = yaml.safe_load((PROJECT / "helm/coalmine/values.yaml").read_text())
    repositories = {values["image"]["repository"], values["sidecar"]["image"]["repository"]}
    assert {f"{name}:dev" for name in repositories} <= {image.name for image in lab.IMAGES}
    assert lab.INSTALL.endswith("--set image.tag=dev,sidecar.image.tag=dev")
    model = (PROJECT / "examples/breast-cancer-cluster.yaml").read_text()
    assert any(f"image: {image.name}\n" in model for image in lab.IMAGES)


def test_an_unknown_word_is_answered_with_the_usage() -> None:
    assert lab.main(["image"]) == "usage: python -m tests.cluster.lab [build | images]"


def test_a_namespace_that_goes_is_no_trouble_of_an_operator() -> None:
    moment = "2026-11-22 12:15:41,500"
    story = f'{moment} ERROR coalmine a/b: ApiError: namespaces "a" not found; again in 1 s\n'
    why = f"{moment} DEBUG coalmine a/b: reconcile failed\nTraceback (most recent call last):\n  File x\nApiError: "
    connecting = f"{moment} DEBUG coalmine pod: no snapshot: Connect call failed ('10.244.0.15', 8010)\n"
    assert troubles(f'{story}{why}namespaces "a" not found\n{connecting}') == []
    assert troubles(f"{story}{why}secrets are forbidden\n{connecting}") == [f"{why}secrets are forbidden\n"]
    assert troubles(f"{moment} WARNING coalmine: status 500: failed\n{connecting}")

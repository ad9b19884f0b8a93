"""The sidecar as its image has it: compiled. `python -m tests.compiled` prints the folder to put before all others."""

from __future__ import annotations

import compileall
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

from tests.cluster.lab.cache import PROJECT, files_below, fingerprint, made_once
from tests.cluster.lab.run import run

SOURCE = PROJECT / "sidecar"


def compiled() -> Path:
    """The folder of a compiled `coalmine_sidecar` for this version of Python. Raises LabError."""
    key = fingerprint(files_below(SOURCE), sys.version, version("mypy"), version("setuptools"))
    return made_once("compiled", key, _make)


def _make(folder: Path) -> None:
    print("compiling the sidecar (once, two minutes)", file=sys.stderr, flush=True)
    name, unwanted = "coalmine_sidecar", shutil.ignore_patterns("__pycache__")
    shutil.copytree(SOURCE / name, folder / name, ignore=unwanted)
    run(sys.executable, SOURCE / "compile.py", folder, timeout=1200)
    # As installed: a process that compiles its modules first keeps a MB more.
    compileall.compile_dir(folder, quiet=1)


if __name__ == "__main__":
    print(compiled())

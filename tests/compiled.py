"""The sidecar as its image has it: compiled. `python -m tests.compiled ARGUMENTS` runs pytest with it."""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from tests.cluster.lab.cache import PROJECT, files_below, fingerprint, made_once
from tests.cluster.lab.run import LabError, run

SOURCE = PROJECT / "sidecar"


def compiled() -> Path:
    """The folder to put before all others, with a compiled `coalmine_sidecar` in it. Raises LabError."""
    compiler = str(sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        raise LabError(f"compiling the sidecar takes {compiler}, which is not installed (make tools)")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        raise LabError(f"compiling the sidecar takes the headers of {sys.executable}, such as Debian's python3-dev")
    key = fingerprint(files_below(SOURCE), sys.version, version("mypy"), version("setuptools"))
    return made_once("compiled", key, _make)


def _make(folder: Path) -> None:
    print("compiling the sidecar (once, two minutes)", file=sys.stderr, flush=True)
    name, unwanted = "coalmine_sidecar", shutil.ignore_patterns("__pycache__")
    shutil.copytree(SOURCE / name, folder / name, ignore=unwanted)
    run(sys.executable, SOURCE / "compile.py", folder, timeout=1200)
    # As installed: a process that compiles its modules first keeps a MB more.
    compileall.compile_dir(folder, quiet=1)


def main(arguments: Sequence[str]) -> int:
    try:
        folder = compiled()
    except LabError as error:
        print(f"not run: {error}", file=sys.stderr)
        return 1 if os.environ.get("CI") == "true" else 0
    environment = os.environ | {"PYTHONPATH": str(folder), "COALMINE_COMPILED": "1"}
    return subprocess.call([sys.executable, "-m", "pytest", *arguments], env=environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Compiles the sidecar's hot path with mypyc, in place: `python compile.py FOLDER`, which holds `coalmine_sidecar`.

The same modules run as they are, for 1.7 times the CPU: images carry them compiled, a laptop does not need a compiler.
Takes mypy, setuptools and a C compiler. `--python`: the interpreter whose packages the sidecar will have.

What mypyc asks of the code beyond what mypy does: an attribute that was looked at keeps its narrowed type until it is
set before mypy's eyes (what a method does to it meanwhile must be asked for by a method), a whole number that is
passed for a float is made one (some have none), and a constant tuple of floats says `tuple[float, ...]`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mypyc.build import mypycify
from setuptools import setup

PACKAGE = Path("coalmine_sidecar")
#: Folders whose modules are compiled. An interpreted class cannot inherit from a compiled one: all of a family are.
FOLDERS = ("observe", "relay", "relay/h2", "telemetry")
LEFT_OUT = {
    "relay/detour.py": "an Enum whose members set fields of their own",
    "relay/tls.py": "a subclass of a built-in exception",
    "observe/processes.py": "it runs twice a minute",
    "observe/resources.py": "it runs twice a minute",
    "telemetry/exposition.py": "it runs when somebody scrapes",
    "telemetry/performancemetrics.py": "it runs when somebody scrapes",
    "telemetry/render.py": "it runs when somebody scrapes",
    "telemetry/snapshot.py": "it runs when the operator asks",
    "telemetry/textformat.py": "it runs when somebody scrapes",
    "telemetry/valuemetrics.py": "it runs when somebody scrapes",
    "telemetry/watched.py": "it runs when the routing file changes",
    "telemetry/watchedmetrics.py": "it runs when somebody scrapes",
}
#: A sixth of the library, and 0.2 MB of each pod's memory: tables to unwind C's stack, which no one does here (Python's
#: exceptions are values to C), and names of functions that only this library calls.
UNSEEN = ["-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fvisibility=hidden"]


def modules(folder: Path) -> Iterator[str]:
    """Paths of the modules to be compiled, from `folder` on."""
    for part in FOLDERS:
        for path in sorted((folder / PACKAGE / part).glob("*.py")):
            name = path.relative_to(folder / PACKAGE).as_posix()
            if path.name != "__init__.py" and name not in LEFT_OUT:
                yield str(path.relative_to(folder))


def compile_in_place(folder: Path, python: str = sys.executable) -> None:
    """Put extension modules beside the modules below `folder`, and what they share at its top.

    `python`: the interpreter in whose packages types are looked up. Raises SystemExit where it cannot be done.
    """
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(folder)
        try:
            options = ["--config-file=", f"--python-executable={python}", "--ignore-missing-imports"]
            options.append(f"--cache-dir={os.devnull}")
            # Not for size: a third of a MB less for each pod makes a request a tenth more expensive.
            extensions = mypycify(
                [*options, *modules(Path())], opt_level="2", debug_level="0", target_dir=f"{scratch}/c"
            )
            for extension in extensions:
                extension.extra_compile_args += UNSEEN
                extension.extra_link_args.append("-s")
            arguments = ["--quiet", "build_ext", "--inplace", f"--build-temp={scratch}/o", f"--build-lib={scratch}/l"]
            setup(name="coalmine-compiled", packages=[], ext_modules=extensions, script_args=arguments)
        finally:
            os.chdir(before)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default=sys.executable)
    given = parser.parse_args()
    compile_in_place(given.folder.resolve(), given.python)

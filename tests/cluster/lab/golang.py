"""Programs compiled from the Go modules of the tests."""

from __future__ import annotations

import os
from pathlib import Path

from .run import run

#: Part of what a program is made of.
SOURCE = Path(__file__)


def go_build(module: Path, package: str, output: Path, *, tags: str = "", symbols: str = "") -> None:
    """A static executable of `package`, as `module` sees it. `symbols`: flags for the linker. Raises LabError."""
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
    flags = ("-trimpath", "-tags", tags, "-ldflags", f"-s -w {symbols}")
    run("nice", "-n", "19", "go", "build", *flags, "-o", output, package,
        folder=module, environment=environment, timeout=3600)  # fmt: skip

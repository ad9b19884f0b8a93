"""The file of a payload log, as `coalmine run` would write it: whether it can be one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..api.problems import show
from ..api.spec import ModelDeployment


def payload_log_warnings(deployment: ModelDeployment, folder: Path) -> Iterator[str]:
    """A line where it cannot. `folder`: the manifest's own."""
    monitoring = deployment.spec.monitoring
    if monitoring is None or monitoring.payload_log is None or not (file := monitoring.payload_log.file):
        return
    path = folder / file
    where = f"spec.monitoring.payloadLog.file: {show(file)}"
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir():
        yield f"{where} is a folder: write a file's name, such as payloads.jsonl"
    elif not there.is_dir():
        yield f"{where}: {there} is no folder: write another path"
    elif not os.access(there, os.W_OK | os.X_OK):
        yield f"{where}: {there} cannot be written into: write another path"

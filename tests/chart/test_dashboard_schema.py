"""The dashboards are what Grafana takes for one: its own types (@grafana/schema) say so, by the TypeScript compiler."""

from __future__ import annotations

import json
import shutil
import subprocess
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.lab.cache import made_once
from tests.queries import DASHBOARDS

SCHEMA, COMPILER = "@grafana/schema@13.2.3", "typescript@7"
#: An enumeration's members are its texts in JSON.
HEAD = """import type { Dashboard } from '@grafana/schema';
type Json<T> = T extends string ? `${T}` : T extends (infer U)[] ? Json<U>[]
  : T extends object ? { [K in keyof T]: Json<T[K]> } : T;
export const dashboard: Json<Dashboard> = """

pytestmark = pytest.mark.skipif(shutil.which("npm") is None, reason="Grafana's types come by npm, which is not here")


@pytest.fixture(scope="module")
def types() -> Path:
    """A folder with Grafana's types and the compiler; fetched once."""

    def fetch(folder: Path) -> None:
        (folder / "package.json").write_text('{"private": true}')
        words = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--legacy-peer-deps"]
        subprocess.run([*words, SCHEMA, COMPILER], cwd=folder, check=True, capture_output=True, timeout=300)

    return made_once("grafana-schema", f"{SCHEMA}-{COMPILER}".replace("/", "-"), fetch)


def complaints(types: Path, folder: Path, dashboard: dict[str, Any]) -> list[str]:
    file = folder / "dashboard.ts"
    file.write_text(f"{HEAD}{json.dumps(dashboard, indent=1)};\n")
    (folder / "node_modules").symlink_to(types / "node_modules")
    flags = ["--noEmit", "--strict", "--skipLibCheck", "--moduleResolution", "bundler", "--module", "esnext"]
    command = [types / "node_modules/.bin/tsc", *flags, "--target", "es2022", file.name]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    return [line for line in done.stdout.splitlines() if "error" in line]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_grafana_takes_it(name: str, types: Path, tmp_path: Path) -> None:
    assert complaints(types, tmp_path, DASHBOARDS[name]) == []


def test_a_slip_is_seen(types: Path, tmp_path: Path) -> None:
    wrong = deepcopy(DASHBOARDS["dashboard"])
    wrong["panels"][1]["fieldConfig"] = {"defaults": {"unitt": "s"}, "overrides": []}
    (found,) = complaints(types, tmp_path, wrong)
    assert "unitt" in found

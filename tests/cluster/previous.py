"""The version of Coalmine before this one, for upgrades: the tree's chart under another version.

It brings an older definition, without `spec.autoRollback`, and its images have names of their own: an upgrade changes
the definition, the operator's pods and the sidecar that new pods get.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml
from tests.cluster.installed import CHART
from tests.cluster.lab.cache import PROJECT
from tests.cluster.lab.cluster import NodeCluster

VERSION = "0.0.9"
OPERATOR = f"coalmine-operator:{VERSION}"
SIDECAR = f"coalmine-sidecar:{VERSION}"
#: What its definition does not know yet, below `spec`.
UNKNOWN = "autoRollback"


def previous_chart(folder: Path) -> Path:
    """Written below `folder`, which may not hold it yet."""
    chart = Path(shutil.copytree(PROJECT / CHART, folder / VERSION))
    _rewrite(chart / "Chart.yaml", lambda meta: meta | {"version": VERSION, "appVersion": VERSION})
    for definition in (chart / "files" / "crds").iterdir():
        _rewrite(definition, _older)
    return chart


def load_previous_images(node: NodeCluster, operator_image: str, sidecar_image: str) -> None:
    node.name_again(operator_image, OPERATOR)
    node.name_again(sidecar_image, SIDECAR)


def _older(definition: dict[str, Any]) -> dict[str, Any]:
    for version in definition["spec"]["versions"]:
        del version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"][UNKNOWN]
    return definition


def _rewrite(path: Path, change: Any) -> None:
    path.write_text(yaml.safe_dump(change(yaml.safe_load(path.read_text()))))

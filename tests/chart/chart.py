"""The chart as tests see it: rendered by the real helm, read back as objects."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "coalmine"
NAMESPACE = "coalmine-system"
RELEASE = "coalmine"

Object = dict[str, Any]
Values = Mapping[str, Any]

#: The values files that the chart brings; the first is the chart's own defaults.
SETS: dict[str, Path | None] = {
    "default": None,
    "high-availability": CHART / "values-high-availability.yaml",
    "minimal": CHART / "values-minimal.yaml",
}


class RefusedValuesError(Exception):
    """helm did not render the chart; what it said."""


class Chart:
    def __init__(self, helm: str) -> None:
        self.helm = helm
        self._texts: dict[str, str] = {}

    def run(self, *words: str | Path, input: str | None = None) -> subprocess.CompletedProcess[str]:
        argv = [self.helm, *(str(word) for word in words)]
        return subprocess.run(argv, input=input, capture_output=True, text=True, timeout=60, check=False)

    def text(self, values: Values | None = None, *, file: Path | None = None, release: str = RELEASE) -> str:
        """What `helm template` prints. Raises RefusedValuesError."""
        key = json.dumps([values, str(file), release])
        if key not in self._texts:
            words = ["template", release, CHART, "--namespace", NAMESPACE, "--values", "-"]
            words += ["--values", file] if file else []
            done = self.run(*words, input=json.dumps(values or {}))
            if done.returncode:
                raise RefusedValuesError(done.stderr)
            self._texts[key] = done.stdout
        return self._texts[key]

    def render(self, values: Values | None = None, *, file: Path | None = None, release: str = RELEASE) -> list[Object]:
        """The objects. Raises RefusedValuesError."""
        documents = yaml.load_all(self.text(values, file=file, release=release), Loader=StrictLoader)
        return [document for document in documents if document is not None]


class StrictLoader(yaml.CSafeLoader):
    """YAML as the API server reads it in strict mode: a key may stand once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"twice: {twice}", node.start_mark)
        return super().construct_mapping(node, deep)


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    return [one for one in objects if one["kind"] in kinds]


def named(objects: list[Object], kind: str, name: str) -> Object:
    """The one object of this kind and name."""
    (found,) = [one for one in of_kind(objects, kind) if one["metadata"]["name"] == name]
    return found


def pod_templates(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Name and `spec.template` of everything that makes pods."""
    for one in of_kind(objects, "Deployment", "StatefulSet", "DaemonSet", "Job"):
        yield one["metadata"]["name"], one["spec"]["template"]

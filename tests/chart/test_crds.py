"""The definitions go with the chart, upgrades included, and stay when it goes."""

from __future__ import annotations

import pytest
import yaml
from tests.chart.chart import CHART, ROOT, SETS, Chart, Object, of_kind

KEEP = "helm.sh/resource-policy"


def definitions(objects: list[Object]) -> dict[str, Object]:
    return {one["metadata"]["name"]: one for one in of_kind(objects, "CustomResourceDefinition")}


@pytest.mark.parametrize("name", SETS)
def test_they_are_those_of_the_project(chart: Chart, name: str) -> None:
    rendered = definitions(chart.render(file=SETS[name]))
    own = {
        crd["metadata"]["name"]: crd
        for path in (ROOT / "crds").glob("*.yaml")
        for crd in [yaml.safe_load(path.read_text())]
    }
    assert rendered.keys() == own.keys()
    for crd, original in own.items():
        assert rendered[crd]["spec"] == original["spec"]


def test_they_are_no_copy() -> None:
    """And stand in no folder `crds` of the chart: Helm installs what lies there once and never upgrades it."""
    assert (CHART / "files" / "crds").is_symlink()
    assert (CHART / "files" / "crds").resolve() == ROOT / "crds"
    assert not (CHART / "crds").exists()


@pytest.mark.parametrize(("keep", "policy"), [(True, "keep"), (False, None)])
def test_what_becomes_of_them(chart: Chart, keep: bool, policy: str | None) -> None:
    for crd in definitions(chart.render({"crds": {"keep": keep}})).values():
        assert crd["metadata"]["annotations"].get(KEEP) == policy


def test_somebody_else_may_install_them(chart: Chart) -> None:
    assert definitions(chart.render({"crds": {"enabled": False}})) == {}


def test_a_packed_chart_brings_them(chart: Chart, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("packed")
    done = chart.run("package", CHART, "--destination", folder)
    assert done.returncode == 0, done.stderr
    (archive,) = folder.glob("coalmine-*.tgz")
    done = chart.run("template", "coalmine", archive, "--namespace", "coalmine-system")
    assert definitions(list(yaml.safe_load_all(done.stdout))).keys() == {"modeldeployments.coalmine.dev"}

"""Rights: exactly those of the calls that the operator makes, in exactly the namespaces it looks after.

api_calls.yaml says which calls these are; it is held against the operator's source here, and against what a real API
server was asked in tests/cluster/test_chart.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.chart.chart import NAMESPACE, SETS, Chart, named, of_kind
from tests.chart.rights import Right, granted, rights

from coalmine_operator.platforms.kubernetes import kinds

CALLS: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "api_calls.yaml").read_text())


def called(program: str, scope: str) -> list[Right]:
    return sorted(
        (call.get("group", ""), call["resource"], verb, call.get("name", ""))
        for call in CALLS[program].get(scope, ())
        for verb in call["verbs"]
    )


def test_the_operator_has_the_rights_it_uses(chart: Chart) -> None:
    watched, own, cluster = (called("operator", scope) for scope in ("watched", "own", "cluster"))
    assert granted(chart.render(), "coalmine-operator") == {"": sorted(watched + cluster), NAMESPACE: own}


def test_the_operator_has_them_in_the_namespaces_it_watches_alone(chart: Chart) -> None:
    watched, own, cluster = (called("operator", scope) for scope in ("watched", "own", "cluster"))
    objects = chart.render({"watchNamespaces": ["models", "shop"]})
    expected = {"models": watched, "shop": watched, NAMESPACE: own, "": cluster}
    assert granted(objects, "coalmine-operator") == expected


@pytest.mark.parametrize(
    "values", [{"webhook": {"enabled": False}}, {"certificates": {"certManager": {"enabled": True}}}]
)
def test_whoever_keeps_no_certificate_needs_no_rights_for_it(chart: Chart, values: dict[str, Any]) -> None:
    assert granted(chart.render(values), "coalmine-operator") == {"": called("operator", "watched")}


def test_the_webhook_has_no_rights(chart: Chart) -> None:
    assert granted(chart.render(), "coalmine-webhook") == {}


def test_installed_for_namespaces_nothing_of_the_cluster_is_needed(chart: Chart) -> None:
    objects = chart.render({"crds": {"enabled": False}}, file=SETS["minimal"])
    scoped = [one for one in objects if "namespace" not in one["metadata"]]
    assert [(one["kind"], one["metadata"]["name"]) for one in scoped] == []


@pytest.mark.parametrize("name", SETS)
def test_no_right_is_a_wildcard_or_a_way_to_more_rights(chart: Chart, name: str) -> None:
    for role in of_kind(chart.render(file=SETS[name]), "Role", "ClusterRole"):
        for group, resource, verb, _ in rights(role["rules"]):
            assert "*" not in (group, resource, verb)
            assert verb not in ("bind", "escalate", "impersonate")
            assert resource not in ("pods/exec", "serviceaccounts/token", "roles", "clusterroles", "nodes")


def test_somebody_else_may_give_the_rights(chart: Chart) -> None:
    kinds_left = {one["kind"] for one in chart.render({"rbac": {"create": False}})}
    assert not kinds_left & {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}


def test_users_get_what_their_namespace_role_says(chart: Chart) -> None:
    objects = chart.render()
    view = named(objects, "ClusterRole", "coalmine:coalmine-system:view")
    assert view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert {resource for _, resource, _, _ in rights(view["rules"])} == {"modeldeployments"}
    edit = named(objects, "ClusterRole", "coalmine:coalmine-system:edit")
    scale = {verb for _, resource, verb, _ in rights(edit["rules"]) if resource == "modeldeployments/scale"}
    assert scale == {"get", "patch", "update"}  # as `kubectl scale` and people's own scalers go about it
    assert not [
        one for one in chart.render({"rbac": {"aggregate": False}}) if one["metadata"]["name"].endswith(":view")
    ]


def test_the_list_of_calls_names_what_the_operator_watches_and_applies() -> None:
    """Of its source: whoever adds a kind has to add its calls."""
    by_resource = {
        (call.get("group", ""), call["resource"]): set(call["verbs"]) for call in CALLS["operator"]["watched"]
    }
    for kind in kinds.WATCHED:
        assert by_resource[kind.group, kind.plural] >= {"list", "watch"}, kind.name
    for kind in kinds.CHILDREN:
        deleted = set() if kind is kinds.SECRET else {"delete"}
        assert by_resource[kind.group, kind.plural] >= {"create", "patch"} | deleted, kind.name
    known = {(kind.group, kind.plural) for kind in (*kinds.WATCHED, kinds.EVENT, kinds.CONFIG_MAP)}
    assert {(group, resource.partition("/")[0]) for group, resource in by_resource} == known

"""What the chart's roles allow, as plain tuples."""

from __future__ import annotations

from collections.abc import Iterable

from tests.chart.chart import Object, of_kind

#: API group, resource with its subresource, verb, and the name of the one object that is meant, or nothing.
Right = tuple[str, str, str, str]


def rights(rules: Iterable[Object]) -> list[Right]:
    return sorted(
        (group, resource, verb, name)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    )


def granted(objects: list[Object], account: str) -> dict[str, list[Right]]:
    """Rights of a service account by namespace; "" for the whole cluster."""
    found: dict[str, list[Right]] = {}
    for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
        if account in [subject["name"] for subject in binding["subjects"]]:
            namespace = binding["metadata"].get("namespace", "")
            assert binding["roleRef"]["kind"] == ("Role" if namespace else "ClusterRole")
            (role,) = [
                one
                for one in of_kind(objects, binding["roleRef"]["kind"])
                if one["metadata"]["name"] == binding["roleRef"]["name"]
                and one["metadata"].get("namespace", "") == namespace
            ]
            found[namespace] = sorted(found.get(namespace, []) + rights(role["rules"]))
    return found

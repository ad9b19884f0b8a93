"""What service accounts asked of the API server of a node of our own: its audit log."""

from __future__ import annotations

import json
from collections.abc import Iterator

from msgspec import Struct
from tests.chart.rights import Right
from tests.cluster.lab.cluster import NodeCluster


class Call(Struct, frozen=True):
    """One request. `resource` with its subresource; `code`: the answer's status."""

    group: str
    resource: str
    verb: str
    namespace: str
    name: str
    code: int

    @property
    def verbs(self) -> tuple[str, ...]:
        """What it needed: server-side apply of what is not there yet is a patch that may create."""
        return ("patch", "create") if (self.verb, self.code) == ("patch", 201) else (self.verb,)

    def needed(self, right: Right, namespace: str) -> bool:
        """Whether this call was allowed by `right`, given in `namespace` or, if that is empty, everywhere."""
        group, resource, verb, name = right
        return (
            (self.group, self.resource) == (group, resource)
            and verb in self.verbs
            and name in ("", self.name)
            and namespace in ("", self.namespace)
        )


def calls(node: NodeCluster, namespace: str, account: str) -> set[Call]:
    """Of a service account so far. Questions about the API itself, which everybody may ask, are left out."""
    user = f"system:serviceaccount:{namespace}:{account}"
    return {_call(event) for event in _events(node) if event["user"]["username"] == user and "objectRef" in event}


def _events(node: NodeCluster) -> Iterator[dict[str, dict[str, str]]]:
    for path in sorted(node.layout.audit.parent.glob(f"{node.layout.audit.stem}*")):
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)


def _call(event: dict[str, dict[str, str]]) -> Call:
    about = event["objectRef"]
    return Call(
        group=about.get("apiGroup", ""),
        resource="/".join(filter(None, (about.get("resource", ""), about.get("subresource", "")))),
        verb=str(event["verb"]),
        namespace=about.get("namespace", ""),
        name=about.get("name", ""),
        code=int(event.get("responseStatus", {}).get("code", 0)),
    )

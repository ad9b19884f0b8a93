"""The API server's answers to manifests of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kubernetes import client, config

from coalmine_operator.api.spec import API_VERSION, GROUP

from .lab.cluster import Cluster

CRD = Path(__file__).resolve().parents[2] / "crds/modeldeployments.yaml"
PLURAL = "modeldeployments"


def install(cluster: Cluster) -> None:
    """Whoever else installed it, such as a chart: it is the tree's from now on."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "--filename", CRD)
    cluster.kubectl("wait", "--for=condition=Established", f"crd/{PLURAL}.{GROUP}")
    # Established comes before discovery, from which kubectl learns short names, and before descriptions are served.
    cluster.wait(lambda: cluster.kubectl("explain", "md.spec"), "the API server explains `md`")


class RefusedError(Exception):
    """What a person reads who applies a manifest, one line a problem: `path: message`."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class Manifests:
    """One namespace's model deployments, over a connection that stays open."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._api = client.CustomObjectsApi(config.new_client_from_config(str(cluster.api)))
        self._where = (GROUP, API_VERSION.partition("/")[2], namespace, PLURAL)

    def try_out(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """What the server would keep, as `kubectl create --dry-run=server` does. Raises RefusedError."""
        try:
            kept: dict[str, Any] = self._api.create_namespaced_custom_object(
                *self._where, manifest, dry_run="All", field_validation="Strict"
            )
        except client.ApiException as error:
            raise RefusedError(_lines(json.loads(error.body))) from error
        return kept


def _lines(answer: dict[str, Any]) -> list[str]:
    causes = answer.get("details", {}).get("causes") or []
    return [f"{cause.get('field', '')}: {cause['message']}" for cause in causes] or [answer["message"]]

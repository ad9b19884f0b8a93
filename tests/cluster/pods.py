"""Pods that the tests of the cluster run, as `restricted` as Kubernetes asks."""

from __future__ import annotations

from typing import Any

RESTRICTED_POD = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
RESTRICTED_CONTAINER = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def pod(name: str, image: str, *, labels: dict[str, str] | None = None, **container: Any) -> dict[str, Any]:
    """A pod of one container on a read-only root; `container` are more of its fields."""
    main = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "securityContext": RESTRICTED_CONTAINER,
        **container,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": RESTRICTED_POD,
            "containers": [main],
        },
    }


def service(name: str, selector: dict[str, str], target: int, *, headless: bool = False) -> dict[str, Any]:
    """Port 80 of the Service is port `target` of the pods."""
    spec: dict[str, Any] = {"selector": selector, "ports": [{"port": 80, "targetPort": target}]}
    if headless:
        spec["clusterIP"] = "None"
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}

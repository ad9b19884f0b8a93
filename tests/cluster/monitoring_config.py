"""What the chart ships for monitoring, as configuration of Prometheus and Alertmanager.

Monitors become what the Prometheus operator makes of them; the receiver and its route are those that a user reads in
the chart's notes and README.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from tests.cluster.installed import Install
from tests.cluster.lab.cache import PROJECT
from tests.cluster.lab.run import run

#: How often sidecars are scraped and rules evaluated: tests are shorter than the minutes of production.
EVERY = "1s"
#: Values of the chart that make its monitors and rules. A model that is 0.3 s late fires within seconds.
VALUES: dict[str, Any] = {
    "podMonitor": {"enabled": True, "interval": EVERY},
    "prometheusRule": {"enabled": True},
    "rules": {"interval": EVERY, "window": "5s", "latency": {"quantile": 0.5, "seconds": 0.25, "for": "2s"}},
}
_README = PROJECT / "helm" / "coalmine" / "README.md"
_RBAC = "rbac.authorization.k8s.io"


def scraping(made: list[dict[str, Any]], kubeconfig: Path, rules: Path, alertmanager: str) -> dict[str, Any]:
    """Prometheus' configuration for the monitors among the chart's objects. `alertmanager`: `host:port`."""
    return {
        "global": {"evaluation_interval": EVERY},
        "rule_files": [str(rules)],
        "scrape_configs": [_scrape_config(one, kubeconfig) for one in made if one["kind"] == "PodMonitor"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
    }


def rules(made: list[dict[str, Any]]) -> dict[str, Any]:
    """The rule file."""
    return {"groups": [group for one in made if one["kind"] == "PrometheusRule" for group in one["spec"]["groups"]]}


def _scrape_config(monitor: Mapping[str, Any], kubeconfig: Path) -> dict[str, Any]:
    """Of a PodMonitor that selects by one expression and has one endpoint."""
    spec = monitor["spec"]
    (expression,) = spec["selector"]["matchExpressions"]
    (endpoint,) = spec["podMetricsEndpoints"]
    pod, label = "__meta_kubernetes_pod", re.sub(r"\W", "_", expression["key"])
    selected = [f"{pod}_label_{label}", f"{pod}_labelpresent_{label}"]
    values = "|".join(expression.get("values", [".*"]))
    where = {"kubeconfig_file": str(kubeconfig), "namespaces": {"names": spec["namespaceSelector"]["matchNames"]}}
    return {
        "job_name": f"{monitor['metadata']['namespace']}/{monitor['metadata']['name']}",
        "metrics_path": endpoint["path"],
        "scrape_interval": endpoint["interval"],
        "scrape_timeout": endpoint["interval"],
        "kubernetes_sd_configs": [{"role": "pod", **where}],
        "relabel_configs": [
            {"source_labels": [f"{pod}_phase"], "regex": "Failed|Succeeded", "action": "drop"},
            {"source_labels": selected, "regex": f"({values});true", "action": "keep"},
            {"source_labels": [f"{pod}_container_port_name"], "regex": endpoint["port"], "action": "keep"},
            {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
            {"source_labels": [f"{pod}_container_name"], "target_label": "container"},
            {"source_labels": [f"{pod}_name"], "target_label": "pod"},
            *({_snake(key): value for key, value in one.items()} for one in endpoint["relabelings"]),
        ],
    }


def _snake(name: str) -> str:
    return re.sub(r"(?=[A-Z])", "_", name).lower()


def alerting(release: Install, folder: Path) -> dict[str, Any]:
    """Alertmanager's configuration of somebody who did what README and notes say, with the token in `folder`."""
    notes = release.notes()
    receiver = yaml.safe_load(_indented(notes, "webhook_configs:"))
    token = folder / "token"
    token.write_text(run("sh", "-c", _indented(notes, "get secret"), environment=release.cluster.environment))
    for webhook in receiver["webhook_configs"]:
        webhook["http_config"]["authorization"]["credentials_file"] = str(token)
    (block,) = [
        text for text in re.findall(r"```yaml\n(.*?)```", _README.read_text(), re.DOTALL) if "group_wait" in text
    ]
    (route,) = yaml.safe_load(block)["route"]["routes"]
    return {
        "route": {"receiver": "people", "routes": [{**route, "group_interval": EVERY}]},
        "receivers": [{"name": "people"}, {"name": route["receiver"], **receiver}],
    }


def _indented(text: str, mark: str) -> str:
    """The indented lines around the first that has `mark`: what the notes give to copy."""
    paragraphs = re.split(r"\n\s*\n", text)
    return next(one for one in paragraphs if mark in one)


def may_list_pods(name: str, namespace: str) -> list[dict[str, Any]]:
    """A service account that sees the pods of one namespace, and nothing else."""
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}
    account = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    role = {"apiGroup": _RBAC, "kind": "Role", "name": name}
    metadata = {"name": name, "namespace": namespace}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": f"{_RBAC}/v1", "kind": "Role", "metadata": metadata, "rules": [rule]},
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": role,
            "subjects": [account],
        },
    ]


def kubeconfig(authority: str, token: str) -> dict[str, Any]:
    """For a program among the pods. `authority`: certificates in PEM."""
    cluster = {
        "server": "https://kubernetes.default.svc.cluster.local",
        "certificate-authority-data": base64.b64encode(authority.encode()).decode(),
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": "account", "user": {"token": token}}],
        "contexts": [{"name": "pods", "context": {"cluster": "cluster", "user": "account"}}],
        "current-context": "pods",
    }

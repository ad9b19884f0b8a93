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

from coalmine_operator.render.rules import Parameters, groups

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


def scraping(
    made: list[dict[str, Any]], kubeconfig: Path, token: Path, rules: Path, alertmanager: str
) -> dict[str, Any]:
    """Prometheus' configuration for the monitors among the chart's objects, and for kubelets.

    `token`: a file with that of the account of `kubeconfig`; `alertmanager`: `host:port`.
    """
    return {
        "global": {"evaluation_interval": EVERY},
        "rule_files": [str(rules)],
        "scrape_configs": [
            *(_scrape_config(one, kubeconfig) for one in made if one["kind"] == "PodMonitor"),
            _cadvisor(kubeconfig, token),
        ],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
    }


def rules(made: list[dict[str, Any]], namespace: str) -> dict[str, Any]:
    """The rule file: the chart's, and what is recorded of the service `fraud` in `namespace`."""
    parameters = Parameters(namespace=namespace, deployment="fraud", model="fraud")
    (service,) = [group for group in groups(parameters) if group["name"].endswith(".service")]
    recorded = {**service, "interval": EVERY, "rules": [rule for rule in service["rules"] if "record" in rule]}
    shipped = [group for one in made if one["kind"] == "PrometheusRule" for group in one["spec"]["groups"]]
    return {"groups": [*shipped, recorded]}


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


def _cadvisor(kubeconfig: Path, token: Path) -> dict[str, Any]:
    """As kube-prometheus does it: each kubelet is asked itself, which asks the API server who that is."""
    return {
        "job_name": "kubelet",
        "scheme": "https",
        "metrics_path": "/metrics/cadvisor",
        "scrape_interval": "5s",
        "scrape_timeout": "5s",
        "honor_labels": True,
        "tls_config": {"insecure_skip_verify": True},
        "authorization": {"credentials_file": str(token)},
        "kubernetes_sd_configs": [{"role": "node", "kubeconfig_file": str(kubeconfig)}],
        "metric_relabel_configs": [{"source_labels": ["__name__"], "regex": "container_cpu_cfs_.*", "action": "keep"}],
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
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
    return [account, *_granted(name, namespace, "", [rule])]


def may_ask_kubelets(name: str, namespace: str) -> list[dict[str, Any]]:
    """The same account finds the nodes and reads their metrics. Of no namespace: whoever applies it takes it away."""
    rules = [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
    ]
    return _granted(name, namespace, "Cluster", rules)


def _granted(name: str, namespace: str, scope: str, rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A role and its binding to the account `name`. `scope`: `Cluster`, or empty: those of the namespace."""
    metadata = {"name": f"{name}-{namespace}"} if scope else {"name": name, "namespace": namespace}
    role = {"apiGroup": _RBAC, "kind": f"{scope}Role", "name": metadata["name"]}
    account = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    version = f"{_RBAC}/v1"
    return [
        {"apiVersion": version, "kind": role["kind"], "metadata": metadata, "rules": rules},
        {"apiVersion": version, "kind": f"{role['kind']}Binding", "metadata": metadata, "roleRef": role,
         "subjects": [account]},
    ]  # fmt: skip


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

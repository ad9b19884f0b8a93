"""A second install for all namespaces is refused; helm looks into a cluster for that.

No cluster is needed: what helm asks is answered by a server of ours, with the little that it wants to know.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.chart.chart import CHART, NAMESPACE, Chart, Object, named

GROUP = "rbac.authorization.k8s.io"
BINDING = {"name": "clusterrolebindings", "kind": "ClusterRoleBinding", "namespaced": False, "verbs": ["get", "list"]}
SECRET = {"name": "secrets", "kind": "Secret", "namespaced": True, "verbs": ["get", "list"]}
VERSION = {"groupVersion": f"{GROUP}/v1", "version": "v1"}
ANSWERS: dict[str, Any] = {
    "/version": {"major": "1", "minor": "33", "gitVersion": "v1.33.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [{"name": GROUP, "versions": [VERSION], "preferredVersion": VERSION}],
    },
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [SECRET]},
    f"/apis/{GROUP}/v1": {"kind": "APIResourceList", "groupVersion": f"{GROUP}/v1", "resources": [BINDING]},
}
NOTHING = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}


class Server(ThreadingHTTPServer):
    """An API server that has these ClusterRoleBindings and nothing else."""

    bindings: list[Object]


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        found = ANSWERS.get(path)
        if path == f"/apis/{GROUP}/v1/clusterrolebindings":
            kind = {"kind": "ClusterRoleBindingList", "apiVersion": f"{GROUP}/v1"}
            found = {**kind, "metadata": {"resourceVersion": "1"}, "items": self.server.bindings}
        body = json.dumps(found or NOTHING).encode()
        self.send_response(200 if found else 404)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Answer) as made:
        made.bindings = []
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def said(chart: Chart, server: Server, folder: Path, release: str, *words: str) -> str:
    """What the chart says against an install; empty where it says nothing."""
    kubeconfig = {
        "clusters": [{"name": "it", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": ""}}],
        "current-context": "it",
    }
    (folder / "kubeconfig").write_text(json.dumps(kubeconfig))
    done = chart.run(
        *("template", release, CHART, "--namespace", NAMESPACE, "--dry-run=server"),
        *("--kubeconfig", folder / "kubeconfig", "--set", "crds.enabled=false", *words),
    )
    if "execution error" in done.stderr:
        return done.stderr
    # Past the templates it wants to know of all kinds there are, which is nothing of this test's.
    assert "unable to build kubernetes objects from release manifest" in done.stderr, done.stderr
    return ""


def binding(chart: Chart, release: str, namespace: str) -> Object:
    """As an install leaves it. Names and labels are the chart's; helm adds who owns it."""
    made = named(chart.render(release=release), "ClusterRoleBinding", f"{release}:{NAMESPACE}:operator")
    owner = {"meta.helm.sh/release-name": release, "meta.helm.sh/release-namespace": namespace}
    name = made["metadata"]["name"].replace(NAMESPACE, namespace)
    return {**made, "metadata": {**made["metadata"], "name": name, "annotations": owner}}


def test_a_second_install_for_all_namespaces_is_refused(chart: Chart, server: Server, tmp_path: Path) -> None:
    assert said(chart, server, tmp_path, "coalmine") == ""
    server.bindings = [binding(chart, "coalmine", "elsewhere")]
    line = "watchNamespaces: empty, but all namespaces are looked after by another install already"
    assert f"{line} (ClusterRoleBinding coalmine:elsewhere:operator)" in said(chart, server, tmp_path, "coalmine")
    assert said(chart, server, tmp_path, "coalmine", "--set", "watchNamespaces={models}") == ""


def test_an_upgrade_is_no_second_install(chart: Chart, server: Server, tmp_path: Path) -> None:
    foreign = {"metadata": {"name": "system:node"}}
    server.bindings = [foreign, binding(chart, "coalmine", NAMESPACE)]
    assert said(chart, server, tmp_path, "coalmine") == ""
    assert said(chart, server, tmp_path, "coalmine", "--set", "fullnameOverride=canaries") == ""

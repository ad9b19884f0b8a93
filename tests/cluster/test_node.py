"""The node itself: what every other test in this folder takes for granted."""

from __future__ import annotations

import json
import urllib.request

import pytest
from tests.cluster.figures import Figure
from tests.cluster.lab.build import MODULE
from tests.cluster.lab.cluster import Cluster, NodeCluster
from tests.cluster.lab.layout import API_SERVICE_ADDRESS
from tests.cluster.lab.run import LabError
from tests.cluster.pods import pod, service

HTTP_SERVER = ["-m", "http.server", "8080", "--directory", "/opt/coalmine/bin"]
PYTHON = ["/opt/coalmine/bin/python3"]


def _lookup(name: str) -> str:
    return f"import socket; print(*sorted({{a[4][0] for a in socket.getaddrinfo({name!r}, 80)}}))"


def _fetch(url: str) -> str:
    return f"import urllib.request; print(urllib.request.urlopen({url!r}, timeout=5).status)"


def test_is_ready_with_the_version_of_the_module(node: NodeCluster, figure: Figure) -> None:
    [machine] = node.get("nodes")["items"]

    assert f"k8s.io/kubernetes {machine['status']['nodeInfo']['kubeletVersion']}" in (MODULE / "go.mod").read_text()
    assert json.loads(node.kubectl("version", "--output", "json"))["serverVersion"]["minor"] == "36"
    figure(f"node Ready after {node.seconds_to_ready:.1f} s")


def test_helm_speaks_to_it(cluster: Cluster, namespace: str) -> None:
    assert json.loads(cluster.helm("list", "--namespace", namespace, "--output", "json")) == []


def test_the_pods_network_resolves_names(cluster: Cluster) -> None:
    said = cluster.run_in_net(["python3", "-c", _lookup("kubernetes.default.svc.cluster.local")])

    assert said.strip() == API_SERVICE_ADDRESS


def test_services_reach_pods_from_everywhere(cluster: Cluster, namespace: str, sidecar_image: str) -> None:
    cluster.apply(
        [
            pod("server", sidecar_image, labels={"app": "web"}, command=PYTHON, args=HTTP_SERVER),
            pod("other", sidecar_image, command=PYTHON, args=["-c", "import time; time.sleep(600)"]),
            service("web", {"app": "web"}, 8080),
            service("web-pods", {"app": "web"}, 8080, headless=True),
        ],
        namespace,
    )
    cluster.ready(namespace, "server", "other")
    address = cluster.get("pod/server", "--namespace", namespace)["status"]["podIP"]
    url = f"http://web.{namespace}.svc.cluster.local/"

    def inside(where: str, code: str) -> str:
        return cluster.kubectl("exec", where, "--namespace", namespace, "--", *PYTHON, "-c", code).strip()

    cluster.wait(lambda: cluster.run_in_net(["python3", "-c", _fetch(url)]).strip() == "200", "the Service to answer")
    assert inside("other", _fetch("http://web/")) == "200"
    assert inside("server", _fetch("http://web/")) == "200", "a pod reaches itself by its Service"
    assert inside("other", _lookup("web-pods")) == address, "a headless Service names its pods"
    with cluster.door(f"{address}", 8080) as port:
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).status == 200


def test_a_restricted_namespace_refuses_privileges(cluster: Cluster, namespace: str, sidecar_image: str) -> None:
    wanting = pod("wanting", sidecar_image, securityContext={"privileged": True})

    with pytest.raises(LabError, match='violates PodSecurity "restricted:latest": privileged'):
        cluster.apply(wanting, namespace)


def test_survives_its_api_server(node: NodeCluster, namespace: str, sidecar_image: str) -> None:
    node.apply(pod("server", sidecar_image, command=PYTHON, args=HTTP_SERVER), namespace)
    node.ready(namespace, "server")
    address = node.get("pod/server", "--namespace", namespace)["status"]["podIP"]
    with node.door(address, 8080) as port:
        with node.without("kube-apiserver"):
            with pytest.raises(LabError):
                node.kubectl("get", "nodes", "--request-timeout=3s")
            assert urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).status == 200
        node.wait(lambda: node.kubectl("get", "--raw", "/readyz"), "the API server to come back", 60)
        assert node.get("pod/server", "--namespace", namespace)["status"]["podIP"] == address

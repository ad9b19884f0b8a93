"""What the node's components are told: their files and their command lines. Writes, starts nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .build import PAUSE_IMAGE
from .layout import API_PORT, CLUSTER_DOMAIN, NODE_ADDRESS, NODE_NAME, POD_SUBNET, SERVICE_SUBNET, Layout

ETCD = "http://127.0.0.1:2379"
#: Users of the API server inside the node, each with a kubeconfig.
USERS = ("admin", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet")
CNI_PLUGINS = Path("/usr/lib/cni")  # where Debian puts them
#: For the environment of programs in Go: memory is plenty here, and two cores are what tests wait for.
GARBAGE = {"GOGC": "400"}


def write_config(layout: Layout, gate_port: int) -> None:
    """Every component's file, and the kubeconfig for the machine, which finds the API server at `gate_port`."""
    for user in USERS:
        _write(layout.inner_kubeconfig(user), _kubeconfig(layout, f"https://{NODE_ADDRESS}:{API_PORT}", user))
    _write(layout.kubeconfig, _kubeconfig(layout, f"https://127.0.0.1:{gate_port}", "admin"))
    _write(layout.config / "kubelet.yaml", _kubelet(layout))
    _write(layout.config / "audit.yaml", _audit())
    _write(layout.config / "cni" / "10-pods.conflist", _pod_network(layout))
    layout.resolv_conf.write_text(f"nameserver {NODE_ADDRESS}\nsearch svc.{CLUSTER_DOMAIN} {CLUSTER_DOMAIN}\n")
    (layout.config / "Corefile").write_text(_corefile(layout))
    (layout.config / "containerd.toml").write_text(_containerd(layout))


def commands(layout: Layout) -> dict[str, list[str]]:
    """Component -> its command line, in the order in which they are started."""
    pki, config, data = layout.pki, layout.config, layout.data
    kubeconfig = {user: f"--kubeconfig={layout.inner_kubeconfig(user)}" for user in USERS}
    busy_client = ["--kube-api-qps=200", "--kube-api-burst=400"]  # hundreds of objects in one test
    arguments = {
        "etcd": [
            f"--data-dir={data}/etcd",
            f"--listen-client-urls={ETCD}",
            f"--advertise-client-urls={ETCD}",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--log-level=warn",
            "--unsafe-no-fsync",  # the node is never recovered
        ],
        "containerd": [f"--config={config}/containerd.toml"],
        "coredns": [f"-conf={config}/Corefile"],
        "kube-apiserver": [
            f"--etcd-servers={ETCD}",
            f"--advertise-address={NODE_ADDRESS}",
            f"--secure-port={API_PORT}",
            f"--service-cluster-ip-range={SERVICE_SUBNET}",
            f"--client-ca-file={pki}/ca.crt",
            f"--tls-cert-file={pki}/kube-apiserver.crt",
            f"--tls-private-key-file={pki}/kube-apiserver.key",
            f"--kubelet-certificate-authority={pki}/ca.crt",
            f"--kubelet-client-certificate={pki}/admin.crt",
            f"--kubelet-client-key={pki}/admin.key",
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki}/accounts.pub",
            f"--service-account-signing-key-file={pki}/accounts.key",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--audit-policy-file={config}/audit.yaml",
            f"--audit-log-path={layout.audit}",
            "--audit-log-maxsize=64",  # megabytes; one older file beside it
            "--audit-log-maxbackup=1",
        ],
        "kube-controller-manager": [
            kubeconfig["kube-controller-manager"],
            f"--root-ca-file={pki}/ca.crt",
            f"--service-account-private-key-file={pki}/accounts.key",
            f"--cluster-signing-cert-file={pki}/ca.crt",
            f"--cluster-signing-key-file={pki}/ca.key",
            "--use-service-account-credentials",
            # By default all pods count as unready when nodes could not report for 50 s, for whatever reason.
            "--node-monitor-grace-period=5m",
            "--horizontal-pod-autoscaler-sync-period=2s",  # not 15: tests wait for it
            "--leader-elect=false",
            *busy_client,
        ],
        "kube-scheduler": [kubeconfig["kube-scheduler"], "--leader-elect=false", *busy_client],
        "kubelet": [
            kubeconfig["kubelet"],
            f"--config={config}/kubelet.yaml",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={NODE_ADDRESS}",
            f"--root-dir={data}/kubelet",
            f"--containerd={layout.socket}",  # of cAdvisor inside it, which else names no container
        ],
        "kube-proxy": [
            kubeconfig["kube-proxy"],
            f"--hostname-override={NODE_NAME}",
            "--proxy-mode=iptables",
            "--conntrack-max-per-core=0",  # the table's size belongs to the machine
        ],
    }
    return {name: [_program(layout, name), *words] for name, words in arguments.items()}


def _program(layout: Layout, name: str) -> str:
    return name if name == "containerd" else str(layout.programs / name)


def _write(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=1))  # JSON is YAML


def _kubeconfig(layout: Layout, server: str, user: str) -> dict[str, Any]:
    certificate = {"client-certificate": f"{layout.pki}/{user}.crt", "client-key": f"{layout.pki}/{user}.key"}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "node", "cluster": {"server": server, "certificate-authority": f"{layout.pki}/ca.crt"}}],
        "users": [{"name": user, "user": certificate}],
        "contexts": [{"name": "node", "context": {"cluster": "node", "user": user}}],
        "current-context": "node",
    }


def _audit() -> dict[str, Any]:
    """Who asked for what: of service accounts alone, which is what pods are. Without what was said."""
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],  # a watch tells when it has begun: its end may be far away
        "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}],
    }


def _kubelet(layout: Layout) -> dict[str, Any]:
    pki = layout.pki
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{pki}/kubelet.crt",
        "tlsPrivateKeyFile": f"{pki}/kubelet.key",
        "clusterDNS": [NODE_ADDRESS],
        "clusterDomain": CLUSTER_DOMAIN,
        "resolvConf": str(layout.resolv_conf),
        "containerRuntimeEndpoint": f"unix://{layout.socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup}",
        "failCgroupV1": False,  # since 1.35 a kubelet refuses machines with the older control groups
        "failSwapOn": False,
        "volumePluginDir": f"{layout.data}/volume-plugins",  # the default is a folder of the machine
        "maxPods": 200,
        # Pressure of the developer's machine is no business of the tests.
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "localStorageCapacityIsolation": False,
    }


def _pod_network(layout: Layout) -> dict[str, Any]:
    """A routed link to each pod. No bridge: a bridge needs br_netfilter, which many kernels lack, for Services."""
    addresses = {
        "type": "host-local",
        "dataDir": f"{layout.data}/addresses",
        "ranges": [[{"subnet": POD_SUBNET}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    return {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {"type": "ptp", "ipMasq": False, "ipam": addresses},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def _corefile(layout: Layout) -> str:
    return f"""\
.:53 {{
  bind {NODE_ADDRESS}
  errors
  kubernetes {CLUSTER_DOMAIN} in-addr.arpa {{
    kubeconfig {layout.inner_kubeconfig("admin")}
  }}
}}
"""


def _containerd(layout: Layout) -> str:
    # An unprivileged sandbox refuses a lower oom_score_adj; restricted, containerd keeps its own.
    return f"""\
version = 2
root = "{layout.data}/containerd"
state = "/run/containerd"
[grpc]
  address = "{layout.socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{layout.config}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""

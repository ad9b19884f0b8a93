"""Where a running node keeps what, and the addresses inside its network namespace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

NODE_NAME = "coalmine-node"
NODE_ADDRESS = "172.31.255.2"
POD_SUBNET = "10.244.0.0/24"
SERVICE_SUBNET = "10.96.0.0/16"
#: The API server's own Service: the first address of SERVICE_SUBNET.
API_SERVICE_ADDRESS = "10.96.0.1"
API_PORT = 6443
CLUSTER_DOMAIN = "cluster.local"


@dataclass(frozen=True)
class Layout:
    """One folder a node; nothing of it outlives the node. Its name is also that of the node's control groups."""

    root: Path

    @property
    def cgroup(self) -> str:
        return f"coalmine-{self.root.name}"

    @property
    def lock(self) -> Path:
        """Held by the node's warden as long as it lives."""
        return self.root / "lock"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def config(self) -> Path:
        return self.root / "config"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def socket(self) -> Path:
        return self.root / "containerd.sock"

    @property
    def pids(self) -> Path:
        """A file a component with its process id, as seen inside the node."""
        return self.root / "pids"

    @property
    def held(self) -> Path:
        """A component with a file here is not started again when it ends."""
        return self.root / "held"

    @property
    def programs(self) -> Path:
        """A link to the folder of `build.programs`."""
        return self.root / "programs"

    @property
    def ready(self) -> Path:
        """Made when the node is ready."""
        return self.root / "ready"

    @property
    def kubeconfig(self) -> Path:
        """For use on the machine: it goes through the gate on loopback."""
        return self.root / "kubeconfig"

    @property
    def resolv_conf(self) -> Path:
        return self.config / "resolv.conf"

    def inner_kubeconfig(self, user: str) -> Path:
        """For use inside the node's network namespace."""
        return self.config / f"{user}.kubeconfig"

    def log(self, component: str) -> Path:
        return self.logs / f"{component}.log"

    @property
    def audit(self) -> Path:
        """What service accounts asked of the API server, one JSON object a line."""
        return self.logs / "audit.log"

    def folders(self) -> tuple[Path, ...]:
        return self.pki, self.config, self.logs, self.data, self.pids, self.held

"""The operator beside a cluster: a process among the pods, so that a test can kill it; and model deployments for it."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.cluster.crd import install
from tests.cluster.lab.cluster import Cluster, NodeCluster
from tests.cluster.lab.run import LabError
from tests.cluster.pods import RESTRICTED_CONTAINER, RESTRICTED_POD

from coalmine_operator.api.spec import KIND

#: Events of pods that a starved machine takes for not ready, now and then, whatever a test is about.
WEATHER = ("NoReadyPods", "MinimumReplicasAvailable")

#: Kinds of what a model deployment owns, and where the API server keeps them.
CHILDREN = {
    "Deployment": "apis/apps/v1/namespaces/{}/deployments",
    "Service": "api/v1/namespaces/{}/services",
    "Secret": "api/v1/namespaces/{}/secrets",
    "ControllerRevision": "apis/apps/v1/namespaces/{}/controllerrevisions",
    "PodDisruptionBudget": "apis/policy/v1/namespaces/{}/poddisruptionbudgets",
}

_ASK = """
import json, sys, urllib.request
request = urllib.request.Request(sys.argv[1], sys.argv[2].encode(), {"Content-Type": "application/json"})
print(json.load(urllib.request.urlopen(request, timeout=5))["model_version"])
"""

_ALERT = """
import sys, urllib.request
head = {"Authorization": "Bearer " + sys.argv[2], "Content-Type": "application/json"}
urllib.request.urlopen(urllib.request.Request(sys.argv[1], sys.argv[3].encode(), head), timeout=20).read()
"""


#: `python -m coalmine_operator`, without what the tests' environment has, its image has not, and kopf would load.
_AS_IN_ITS_IMAGE = """
import runpy, sys
sys.modules["kubernetes"] = None
runpy.run_module("coalmine_operator", run_name="__main__", alter_sys=True)
"""


class Operator:
    """`coalmine-operator operator` in the pods' network, for some namespaces; `flags` win over these."""

    def __init__(self, cluster: Cluster, namespaces: Sequence[str], sidecar_image: str, log: Path, *flags: str) -> None:
        kubeconfig = cluster.layout.inner_kubeconfig("admin") if isinstance(cluster, NodeCluster) else cluster.api
        self._argv = [
            sys.executable, "-c", _AS_IN_ITS_IMAGE, "operator",
            f"--kubeconfig={kubeconfig}",
            f"--namespaces={','.join(namespaces)}",
            f"--sidecar-image={sidecar_image}",
            "--sidecar-cpu-request=5m",
            "--listen=127.0.0.1:0",
            "--log-level=debug",
            *flags,
        ]  # fmt: skip
        self._cluster = cluster
        self._log = log
        #: Variables that the process gets besides the tests' own.
        self.environment: dict[str, str] = {"KUBECONFIG": "", "MALLOC_ARENA_MAX": "2"}
        self._stack = contextlib.ExitStack()
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        output = self._stack.enter_context(self._log.open("ab"))
        self.process = self._stack.enter_context(
            self._cluster.process_in_net(
                self._argv, stdout=output, stderr=output, env={**os.environ, **self.environment}
            )
        )

    def run(self) -> None:
        """Start it where a test that failed has left it dead."""
        if self.process.poll() is not None:
            self.start()

    def kill(self) -> None:
        """SIGKILL: nothing is finished, nothing is said."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self._stack.close()

    def log(self) -> str:
        return self._log.read_text()

    def state(self) -> str:
        """For the message of a test that fails."""
        status = self.process.poll()
        return "runs" if status is None else f"ended with status {status}"


def alert(cluster: Cluster, port: int, token: str, **labels: str) -> None:
    """Tell an operator of an alert that fires, as Alertmanager does. Raises LabError where it is not taken."""
    now = dt.datetime.now(dt.UTC).isoformat()
    one = {"status": "firing", "labels": labels, "startsAt": now, "fingerprint": secrets.token_hex(8)}
    body = json.dumps({"version": "4", "status": "firing", "alerts": [one]})
    cluster.run_in_net(["python3", "-c", _ALERT, f"http://127.0.0.1:{port}/alerts", token, body])


@contextlib.contextmanager
def operator_for(
    cluster: Cluster, namespaces: Sequence[str], sidecar_image: str, log: Path, *flags: str
) -> Iterator[Operator]:
    install(cluster)
    operator = Operator(cluster, namespaces, sidecar_image, log, *flags)
    operator.start()
    try:
        yield operator
    except BaseException:
        print(f"the operator {operator.state()}; the end of its log:", *operator.log().splitlines()[-30:], sep="\n")
        raise
    finally:
        operator.stop()
    # A failed reconcile is retried, so it would pass unseen.
    bad = troubles(operator.log())
    assert not bad, "\n".join(bad)


def troubles(log: str) -> list[str]:
    """What should not stand in an operator's log. Whoever watches all namespaces meets some that just go."""
    entries = re.split(r"^(?=\d{4}-\d\d-\d\d \d\d:)", log, flags=re.MULTILINE)
    bad = [one for one in entries if re.search(r"Traceback|Task exception|(?<!,)\b500\b.*failed", one)]
    return [one for one in bad if not re.search(r'namespaces "\S+" not found$', one.rstrip())]


@contextlib.contextmanager
def namespaces(cluster: Cluster, *names: str) -> Iterator[list[str]]:
    """Namespaces that refuse every pod which is not `restricted`; their model deployments go with them."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply(
        [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}} for name in names]
    )
    try:
        yield list(names)
    finally:
        cluster.kubectl("delete", "namespace", *names, "--wait=false")


def manifest(name: str, image: str, version: str = "v1", **spec: Any) -> dict[str, Any]:
    """A model deployment whose rollouts need no traffic: steps by time, no questions to the evidence."""
    container = {
        "name": "model",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": "MODEL_VERSION", "value": version}],
        "securityContext": RESTRICTED_CONTAINER,
        "resources": {"requests": {"cpu": "5m"}},
    }
    pod = {"securityContext": RESTRICTED_POD, "terminationGracePeriodSeconds": 8, "containers": [container]}
    return {
        "apiVersion": "coalmine.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {
            "model": {"name": "fraud", "version": version, "protocol": "v2"},
            "replicas": 1,
            "template": {"spec": pod},
            "strategy": {
                "canary": {
                    "steps": [{"setWeight": 20}, {"pause": {"duration": "2s"}}, {"setWeight": 50}],
                    "scaleDownDelay": "1s",
                }
            },
            "analysis": {"interval": "1s", "metrics": []},
            **spec,
        },
    }


class Watched:
    """One model deployment, through kubectl."""

    def __init__(self, cluster: Cluster, namespace: str, name: str = "fraud") -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.name = name

    def apply(self, document: dict[str, Any]) -> None:
        if document["kind"] == KIND and document["metadata"]["name"] == self.name:
            self.cluster.put(self.path, document)
        else:
            self.cluster.apply(document, self.namespace)

    def forget(self) -> None:
        """Take it away with all that it has, for a test that is run again to begin where it began."""
        self.kubectl("delete", f"md/{self.name}", "--ignore-not-found", "--timeout=60s")
        self.gone()

    def gone(self) -> None:
        """Wait until nothing is left of it: Kubernetes collects what was owned."""
        self.cluster.wait(lambda: not self.children() and not self.pods(), f"children of {self.name} to go", 60)

    def kubectl(self, *words: str, input: str | None = None) -> str:
        return self.cluster.kubectl(*words, "--namespace", self.namespace, input=input)

    def get(self, *words: str) -> Any:
        return json.loads(self.kubectl("get", *words, "--output=json"))

    @property
    def path(self) -> str:
        """Where the API server keeps it."""
        return f"/apis/coalmine.dev/v1alpha1/namespaces/{self.namespace}/modeldeployments/{self.name}"

    def read(self) -> dict[str, Any]:
        """The whole object, quickly."""
        found: dict[str, Any] = self.cluster.read(self.path)
        return found

    @property
    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.read().get("status", {})
        return status

    def until(self, what: str, check: Callable[[dict[str, Any]], object], timeout: float = 120) -> dict[str, Any]:
        """The status, once `check` holds of it. Fails with what is there instead."""

        def look() -> dict[str, Any] | None:
            status = self.status
            return status if check(status) else None

        try:
            return self.cluster.wait(look, what, timeout, every=0.3)
        except LabError as error:
            there = json.dumps(self.status, indent=1)
            raise AssertionError(f"{error}\n{there}\n{self.cluster.happenings(self.namespace)}") from error

    def healthy(self, version: str, timeout: float = 120) -> dict[str, Any]:
        return self.until(
            f"{version} to be stable and healthy",
            lambda s: s.get("phase") == "Healthy" and s["stable"]["version"] == version,
            timeout,
        )

    def condition(self, kind: str, value: str, reason: str, text: str = "", timeout: float = 120) -> dict[str, Any]:
        """The status, once one of its conditions is this, with `text` in its message."""

        def holds(status: dict[str, Any]) -> bool:
            return any(
                (c["type"], c["status"], c["reason"]) == (kind, value, reason) and text in c.get("message", "")
                for c in status.get("conditions", ())
            )

        return self.until(f"{kind}={value} {reason} {text!r}", holds, timeout)

    def ask(self) -> str:
        """The version that answers a client. A new Service takes a moment until the node has heard of it."""
        row = {"inputs": [{"name": "features", "shape": [1, 30], "datatype": "FP64", "data": [1.0] * 30}]}
        url = f"http://{self.name}.{self.namespace}/v2/models/fraud/infer"
        argv = ["python3", "-c", _ASK, url, json.dumps(row)]
        return self.cluster.wait(lambda: self.cluster.run_in_net(argv).strip(), f"an answer of {url}", 15, every=0.5)

    def answered_by(self, version: str) -> None:
        """Until it is this version that answers: what was promoted a moment ago, sidecars hear of from kubelet."""
        self.cluster.wait(lambda: self.ask() == version, f"an answer of {version}", 15)

    def owned(self, subresource: str = "") -> str:
        """What Coalmine owns of the object's fields, as the API server writes it."""
        entries = json.loads(self.kubectl("get", f"md/{self.name}", "--output=json", "--show-managed-fields"))
        mine = [
            entry["fieldsV1"]
            for entry in entries["metadata"]["managedFields"]
            if entry["manager"] == "coalmine" and entry.get("subresource", "") == subresource
        ]
        return json.dumps(mine)

    def routing(self) -> dict[str, Any]:
        """What its routing Secret says."""
        secret = self.cluster.read(f"/api/v1/namespaces/{self.namespace}/secrets/{self.name}-routing")
        found: dict[str, Any] = json.loads(base64.b64decode(secret["data"]["routing.json"]))
        return found

    def children(self) -> dict[str, dict[str, Any]]:
        """By kind and name."""
        mine = f"labelSelector=app.kubernetes.io%2Finstance%3D{self.name}"
        found = {}
        for kind, path in CHILDREN.items():
            for item in self.cluster.read(f"/{path.format(self.namespace)}?{mine}")["items"]:
                # Items of a list do not say what they are.
                found[f"{kind}/{item['metadata']['name']}"] = {"kind": kind, **item}
        return found

    def pods(self) -> dict[str, dict[str, Any]]:
        selector = f"labelSelector=coalmine.dev%2Fmodeldeployment%3D{self.name}"
        items = self.cluster.read(f"/api/v1/namespaces/{self.namespace}/pods?{selector}")["items"]
        return {item["metadata"]["name"]: item for item in items if "deletionTimestamp" not in item["metadata"]}

    def events(self) -> list[dict[str, Any]]:
        """Its Events, in the order in which they happened; none of another one that had its name before."""
        uid = self.read()["metadata"]["uid"]
        items = self.cluster.read(f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events")["items"]
        mine = [i for i in items if (i["regarding"].get("kind"), i["regarding"].get("uid")) == (KIND, uid)]
        return sorted(mine, key=lambda item: item["eventTime"])

    def reasons(self) -> list[str]:
        """Of its Events, in their order, but for those of WEATHER."""
        return [item["reason"] for item in self.events() if item["reason"] not in WEATHER]

    def messages(self, reason: str) -> list[str]:
        """Of its Events of one reason."""
        return [item["note"] for item in self.events() if item["reason"] == reason]

    def annotate(self, order: str, value: str = "") -> None:
        self.kubectl("annotate", "--overwrite", f"md/{self.name}", f"coalmine.dev/{order}={value}")

    def annotations(self) -> dict[str, str]:
        found: dict[str, str] = self.read()["metadata"].get("annotations", {})
        return found


class Served:
    """Model deployments of several tests, by name: they begin to serve together, which is quicker."""

    def __init__(self, members: dict[Watched, dict[str, Any]]) -> None:
        """`members`: what each begins with, of version v1."""
        self._members = {one.name: (one, first) for one, first in members.items()}
        #: Those that a test left in the middle of something.
        self._stale: set[str] = set()
        self._begin(*self._members)

    def _begin(self, *names: str) -> None:
        chosen = [self._members[name] for name in names]
        for one, first in chosen:
            one.apply(first)
        for one, _ in chosen:
            one.healthy("v1")

    def run_again(self) -> None:
        """For a test that is run again: whichever it takes begins anew."""
        self._stale = set(self._members)

    def __getitem__(self, name: str) -> Watched:
        one, _ = self._members[name]
        if name in self._stale:
            self._stale.discard(name)
            one.forget()
            self._begin(name)
        return one

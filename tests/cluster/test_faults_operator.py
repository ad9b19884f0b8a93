"""The operator is killed in every phase of a story, and the story ends as it does where nobody is killed."""

from __future__ import annotations

import base64
import collections
import datetime as dt
import json
import queue
import re
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.faults import guarded, own_namespace
from tests.cluster.figures import Figure
from tests.cluster.lab.cluster import NodeCluster
from tests.cluster.operating import WEATHER, Operator, Watched, operator_for
from tests.cluster.traffic import Traffic, traffic

pytestmark = pytest.mark.timeout(1200, func_only=True)

TOKEN = "alertmanager-of-the-test"
#: In the pods' network; nothing else listens there.
PORTS = {"calm": 18011, "hit": 18012}
#: Seconds that a killed operator is away.
AWAY = 0.6
#: Seconds of a pause after which the weights are measured, kubelet having brought the file, and for how long.
BROUGHT = 1.0
MEASURED = 2.0
#: Seconds that a chapter of the story may take, with all the starts of an operator on a busy machine.
LONG = 400

STEPS = [{"setWeight": 20}, {"pause": {"duration": "2s"}}, {"setWeight": 50}, {"pause": {"duration": "2s"}}]
WAITS = [{"setWeight": 20}, {"pause": {}}]

_POST = """
import sys, time, urllib.request
for _ in range(1000):
    try:
        headers = {"Authorization": "Bearer " + sys.argv[2], "Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(sys.argv[1], sys.argv[3].encode(), headers), timeout=10)
        break
    except OSError:
        time.sleep(0.2)
else:
    sys.exit("never taken")
"""


def spec(steps: list[dict[str, Any]], bake: str) -> dict[str, Any]:
    return {
        "replicas": 2,
        "strategy": {"canary": {"steps": steps, "scaleDownDelay": "2s"}},
        "autoRollback": {"alerts": [{"name": "Slow"}], "bakeTime": bake},
    }


class Story:
    """What happens to a model deployment, told in the same way whoever is killed meanwhile."""

    def __init__(self, fraud: Watched, image: str, port: int, while_away: Callable[[Callable[[], None]], None]) -> None:
        self.fraud = fraud
        self.image = image
        self.port = port
        self.while_away = while_away

    def tell(self) -> None:
        fraud, image = self.fraud, self.image
        fraud.apply(guarded(image, "v1", **spec(STEPS, "3s")))
        fraud.healthy("v1", LONG)
        fraud.apply(guarded(image, "v2", **spec(STEPS, "3s")))
        fraud.healthy("v2", LONG)
        self.settled()

        fraud.apply(guarded(image, "v3", **spec(WAITS, "60s")))
        fraud.until("the pause", lambda s: s["phase"] == "Paused" and s["canary"]["weight"] == 20, LONG)
        self.while_away(lambda: fraud.annotate("rollback"))
        fraud.until("the rollback by order", lambda s: s["phase"] == "Degraded" and not s.get("rollout"), LONG)
        self.settled()

        fraud.apply(guarded(image, "v1", **spec(STEPS[:1], "120s")))
        fraud.until("v1 to bake", lambda s: s["phase"] == "Baking" and s["stable"]["version"] == "v1", LONG)
        self.alert()
        fraud.until("the rollback by alert", lambda s: s["phase"] == "Degraded" and not s.get("rollout"), LONG)
        self.settled()

        fraud.apply(guarded(image, "v2", **(spec(STEPS[:1], "120s") | {"replicas": 1})))
        fraud.healthy("v2", LONG)
        self.settled()

    def settled(self) -> None:
        """Until no pod is on its way, in or out."""

        def still() -> bool:
            status = self.fraud.status
            pods = self.fraud.pods()
            wanted = status["stable"]["desired"]
            return not status.get("retiring") and status["stable"]["ready"] == wanted == len(pods)

        self.fraud.cluster.wait(still, "pods to settle", LONG, every=0.5)

    def alert(self) -> None:
        """As Alertmanager tells it: until it is taken."""
        labels = {"alertname": "Slow", "modeldeployment": "fraud", "namespace": self.fraud.namespace}
        now = dt.datetime.now(dt.UTC).isoformat()
        alert = {"status": "firing", "labels": labels, "annotations": {}, "startsAt": now, "fingerprint": "f1"}
        body = json.dumps({"version": "4", "status": "firing", "alerts": [alert | {"endsAt": "0001-01-01T00:00:00Z"}]})
        url = f"http://127.0.0.1:{self.port}/alerts"
        self.fraud.cluster.run_in_net(["python3", "-c", _POST, url, TOKEN, body], timeout=LONG)


class Telling(threading.Thread):
    """Tells a story meanwhile; what it raises is kept in `error`, and `ended` is called."""

    def __init__(self, story: Story, ended: Callable[[], None] = lambda: None) -> None:
        super().__init__(daemon=True)
        self._story = story
        self._ended = ended
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._story.tell()
        except BaseException as error:
            self.error = error
        self._ended()


class Killer:
    """Kills the operator whenever the status shows a moment that was not there before, and starts it again.

    Only here, since a process among the pods ends with the thread that started it.
    """

    def __init__(self, node: NodeCluster, fraud: Watched, operator: Operator, seen: Traffic) -> None:
        self._node = node
        self._fraud = fraud
        self._operator = operator
        self._seen = seen
        self._asked: queue.Queue[tuple[str, Any]] = queue.Queue()
        #: What the status said when the operator was killed.
        self.moments: dict[tuple[Any, ...], str] = {}
        #: Revisions with a weight when the operator was last killed: sidecars may not have read of others yet.
        self._weighted: collections.deque[set[str]] = collections.deque(maxlen=3)
        #: How often weights were measured, and how often a sidecar had not read of them yet, with nobody to see to it.
        self.measured = 0
        self.unread = 0
        self._before: dict[str, float] = {}

    def until_told(self, story: Story) -> None:
        """Tell the story in a thread, and raise what it raises."""
        path = f"/apis/coalmine.dev/v1alpha1/namespaces/{self._fraud.namespace}/modeldeployments?watch=true"
        command = [str(self._node.layout.programs / "kubectl"), "get", "--raw", path]
        telling = Telling(story, lambda: self._asked.put(("end", None)))

        def follow(lines: Any) -> None:
            for line in lines:
                self._asked.put(("status", json.loads(line)["object"].get("status") or {}))

        with subprocess.Popen(command, stdout=subprocess.PIPE, env=self._node.environment) as watch:
            following = threading.Thread(target=follow, args=(watch.stdout,), daemon=True)
            following.start()
            telling.start()
            try:
                self._obey()
            finally:
                watch.kill()
        following.join(5)
        if telling.error:
            raise telling.error

    def while_away(self, act: Callable[[], None]) -> None:
        """For the story: do something while no operator runs."""
        done = threading.Event()
        self._asked.put(("act", (act, done)))
        assert done.wait(60)

    def _obey(self) -> None:
        while True:
            kind, what = self._asked.get(timeout=300)
            if kind == "end":
                return
            if kind == "act":
                act, done = what
                self._operator.kill()
                act()
                self._operator.start()
                done.set()
                continue
            moment = moment_of(what)
            if moment not in self.moments:
                self.moments[moment] = what.get("message", "")
                self._strike(what)

    def _strike(self, status: dict[str, Any]) -> None:
        self._operator.kill()
        measured = status.get("phase") == "Progressing" and status.get("message", "").startswith("pause of")
        routing = routing_of(self._fraud)
        weights = {route["name"]: route.get("weight", 0) for route in routing.get("revisions", ())}
        self._weighted.append({name for name, weight in weights.items() if weight})
        began = time.time()
        time.sleep(BROUGHT + MEASURED if measured else AWAY)
        ended = time.time()
        answers = self._seen.records(began, ended)
        strangers = [one for one in answers if not any(one.revision in names for names in self._weighted)]
        # A pod that lacks CPU for a second is stood in for.
        assert len(strangers) <= len(answers) / 20, f"{strangers[:3]}: {weights}"
        if measured:
            self._measure(weights, ended)
        self._before = weights
        assert routing_of(self._fraud) == routing
        self._operator.start()

    def _measure(self, weights: dict[str, float], ended: float) -> None:
        """Shares are those of the file's weights, or on the way to them from those before."""
        unread = False
        for name, weight in weights.items():
            share = self._seen.share(name, ended - MEASURED, ended)
            before = self._before.get(name, 0)
            said = f"{name} has a weight of {weight}, and got {share:.1f} % ({before:g} % before)"
            assert min(before, weight) - 10 < share < max(before, weight) + 10, said
            unread |= abs(share - weight) >= 10
        self.measured += 1
        self.unread += unread


def moment_of(status: dict[str, Any]) -> tuple[Any, ...]:
    """What makes a phase another one."""
    rollout, last = status.get("rollout") or {}, status.get("lastRollback") or {}
    return (
        status.get("phase"),
        (status.get("stable") or {}).get("version"),
        (status.get("canary") or {}).get("version"),
        (status.get("canary") or {}).get("weight"),
        status.get("step"),
        rollout.get("promoting", False),
        "promotedAt" in rollout,
        bool(status.get("retiring")),
        last.get("reason"),
        "shiftedAt" in last,
        "doneAt" in last,
    )


def routing_of(fraud: Watched) -> dict[str, Any]:
    """The routing file, as the Secret has it; empty before there is one."""
    path = f"/api/v1/namespaces/{fraud.namespace}/secrets?fieldSelector=metadata.name%3Dfraud-routing"
    items = fraud.cluster.read(path)["items"]
    found: dict[str, Any] = json.loads(base64.b64decode(items[0]["data"]["routing.json"])) if items else {}
    return found


#: Fields that differ between two runs of the same story: times, counters of writes, the server's own, and the bins that
#: were cut from answers, of which only one of the two gives any.
VOLATILE = {
    "startedAt", "endedAt", "at", "lastTransitionTime", "startsAt", "receivedAt", "shiftedAt", "doneAt", "since",
    "generation", "bins", "outputs", "orders", "uid", "resourceVersion", "creationTimestamp", "managedFields",
    "clusterIP", "clusterIPs", "createdAt", "deployment.kubernetes.io/revision",
}  # fmt: skip


def essence(value: Any, namespace: str) -> Any:
    """A value without what two runs of the same story cannot have in common."""
    if isinstance(value, dict):
        return {key: essence(one, namespace) for key, one in value.items() if key not in VOLATILE}
    if isinstance(value, list):
        return [essence(one, namespace) for one in value]
    if isinstance(value, str):
        return re.sub(r"\b[0-9a-f]{32}\b", "KEY", value.replace(namespace, "NAMESPACE"))
    return value


def end_of(fraud: Watched) -> dict[str, Any]:
    """Status and children when the story is over."""
    children = {}
    for name, child in fraud.children().items():
        about = {"labels": child["metadata"].get("labels"), "owners": len(child["metadata"]["ownerReferences"])}
        if name == "Secret/fraud-routing":
            about["file"] = routing_of(fraud)
        elif child["kind"] == "ControllerRevision":
            about["data"] = child["data"]
        else:
            about["spec"] = child.get("spec") or child.get("data")
        children[name] = about
    status = {key: value for key, value in fraud.status.items() if key != "events"}
    whole: dict[str, Any] = essence({"status": status, "children": children}, fraud.namespace)
    return whole


def told(fraud: Watched) -> list[Any]:
    """The last Events that the status keeps, but for those of pods that a starved machine took for not ready."""
    events: list[Any] = essence(fraud.status["events"], fraud.namespace)
    return [event for event in events if event["reason"] not in WEATHER]


def test_killed_at_every_phase_it_comes_to_the_same_end(
    node: NodeCluster, sidecar_image: str, model_image: str, tmp_path: Path, figure: Figure
) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)

    def flags(who: str) -> tuple[str, ...]:
        return f"--listen=127.0.0.1:{PORTS[who]}", f"--alerts-token-file={token}"

    with (
        own_namespace(node) as calm,
        own_namespace(node) as hit,
        operator_for(node, [calm], sidecar_image, tmp_path / "calm.log", *flags("calm")),
        operator_for(node, [hit], sidecar_image, tmp_path / "hit.log", *flags("hit")) as operator,
    ):
        spared, fraud = Watched(node, calm), Watched(node, hit)
        undisturbed = Telling(Story(spared, model_image, PORTS["calm"], lambda act: act()))
        undisturbed.start()
        # The first version, as it starts; no client can be answered before.
        first = guarded(model_image, "v1", **spec(STEPS, "3s"))
        fraud.apply(first)
        for check in (lambda s: s.get("phase") == "Pending", lambda s: s["stable"]["desired"]):
            fraud.until("the first version to start", check)
            operator.kill()
            operator.start()
        fraud.healthy("v1", 150)
        with traffic(node, f"http://fraud.{hit}", tmp_path) as seen:
            killer = Killer(node, fraud, operator, seen)
            killer.until_told(Story(fraud, model_image, PORTS["hit"], killer.while_away))
        figure(
            f"killed {len(killer.moments) + 3} times: {seen.summary()}; {seen.rate():.0f}/s; "
            f"weights measured {killer.measured} times, {killer.unread} of them before all sidecars had read them"
        )
        assert killer.unread < killer.measured
        undisturbed.join(LONG)
        assert not undisturbed.is_alive()
        assert undisturbed.error is None, undisturbed.error
        assert not seen.errors(), seen.summary()
        phases = {moment[0] for moment in killer.moments}
        assert phases >= {"Progressing", "Promoting", "Baking", "Healthy", "Paused", "RollingBack", "Degraded"}, phases
        assert end_of(fraud) == end_of(spared)
        ours, theirs = told(fraud), told(spared)
        both = min(len(ours), len(theirs))
        assert ours[-both:] == theirs[-both:]
        print(f"events beside the other's: {fraud.reasons()} {spared.reasons()}")

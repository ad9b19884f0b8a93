"""`make demo-cluster`: the whole story in a cluster that stays, and an early end on a node of its own."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from tests.cluster.lab import cgroups
from tests.cluster.lab.cache import PROJECT
from tests.cluster.lab.cluster import Cluster, NodeCluster
from tests.cluster.lab.layout import Layout

DEMO = [sys.executable, "-m", "examples.demo_cluster"]

pytestmark = [
    pytest.mark.timeout(600, func_only=True),
    pytest.mark.usefixtures("operator_image", "sidecar_image", "model_image"),
]


def kinds(cluster: Cluster) -> list[str]:
    """What a chart or a demo leaves in a cluster if it leaves anything."""
    words = (
        "namespaces,crds,clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingwebhookconfigurations"
    )
    return cluster.kubectl("get", words, "--output", "name").split()


def test_the_whole_story_comes_true(cluster: Cluster, tmp_path: Path) -> None:
    """In the cluster of the test run, as in a user's: it is left as it was."""
    before = kinds(cluster)
    facts_file = tmp_path / "facts.json"
    chosen = {"COALMINE_CLUSTER": "kubeconfig", "COALMINE_KUBECONFIG": str(cluster.api)}
    with subprocess.Popen(
        [*DEMO, "--plain", "--json", str(facts_file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=PROJECT,
        env=cluster.environment | chosen,
    ) as process:
        end = threading.Timer(480, process.send_signal, [signal.SIGINT])
        end.start()
        output = process.communicate()[0]
        end.cancel()
    print(output)
    assert process.returncode == 0, output
    assert "\x1b" not in output
    assert f"$ export KUBECONFIG={cluster.api} " in output
    assert "$ helm install coalmine helm/coalmine --namespace coalmine-system --create-namespace " in output
    assert len(re.findall(r"^\$ .*kubectl apply ", output, re.MULTILINE)) == 5

    facts = json.loads(facts_file.read_bytes())
    assert facts["ok"] is True
    assert [line["line"] for line in facts["timeline"] if not line["ok"]] == []
    assert len(facts["timeline"]) == 13
    score = facts["score"]
    assert score["client_errors"] == 0
    assert score["sent"] > 1000
    versions = {v["version"]: v for v in score["versions"]}
    assert list(versions) == ["v1", "v2", "v3", "v4"]
    assert sum(v["labels"] for v in versions.values()) == score["sent"]
    decided = [(back["version"], back["to"], back["decided_by"]) for back in score["rollbacks"]]
    assert decided == [("v3", "v2", "verdict"), ("v4", "v2", "alert")]
    assert score["fallback_answers"] > 0

    # Other tests' namespaces may have ended meanwhile.
    assert set(kinds(cluster)) <= set(before)


def test_ctrl_c_ends_the_node_and_leaves_nothing_behind(node: NodeCluster) -> None:
    del node  # one can run here
    runs = set((PROJECT / "build" / "demo").glob("run-*"))
    ours, theirs = pty.openpty()  # a terminal, so that progress is drawn as well
    env = {**os.environ, "TERM": "xterm-256color", "COALMINE_CLUSTER": "own"}
    # A shell has what it starts in the background ignore it, and so would the demo of tests that run there.
    heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(DEMO, stdout=theirs, stderr=theirs, env=env, cwd=PROJECT, preexec_fn=heeds) as process:
        os.close(theirs)
        end = threading.Timer(300, process.kill)
        end.start()
        shown = b""
        while b"KUBECONFIG=" not in shown and (chunk := _read(ours)):
            shown += chunk
        process.send_signal(signal.SIGINT)
        while chunk := _read(ours):
            shown += chunk
        status = process.wait()
        end.cancel()
    os.close(ours)
    text = shown.decode(errors="replace")
    assert status == 130, text
    assert "stopped; everything was ended" in text
    assert "Traceback" not in text
    found = re.search(r"KUBECONFIG=(\S+)/kubeconfig", text)
    assert found
    layout = Layout(Path(found[1]))
    assert not layout.root.exists()
    assert not cgroups.exists(layout.cgroup)
    assert set((PROJECT / "build" / "demo").glob("run-*")) <= runs


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end is closed
        return b""

"""Prometheus and Alertmanager among the pods, told to do what the chart says."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.client
import json
import shutil
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.cluster import monitoring_config as config
from tests.cluster.installed import Install
from tests.cluster.lab.prometheus import prometheus
from tests.cluster.lab.run import LabError

ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")

_ACCOUNT = "prometheus"
_TWO_PORTS = """
import socket
a, b = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
print(a.getsockname()[1], b.getsockname()[1])
"""


class Monitoring:
    """Both, by their HTTP APIs. Every method that fails raises LabError."""

    def __init__(self, prometheus: str, alertmanager: str) -> None:
        self._prometheus = prometheus
        self._alertmanager = alertmanager

    def ready(self) -> bool:
        return all(_ask(f"{url}/-/ready") for url in (self._prometheus, self._alertmanager))

    def targets(self) -> list[dict[str, Any]]:
        """What is scraped now: `labels`, `health`, `lastError`."""
        found: list[dict[str, Any]] = self._read("targets?state=active")["activeTargets"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """`name`, `health`, `lastError` of every rule."""
        return [rule for group in self._read("rules")["groups"] for rule in group["rules"]]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """`metric` and `value` of each series of an instant vector."""
        found: list[dict[str, Any]] = self._read(f"query?{urllib.parse.urlencode({'query': expression})}")["result"]
        return found

    def _read(self, path: str) -> Any:
        return json.loads(_ask(f"{self._prometheus}/api/v1/{path}"))["data"]

    def tell(self, labels: Mapping[str, str], *, ended: bool = False) -> None:
        """Tell Alertmanager, as Prometheus does, that an alert fires or has ended."""
        now = dt.datetime.now(dt.UTC).isoformat()
        _ask(f"{self._alertmanager}/api/v2/alerts", [{"labels": labels, "endsAt" if ended else "startsAt": now}])


@contextlib.contextmanager
def monitoring(release: Install, folder: Path) -> Iterator[Monitoring]:
    """For the models of a release; logs and files are in `folder`."""
    cluster = release.cluster
    assert ALERTMANAGER
    ports = cluster.run_in_net([sys.executable, "-c", _TWO_PORTS]).split()
    made = release.render(**config.VALUES)
    rules = _write(folder / "rules.yaml", config.rules(made, release.models))
    kubeconfig, token = folder / "kubeconfig", folder / "prometheus.token"
    scraping = config.scraping(made, kubeconfig, token, rules, alertmanager=f"127.0.0.1:{ports[1]}")
    alerting = config.alerting(release, folder)
    commands: dict[str, list[str | Path]] = {
        "prometheus": [prometheus(), f"--storage.tsdb.path={folder}/series"],
        "alertmanager": [ALERTMANAGER, f"--storage.path={folder}/silences", "--cluster.listen-address="],
    }
    with contextlib.ExitStack() as stack:
        token.write_text(stack.enter_context(_account(release)))
        authority = cluster.get("configmap", "kube-root-ca.crt", "--namespace", release.models)["data"]["ca.crt"]
        _write(kubeconfig, config.kubeconfig(authority, token.read_text()))
        urls = []
        for (name, command), port, document in zip(commands.items(), ports, (scraping, alerting), strict=True):
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            file = _write(folder / f"{name}.yaml", document)
            listen = (f"--config.file={file}", f"--web.listen-address=127.0.0.1:{port}")
            stack.enter_context(cluster.process_in_net([*command, *listen], stdout=log, stderr=log))
            urls.append(f"http://127.0.0.1:{stack.enter_context(cluster.door('127.0.0.1', int(port)))}")
        both = Monitoring(*urls)
        try:
            cluster.wait(both.ready, "Prometheus and Alertmanager", 60)
        except LabError as error:
            said = "\n".join((folder / f"{name}.log").read_text()[-1000:] for name in commands)
            raise LabError(f"{error}\n{said}") from error
        yield both


@contextlib.contextmanager
def _account(release: Install) -> Iterator[str]:
    """The token of somebody who may list the models' pods, and ask kubelets."""
    cluster, namespace = release.cluster, release.models
    kubelets = config.may_ask_kubelets(_ACCOUNT, namespace)
    cluster.apply([*config.may_list_pods(_ACCOUNT, namespace), *kubelets])
    try:
        yield cluster.kubectl("create", "token", _ACCOUNT, "--namespace", namespace).strip()
    finally:
        names = [f"{one['kind']}/{one['metadata']['name']}" for one in kubelets]
        cluster.kubectl("delete", *names, "--wait=false")


def _write(path: Path, document: Mapping[str, Any]) -> Path:
    path.write_text(json.dumps(document, indent=1))  # JSON is YAML
    return path


def _ask(url: str, body: Any = None) -> str:
    request = urllib.request.Request(url, headers={"Content-Type": "application/json"})
    if body is not None:
        request.data = json.dumps(body).encode()
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            text: str = answer.read().decode()
    except urllib.error.HTTPError as error:
        raise LabError(f"{url}: {error.code}: {error.read().decode()[:500]}") from error
    except (OSError, http.client.HTTPException) as error:
        raise LabError(f"{url}: {error}") from error
    return text

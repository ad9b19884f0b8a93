"""A real Prometheus: it scrapes what `coalmine run` names as targets, with the rules that `coalmine rules` prints."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from tests.local.running import free_port, until

#: Seconds.
SCRAPE: Final = 1
#: A port that was free may be taken by the time it is used.
TRIES: Final = 5


class Prometheus:
    """In a folder of its own files; its data may be there before it is."""

    def __init__(
        self,
        folder: Path,
        rules: Sequence[str],
        web_port: int,
        *,
        program: str | Path = "prometheus",
        cadvisor_port: int = 0,
    ) -> None:
        """`web_port`: of `coalmine run`; `cadvisor_port`: of what answers for a kubelet, see tests.chart.cadvisor."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        files = {f"rules-{number}.yml": text for number, text in enumerate(rules)}
        for name, text in files.items():
            (folder / name).write_text(_at_every_scrape(text))
        jobs = [_sidecars_and_operator(web_port), *([_cadvisor(web_port, cadvisor_port)] if cadvisor_port else [])]
        config = {
            "global": dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), f"{SCRAPE}s"),
            "rule_files": list(files),
            "scrape_configs": jobs,
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._program = program
        self._jobs = {job["job_name"] for job in jobs}
        self.start()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def start(self) -> None:
        """Returns once it has scraped all that there is."""
        for _ in range(TRIES):
            self.port = free_port()
            with (self.folder / "prometheus.log").open("ab") as log:
                self._process = subprocess.Popen(
                    [
                        self._program, "--config.file=prometheus.yml", "--storage.tsdb.path=data",
                        f"--web.listen-address=127.0.0.1:{self.port}", "--web.enable-admin-api",
                    ],
                    cwd=self.folder, stdout=log, stderr=log,
                )  # fmt: skip
            until(lambda: self._process.poll() is not None or self._is_ready(), f"{self.folder}/prometheus.log")
            if self._process.poll() is None:
                until(self._scrapes, "every target to be scraped")
                return
        raise AssertionError((self.folder / "prometheus.log").read_text()[-2000:])

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _scrapes(self) -> bool:
        """With success, and of each job some target."""
        targets = self.get("targets", state="active")["activeTargets"]
        return {one["scrapePool"] for one in targets if one["health"] == "up"} == self._jobs and all(
            one["health"] == "up" for one in targets
        )

    def get(self, path: str, **parameters: str) -> Any:
        return self._data(f"{path}?{urllib.parse.urlencode(parameters)}")

    def query(self, expression: str, at: float | None = None) -> list[tuple[dict[str, str], float]]:
        """Samples of an instant query: labels and value."""
        found = self.get("query", query=expression, time=f"{time.time() if at is None else at:.3f}")
        return [(sample["metric"], float(sample["value"][1])) for sample in found["result"]]

    def firing(self) -> set[str]:
        """Names of the alerts that fire."""
        return {a["labels"]["alertname"] for a in self.get("alerts")["alerts"] if a["state"] == "firing"}

    def rules(self) -> list[dict[str, Any]]:
        """`name`, `query`, `health` (`unknown` before the first look) and `lastError` of every rule."""
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]

    def copy_data(self, folder: Path) -> None:
        """All that it has now, as the data of another one in `folder`."""
        name = self._data("admin/tsdb/snapshot", method="POST")["name"]
        shutil.copytree(self.data / "snapshots" / name, folder / "data")

    def _data(self, path: str, method: str = "GET") -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/api/v1/{path}", method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["data"]


def _discovered(web_port: int) -> list[dict[str, str]]:
    return [{"url": f"http://127.0.0.1:{web_port}/targets", "refresh_interval": "1s"}]


def _sidecars_and_operator(web_port: int) -> dict[str, Any]:
    return {"job_name": "coalmine", "honor_labels": True, "http_sd_configs": _discovered(web_port)}


def _cadvisor(web_port: int, port: int) -> dict[str, Any]:
    """Each pod of a sidecar is asked for once, by its name."""
    relabel = [
        {"source_labels": ["job"], "regex": "coalmine-sidecar", "action": "keep"},
        *({"source_labels": [name], "target_label": f"__param_{name}"} for name in ("namespace", "pod")),
        {"target_label": "__address__", "replacement": f"127.0.0.1:{port}"},
        {"target_label": "job", "replacement": "kubelet"},
    ]
    return {
        "job_name": "kubelet",
        "metrics_path": "/metrics/cadvisor",
        "honor_labels": True,
        "http_sd_configs": _discovered(web_port),
        "relabel_configs": relabel,
    }


def _at_every_scrape(rules: str) -> str:
    """An hour's window is looked at once a minute; this one's is some seconds."""
    document = yaml.safe_load(rules)
    for group in document["groups"]:
        group.pop("interval", None)
    return yaml.safe_dump(document, sort_keys=False)

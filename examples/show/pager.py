"""A stand-in for Prometheus and Alertmanager: scrapes the sidecars, watches one rule, calls the webhook.

The rule, in PromQL: the share of a canary's answers slower than 250 ms, over the last seconds, is above a half:

    1 - sum by (version) (rate(coalmine_request_duration_seconds_bucket{track="canary", role="ingress", le="0.25"}[3s]))
      / sum by (version) (rate(coalmine_request_duration_seconds_count{track="canary", role="ingress"}[3s])) > 0.5
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from .coalmine import NAME, Coalmine

ALERT = "ModelLatencyHigh"
HISTOGRAM = "coalmine_request_duration_seconds"
LIMIT = 0.25
SHARE = 0.5
#: Fewer answers than this in the window say nothing.
LEAST = 10
WINDOW = 3.0
EVERY = 0.5


@dataclass
class Counts:
    """Answers of one version since a sidecar's start, and those among them over LIMIT."""

    answers: float = 0.0
    slow: float = 0.0


#: (pod, version) -> what that pod's sidecar counted.
Scrape = dict[tuple[str, str], Counts]


@dataclass(frozen=True)
class Fired:
    """An alert that was sent at `posted` (Unix seconds), and what was measured."""

    version: str
    posted: float
    share: float
    answers: int


@dataclass
class Pager:
    coalmine: Coalmine
    fired: list[Fired] = field(default_factory=list)
    #: What the webhook answered last.
    answer: str = ""
    _scrapes: deque[tuple[float, Scrape]] = field(default_factory=deque)
    _firing: dict[str, str] = field(default_factory=dict)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            pods = [pod for pod in self.coalmine.pods() if pod.admin_port]
            pages = await asyncio.gather(*(self.coalmine.metrics(pod) for pod in pods))
            scrape: Scrape = {}
            for pod, page in zip(pods, pages, strict=True):
                scrape |= {(pod.name, version): counts for version, counts in read(page).items()}
            await self._judge(self.look(time.time(), scrape))
            await asyncio.sleep(EVERY)

    def look(self, now: float, scrape: Scrape) -> dict[str, Counts]:
        """What each version's canary answered within the window that ends with this scrape."""
        self._scrapes.append((now, scrape))
        while self._scrapes[0][0] < now - WINDOW:
            self._scrapes.popleft()
        before = self._scrapes[0][1]
        window: dict[str, Counts] = {}
        for (pod, version), last in scrape.items():
            first = before.get((pod, version), Counts())
            counts = window.setdefault(version, Counts())
            # A sidecar that started anew counts from 0: no increase is better than a wrong one.
            counts.answers += max(0.0, last.answers - first.answers)
            counts.slow += max(0.0, last.slow - first.slow)
        return window

    async def _judge(self, window: dict[str, Counts]) -> None:
        """Call the webhook where an alert begins or ends; like Alertmanager again and again, until it says 200."""
        above = {v: c for v, c in window.items() if c.answers >= LEAST and c.slow / c.answers > SHARE}
        for version, counts in above.items():
            if version not in self._firing:
                posted = time.time()
                if await self._post("firing", version, stamp(posted)):
                    self._firing[version] = stamp(posted)
                    self.fired.append(Fired(version, posted, counts.slow / counts.answers, int(counts.answers)))
        for version in self._firing.keys() - above.keys():
            if await self._post("resolved", version, self._firing[version]):
                del self._firing[version]

    async def _post(self, status: str, version: str, starts_at: str) -> bool:
        code, text = await self.coalmine.alert(webhook(status, version, starts_at))
        self.answer = f"{code} {text.strip()}"
        return code == 200


def read(page: str) -> dict[str, Counts]:
    """The canary's latency histogram of one sidecar's metrics, by version."""
    counts: dict[str, Counts] = {}
    lines = [line for line in page.splitlines() if line.startswith((HISTOGRAM, f"# TYPE {HISTOGRAM}"))]
    for family in text_string_to_metric_families("\n".join([*lines, ""])):
        for sample in family.samples:
            labels = sample.labels
            if labels.get("track") != "canary" or labels.get("role") != "ingress":
                continue
            count = counts.setdefault(labels["version"], Counts())
            if sample.name == f"{HISTOGRAM}_count":
                count.answers += sample.value
                count.slow += sample.value
            elif sample.name == f"{HISTOGRAM}_bucket" and float(labels["le"]) == LIMIT:
                count.slow -= sample.value
    return counts


def stamp(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat()


def webhook(status: str, version: str, starts_at: str) -> dict[str, Any]:
    """Alertmanager's body, version 4, for one alert."""
    labels = {
        "alertname": ALERT,
        "namespace": "default",
        "modeldeployment": NAME,
        "version": version,
        "track": "canary",
        "severity": "critical",
    }
    annotations = {"summary": f"over half of the answers of {version} take longer than {LIMIT * 1000:.0f} ms"}
    ends_at = stamp(time.time()) if status == "resolved" else "0001-01-01T00:00:00Z"
    alert = {
        "status": status,
        "labels": labels,
        "annotations": annotations,
        "startsAt": starts_at,
        "endsAt": ends_at,
        "generatorURL": "",
        "fingerprint": f"demo-{version}",
    }
    return {
        "version": "4",
        "groupKey": f'{{}}:{{alertname="{ALERT}"}}',
        "truncatedAlerts": 0,
        "status": status,
        "receiver": "coalmine",
        "groupLabels": {"alertname": ALERT},
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": "",
        "alerts": [alert],
    }

"""A stand-in for Prometheus and Alertmanager: scrapes the sidecars, watches one rule, calls the webhook.

The rule, in PromQL: the share of a canary's answers slower than 250 ms is above stable's by more than a half. A machine
that is busy with something else slows both, which is nobody's regression.

    slow{track="canary"} - ignoring(version, track) group_left() slow{track="stable"} > 0.5

    slow = 1 - sum by (version, track) (rate(coalmine_request_duration_seconds_bucket{role="ingress", le="0.25"}[3s]))
             / sum by (version, track) (rate(coalmine_request_duration_seconds_count{role="ingress"}[3s]))
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from .stage import NAME, Stage

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
    """Answers of one version, those among them over LIMIT, and the version's track."""

    answers: float = 0.0
    slow: float = 0.0
    track: str = ""

    @property
    def share(self) -> float:
        return self.slow / self.answers if self.answers else 0.0


#: (pod, version) -> what that pod's sidecar counted since its start.
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
    stage: Stage
    fired: list[Fired] = field(default_factory=list)
    #: What the webhook answered last.
    answer: str = ""
    _scrapes: deque[tuple[float, Scrape]] = field(default_factory=deque)
    _firing: dict[str, str] = field(default_factory=dict)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            pods = [pod for pod in self.stage.pods() if pod.admin]
            pages = await asyncio.gather(*(self.stage.metrics(pod) for pod in pods))
            scrape: Scrape = {}
            for pod, page in zip(pods, pages, strict=True):
                scrape |= {(pod.name, version): counts for version, counts in read(page).items()}
            await self._judge(self.look(time.time(), scrape))
            await asyncio.sleep(EVERY)

    def look(self, now: float, scrape: Scrape) -> dict[str, Counts]:
        """What each version answered within the window that ends with this scrape."""
        self._scrapes.append((now, scrape))
        while self._scrapes[0][0] < now - WINDOW:
            self._scrapes.popleft()
        before = self._scrapes[0][1]
        window: dict[str, Counts] = {}
        for (pod, version), last in scrape.items():
            first = before.get((pod, version), Counts())
            counts = window.setdefault(version, Counts(track=last.track))
            # A sidecar that started anew counts from 0: no increase is better than a wrong one.
            counts.answers += max(0.0, last.answers - first.answers)
            counts.slow += max(0.0, last.slow - first.slow)
        return window

    async def _judge(self, window: dict[str, Counts]) -> None:
        """Call the webhook where an alert begins or ends; like Alertmanager again and again, until it says 200."""
        above = too_slow(window)
        for version, counts in above.items():
            if version not in self._firing:
                posted = time.time()
                if await self._post("firing", version, stamp(posted)):
                    self._firing[version] = stamp(posted)
                    self.fired.append(Fired(version, posted, counts.share, int(counts.answers)))
        for version in self._firing.keys() - above.keys():
            if await self._post("resolved", version, self._firing[version]):
                del self._firing[version]

    async def _post(self, status: str, version: str, starts_at: str) -> bool:
        code, text = await self.stage.alert(webhook(status, version, starts_at, self.stage.namespace))
        self.answer = f"{code} {text.strip()}"
        return code == 200


def too_slow(window: dict[str, Counts]) -> dict[str, Counts]:
    """The canaries for which the rule holds."""
    usual = max((c.share for c in window.values() if c.track == "stable"), default=0.0)
    return {
        version: counts
        for version, counts in window.items()
        if counts.track == "canary" and counts.answers >= LEAST and counts.share > usual + SHARE
    }


def read(page: str) -> dict[str, Counts]:
    """The latency histograms of one sidecar's metrics, by version."""
    counts: dict[str, Counts] = {}
    lines = [line for line in page.splitlines() if line.startswith((HISTOGRAM, f"# TYPE {HISTOGRAM}"))]
    for family in text_string_to_metric_families("\n".join([*lines, ""])):
        for sample in family.samples:
            labels = sample.labels
            if labels.get("role") != "ingress":
                continue
            count = counts.setdefault(labels["version"], Counts(track=labels["track"]))
            if sample.name == f"{HISTOGRAM}_count":
                count.answers += sample.value
                count.slow += sample.value
            elif sample.name == f"{HISTOGRAM}_bucket" and float(labels["le"]) == LIMIT:
                count.slow -= sample.value
    return counts


def stamp(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat()


def webhook(status: str, version: str, starts_at: str, namespace: str) -> dict[str, Any]:
    """Alertmanager's body, version 4, for one alert."""
    labels = {
        "alertname": ALERT,
        "namespace": namespace,
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

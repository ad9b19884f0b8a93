"""A past for a Prometheus that has just begun: its own series, back-filled by promtool."""

from __future__ import annotations

import subprocess
import time
from typing import Final

from tests.acceptance.prometheus import Prometheus
from tests.chart.promtool import PROMTOOL, selector

#: Seconds.
_DAY: Final = 86400
_STEP: Final = 60
#: Days that have gone by: around the one a week ago.
_DAYS: Final = (8, 6)


def back_fill(prometheus: Prometheus, metric: str, per_second: float) -> None:
    """Counters `metric` (`…_total`) have grown evenly from eight days ago to six days ago. Starts Prometheus anew."""
    series = [labels for labels, _ in prometheus.query(metric)]
    assert series, metric
    family = metric.removesuffix("_total")
    now = int(time.time())
    begins, ends = (now - days * _DAY for days in _DAYS)
    lines = [f"# TYPE {family} counter"]
    for labels in series:
        own = selector(metric, {name: text for name, text in labels.items() if name != "__name__"})
        lines += [f"{own} {per_second * (at - begins):g} {at}" for at in range(begins, ends, _STEP)]
    text = prometheus.folder / f"{family}.txt"
    text.write_text("\n".join([*lines, "# EOF", ""]))
    prometheus.stop()
    assert PROMTOOL
    done = subprocess.run(
        [PROMTOOL, "tsdb", "create-blocks-from", "openmetrics", "--quiet", text, prometheus.data],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    prometheus.start()

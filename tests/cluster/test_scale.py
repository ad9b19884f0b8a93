"""Many model deployments that have nothing to do: what must hold on any machine. For figures: `tests.cluster.scale`."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cluster.crd import install
from tests.cluster.figures import Figure
from tests.cluster.lab.cluster import Cluster
from tests.cluster.scale import Bench

#: Enough that what each needs shows beside what the process needs for itself.
COUNT = 40
#: Bytes of memory a model deployment, generously: 300 took a quarter of it each.
MOST = 300e3
#: 404: whether there is a last good spec already; 409: an Event that was posted before.
EXPECTED = ("200", "201", "404", "409")


@pytest.mark.timeout(600, func_only=True)
def test_many_are_reconciled_and_then_rest(cluster: Cluster, namespace: str, tmp_path: Path, figure: Figure) -> None:
    install(cluster)
    scale = Bench(cluster, namespace, tmp_path).measure(COUNT, rest=6, patience=300)
    figure(scale.table())
    failed = {call: count for call, count in scale.calls.items() if call.partition(" ")[2] not in EXPECTED}
    assert not failed
    # A list of everything, once in five minutes, may fall into it.
    assert not {call: count for call, count in scale.calls_at_rest.items() if not call.startswith("GET ")}
    assert scale.per_deployment < MOST
    assert not [line for line in scale.log.splitlines() if " ERROR " in line or "Traceback" in line]

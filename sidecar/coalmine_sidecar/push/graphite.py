"""Graphite, by its plaintext protocol."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Final

from prometheus_client.bridge.graphite import GraphiteBridge
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from . import family
from .family import Family
from .receivers import PushError
from .settings import TIMEOUT

#: Samples that the thread writes at a stretch (about a millisecond), and seconds that it rests then.
AT_A_STRETCH: Final = 32
REST: Final = 0.001


class Graphite:
    """By prometheus_client's bridge, in a thread: it knows no event loop.

    Every series has the pod's name in it (`pod`): without, the pods of a revision would write over each other's.
    """

    kind = "graphite"

    def __init__(
        self, address: tuple[str, int], *, prefix: str = "", tags: bool = True, timeout: float = TIMEOUT
    ) -> None:
        self.name = f"metrics to Graphite at {address[0]}:{address[1]}"
        self._address = address
        self._prefix = prefix
        self._tags = tags
        self._timeout = timeout

    async def push(self, metrics: Sequence[Family], resource: Mapping[str, str]) -> None:
        pod = resource.get("service.instance.id", "")
        bridge = GraphiteBridge(
            self._address, registry=_Of(metrics, pod), timeout_seconds=self._timeout, tags=self._tags
        )
        try:
            await asyncio.to_thread(bridge.push, self._prefix)
        except TimeoutError:
            raise PushError(f"took nothing within {self._timeout:g} s") from None
        except OSError as error:
            raise PushError(f"no connection: {error.strerror or error}") from None

    async def close(self) -> None:
        pass


class _Of(Collector):
    """Metrics that were collected already, in the event loop that writes them, as Graphite takes them.

    In pieces with a rest behind each: the event loop gets its turn from a thread that rests at once, and from one
    that writes for long only after 5 ms (the interpreter's switch interval).
    """

    def __init__(self, metrics: Iterable[Family], pod: str) -> None:
        self._metrics = metrics
        self._pod = pod or "none"

    def collect(self) -> Iterable[Metric]:
        for metric in self._metrics:
            samples = iter(metric.samples)
            while some := list(islice(samples, AT_A_STRETCH)):
                piece = Metric(metric.name, metric.documentation, metric.type)
                # Not a number is nothing to Graphite.
                piece.samples = [self._of_pod(sample) for sample in some if not math.isnan(sample.value)]
                yield piece
                time.sleep(REST)

    def _of_pod(self, sample: family.Sample) -> Sample:
        # An empty part of a name breaks its path.
        labels = {name: value or "none" for name, value in sample.labels.items()}
        labels["pod"] = self._pod
        return Sample(sample.name, labels, sample.value)

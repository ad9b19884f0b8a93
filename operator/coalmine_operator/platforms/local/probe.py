"""Is a model ready to answer? As Kubernetes asks: an HTTP GET with a period, a timeout and two thresholds."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

import aiohttp
from msgspec import Struct

from ...api.spec import Model
from ...render import container

#: An endpoint the server does not have answers so; the next candidate is asked.
_NO_SUCH_ENDPOINT: Final = (404, 405, 501)
#: The longest pause between two questions to a model that is starting: people wait for it.
STARTING_PERIOD: Final = 0.2


class Probe(Struct, frozen=True, kw_only=True):
    """When and what to ask. `paths`: the first one that exists decides. `port`: None for the model's own."""

    paths: tuple[str, ...]
    port: int | None = None
    headers: dict[str, str] = {}
    scheme: str = "http"
    tcp: bool = False  # no path exists: a server that takes connections is ready
    initial_delay: float = 0.0
    period: float = 2.0
    timeout: float = 1.0
    success_threshold: int = 1
    failure_threshold: int = 3


def probe_for(model: Model, readiness: container.Probe | None) -> Probe:
    """The probe of a container: its own `readinessProbe.httpGet`, or else the protocol's ready endpoints."""
    if readiness is not None:
        return Probe(
            paths=(readiness.path,),
            port=readiness.port,
            headers=dict(readiness.headers),
            scheme=readiness.scheme,
            initial_delay=readiness.initial_delay,
            period=readiness.period,
            timeout=readiness.timeout,
            success_threshold=readiness.success_threshold,
            failure_threshold=readiness.failure_threshold,
        )
    name = quote(model.name, safe="")
    v2 = (f"/v2/models/{name}/ready", "/v2/health/ready")
    v1 = (f"/v1/models/{name}",)
    if model.protocol == "v2":
        return Probe(paths=v2)
    if model.protocol == "v1":
        return Probe(paths=v1)
    if model.protocol == "openai":
        # The API itself has no such endpoint, and may want a key; this is vLLM's, llama.cpp's and many others'.
        return Probe(paths=("/health",), tcp=True)
    return Probe(paths=(*v2, *v1), tcp=True)


async def ask(session: aiohttp.ClientSession, port: int, probe: Probe) -> bool:
    """Ask once whether what listens on the loopback `port` is ready."""
    for path in probe.paths:
        try:
            async with session.get(
                f"{probe.scheme}://127.0.0.1:{probe.port or port}{path}",
                headers=probe.headers,
                timeout=aiohttp.ClientTimeout(total=probe.timeout),
                allow_redirects=False,
                ssl=False,  # kubelet does not verify either
            ) as answer:
                if answer.status in _NO_SUCH_ENDPOINT and (len(probe.paths) > 1 or probe.tcp):
                    continue
                return 200 <= answer.status < 400
        except aiohttp.ClientConnectorError:
            return False
        except TimeoutError:
            return False
        except aiohttp.ClientError:
            break  # something answers, but no HTTP
    return probe.tcp


class Judge:
    """Answers in a row against the thresholds of a probe: flips only when one is reached."""

    def __init__(self, probe: Probe, *, ready: bool = False) -> None:
        self._probe = probe
        self._run = 0
        self.ready = ready

    def take(self, answer: bool) -> bool:
        """Count an answer; true where `ready` flipped."""
        self._run = self._run + 1 if answer != self.ready else 0
        needed = self._probe.failure_threshold if self.ready else self._probe.success_threshold
        if self._run < needed:
            return False
        self.ready, self._run = answer, 0
        return True

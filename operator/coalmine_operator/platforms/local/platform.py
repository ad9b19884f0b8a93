"""The local platform: all model deployments of one manifest file, as processes of this machine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import aiohttp
from msgspec.structs import replace

from coalmine_sidecar.monitoring import Monitored

from ...api.problems import Invalid
from ...api.status import Status
from ...engine.model import Observed, Plan
from ...sources.snapshots import Traffic
from ..base import Desired
from .deployment import LocalDeployment, PodView
from .manifest import Reading, Wanted, read, watch
from .ports import LOOPBACK, Ingress
from .process import alive, mark_of, strays
from .refused import Refused
from .signature import signature
from .state import LastGood, StateDirectory

logger = logging.getLogger("coalmine")

#: Between the ingress ports of two deployments of one file.
PORT_STRIDE: Final = 10
#: Seconds between looks at the sidecars' counters, so that `seen` and `traffic` are never older.
REFRESH: Final = 1.0


class LocalPlatform:
    """See `platforms.base.Platform`. Call `start` first and `stop` last."""

    def __init__(
        self,
        manifest: Path,
        state: Path,
        *,
        host: str = LOOPBACK,
        port: int = 8008,
        drain_timeout: float = 10.0,
        grace_cap: float = 10.0,
    ) -> None:
        """`port`: ingress of the first deployment; the others follow in strides of ten. Seconds: `drain_timeout` bounds
        the requests in flight when a pod ends, `grace_cap` its terminationGracePeriodSeconds."""
        self._path = manifest.absolute()
        self._state_path = state.absolute()
        self._host, self._port = host, port
        self._drain_timeout, self._grace_cap = drain_timeout, grace_cap
        self._deployments: dict[str, LocalDeployment] = {}
        self._listeners: list[Callable[[str], None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._said: tuple[str, ...] = ()
        self._state: StateDirectory
        self._session: aiohttp.ClientSession

    async def start(self) -> None:
        """Read the manifest, take the state directory, adopt what an earlier `coalmine run` left.

        Raises Refused, with nothing started or changed, where the manifest is bad, the state directory is in use or
        not ours, or an ingress port is taken.
        """
        seen = signature(self._path)
        try:
            reading = read(self._path)
        except OSError as error:
            raise Refused(f"{self._path}: {error.strerror}") from error
        if reading.problems:
            raise Refused(*reading.problems)
        self._state = StateDirectory(self._state_path)
        # Pods are few and on this machine: no limit, so that one that hangs does not hold up the others.
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        try:
            self._take_up(reading)
        except Refused:
            await self._session.close()
            self._state.discard()
            raise
        await asyncio.gather(*(deployment.adopt() for deployment in self._deployments.values()))
        self._tasks = [
            asyncio.create_task(watch(self._path, seen, self._manifest_changed)),
            asyncio.create_task(self._housekeeping()),
        ]

    async def stop(self, *, leave: bool = False) -> None:
        """End all pods: sidecars drain, then models get SIGTERM, then what is left SIGKILL. Bounded in time.

        With `leave` they go on running, for the next `coalmine run` to adopt.
        """
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(d.stop(leave=leave) for d in self._deployments.values()))
        await self._session.close()
        self._state.close()

    # What the runtime asks; see platforms.base.Platform

    def keys(self) -> list[str]:
        return sorted(key for key, deployment in self._deployments.items() if not deployment.gone)

    async def desired(self, key: str) -> Desired | None:
        deployment = self._deployments.get(key)
        return deployment.desired() if deployment else None

    async def observe(self, key: str) -> Observed:
        return await self._deployments[key].observe()

    def seen(self, key: str) -> Observed:
        return self._deployments[key].seen()

    def traffic(self, key: str) -> Mapping[str, Traffic]:
        return self._deployments[key].traffic()

    def admins(self, key: str) -> Mapping[str, str]:
        """Where the sidecars' metrics are: `host:port` by pod."""
        return self._deployments[key].admins()

    def monitored(self, key: str) -> Mapping[str, Monitored]:
        return self._deployments[key].monitored()

    async def save(self, key: str, status: Status) -> None:
        self._deployments[key].save(status)

    async def apply(self, key: str, desired: Desired, plan: Plan) -> None:
        deployment = self._deployments[key]
        if not deployment.gone:
            await deployment.apply(desired, plan)

    def on_change(self, notify: Callable[[str], None]) -> None:
        self._listeners.append(notify)
        for key in self.keys():
            notify(key)

    # For front ends

    def ingress(self, key: str) -> str:
        """`host:port` that requests of a deployment go to."""
        return self._deployments[key].ingress.address

    def pods(self, key: str) -> list[PodView]:
        return self._deployments[key].pods()

    # The manifest

    def _take_up(self, reading: Reading) -> None:
        """What the state directory knows and what the first reading asks for. Raises Refused."""
        try:
            for name in self._state.names():
                self._restore(name, reading)
            for key, wanted in sorted(reading.good.items()):
                self._deployments[key] = self._placed(key, wanted, reading)
                self._check_port(self._deployments[key])
        except OSError as error:
            raise Refused(_one_line(error)) from error
        if failures := self._take(reading):
            raise Refused(*failures)

    def _restore(self, name: str, reading: Reading) -> None:
        manifest = self._state.deployment(name).read_manifest()
        if manifest is None:
            return
        metadata = manifest.document["metadata"]
        key = f"{metadata.get('namespace', 'default')}/{metadata['name']}"
        try:
            self._deployments[key] = self._make(key, manifest)
        except Invalid as error:
            # An earlier Coalmine took what this one does not.
            if key not in reading.good:
                raise Refused(
                    f"{self._state_path / name}: holds a manifest that is not good any more: {error}"
                ) from error
            document, generation = reading.good[key].document, manifest.generation + 1
            self._deployments[key] = self._make(key, replace(manifest, document=document, generation=generation))

    def _placed(self, key: str, wanted: Wanted, reading: Reading) -> LocalDeployment:
        """The deployment of a good manifest, at a port that no other in the file and no pod that still ends has."""
        slots = {
            other.manifest.slot
            for name, other in self._deployments.items()
            if name != key and (name in reading.good or name in reading.bad or self._stays(other, reading))
        }
        free = next(slot for slot in range(len(slots) + 1) if slot not in slots)
        known = self._deployments.get(key)
        if known is None:
            return self._make(key, LastGood(document=wanted.document, generation=1, slot=free))
        if known.manifest.slot in slots:
            known.place(free, self._port_of(free))
        return known

    def _port_of(self, slot: int) -> int:
        return self._port + PORT_STRIDE * slot

    def _make(self, key: str, manifest: LastGood) -> LocalDeployment:
        namespace, name = key.split("/")
        return LocalDeployment(
            key,
            self._state.deployment(name if namespace == "default" else f"{namespace}.{name}"),
            manifest,
            folder=self._path.parent,
            ingress=Ingress(self._host, self._port_of(manifest.slot)),
            session=self._session,
            notify=self._notify,
            drain_timeout=self._drain_timeout,
            grace_cap=self._grace_cap,
        )

    def _check_port(self, deployment: LocalDeployment) -> None:
        """Raises Refused where somebody else has the port; sidecars that an earlier run left are ours."""
        pods = [pod for pod in deployment.files.pods() if pod.ingress == deployment.ingress.address]
        if any(pod.sidecar and alive(pod.sidecar) for pod in pods):
            return
        try:
            deployment.ingress.check()
        except Refused:
            if not any(strays(mark_of("sidecar", deployment.files.pod_directory(pod.name))) for pod in pods):
                raise

    def _take(self, reading: Reading) -> list[str]:
        """Make the good manifests the wanted ones; answers why some could not be.

        What is not in the file any more goes, but only by a file without a problem: a bad document may be about any
        deployment, whatever name it gives itself.
        """
        running = {key for key, deployment in self._deployments.items() if not deployment.gone}
        strays = tuple(line for key, lines in reading.bad.items() if key not in running for line in lines)
        failures = []
        for key, deployment in self._deployments.items():
            try:
                if key in reading.good:
                    deployment.accept(reading.good[key])
                elif key not in running:
                    continue
                elif reading.bad:
                    deployment.problems = reading.bad.get(key) or strays or (self._missing(key),)
                else:
                    deployment.remove()
            except OSError as error:
                failures.append(f"{key}: its new manifest cannot be kept: {_one_line(error)}")
                deployment.problems = (failures[-1],)
        return failures

    def _missing(self, key: str) -> str:
        return f"{self._path.name}: {key} is not in it, and goes when its other manifests are good"

    def _manifest_changed(self, reading: Reading) -> bool:
        """Answers False where not all of it could be taken now."""
        failures: list[str] = []
        if reading.broken:
            for deployment in self._deployments.values():
                deployment.problems = reading.broken
        else:
            reading, failures = self._admit(reading)
            failures += self._take(reading)
        lines = tuple(dict.fromkeys((*reading.problems, *failures)))
        if lines != self._said:
            for line in lines:
                logger.warning("%s; the last good manifest holds", line)
        self._said = lines
        for key in self._deployments:
            self._notify(key)
        return not failures

    def _admit(self, reading: Reading) -> tuple[Reading, list[str]]:
        """Make room for deployments that were not there.

        Answers the reading with those that can have no place or no port among the bad ones, so that whatever they
        are to replace stays; and why the state directory has no place for some.
        """
        good: dict[str, Wanted] = {}
        bad = dict(reading.bad)
        failures: list[str] = []
        for key, wanted in sorted(reading.good.items()):
            known = self._deployments.get(key)
            try:
                if known is None or known.gone:
                    deployment = self._placed(key, wanted, reading)
                    self._check_port(deployment)
                    self._deployments[key] = deployment
            except Refused as error:
                bad[key] = tuple(f"{key}: not started: {line}" for line in error.lines)
            except OSError as error:
                bad[key] = (f"{key}: not started: {_one_line(error)}",)
                failures += bad[key]
            else:
                good[key] = wanted
        return Reading(good=good, bad=bad), failures

    def _stays(self, deployment: LocalDeployment, reading: Reading) -> bool:
        """It keeps its port though the file does not name it."""
        return bool(deployment.files.pods()) or (not deployment.gone and bool(reading.problems))

    def _notify(self, key: str) -> None:
        for listener in self._listeners:
            listener(key)

    async def _housekeeping(self) -> None:
        while True:
            await asyncio.sleep(REFRESH)
            for deployment in list(self._deployments.values()):
                try:
                    deployment.look_after_logs()
                except OSError as error:
                    logger.warning("%s: logs: %s", deployment.key, error)
                deployment.guard_files()
                await deployment.refresh()


def _one_line(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)

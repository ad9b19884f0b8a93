"""The clients in a cluster: `clients.py` inside a pod, its records read as they come."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter

from examples.load import DelayedLabels, Record

from .shell import Shell
from .stage import NAME
from .timeline import NotTrueError

IMAGE = "coalmine-demo-model:dev"
PYTHON = "/opt/model/bin/python3"
#: Seconds for the answers on their way when the clients are told to end.
END = 30.0


class Senders:
    """See `stage.Clients`. A record comes when its request has ended; labels come when all have."""

    def __init__(self, shell: Shell, namespace: str, *, rate: float) -> None:
        self.records: list[Record] = []
        self.labels = DelayedLabels(0.0)
        self.held_back = 0
        self._shell = shell
        self._namespace = namespace
        self._rate = rate
        self._process: asyncio.subprocess.Process | None = None
        self._patience: asyncio.Timeout | None = None

    @property
    def errors(self) -> list[Record]:
        return [record for record in self.records if record.error]

    async def start(self) -> None:
        """Make the pod that they send from. Raises NotTrueError."""
        where = f"--namespace {self._namespace}"
        await self._shell.run(
            f"kubectl run clients {where} --image {IMAGE} --image-pull-policy IfNotPresent --command -- sleep infinity"
        )
        await self._shell.run(f"kubectl wait {where} --for condition=Ready pod/clients --timeout 60s", timeout=70.0)

    async def run(self) -> None:
        """Raises NotTrueError if the clients end by themselves."""
        self._process = await self._shell.keep(
            f"kubectl exec --namespace {self._namespace} --stdin clients --"
            f" {PYTHON} /opt/model/examples/clients.py --url http://{NAME} --model {NAME} --rate {self._rate:g}"
        )
        try:
            async with asyncio.timeout(None) as self._patience:
                told = await self._read(self._process)
        except TimeoutError as error:
            raise NotTrueError(f"the clients did not end within {END:g} s: {self._shell.last_words()}") from error
        finally:
            self._patience = None
        if not told:
            raise NotTrueError(f"the clients ended by themselves: {self._shell.last_words()}")

    async def _read(self, process: asyncio.subprocess.Process) -> bool:
        """Take in what they write, to its end; whether they ended as they should, with their tally."""
        assert process.stdout is not None
        told = False
        async for line in process.stdout:
            read = json.loads(line)
            if "id" in read:
                self.records.append(Record(**read))
            else:
                told = True
                self.labels.right, self.labels.wrong = Counter(read["right"]), Counter(read["wrong"])
                self.held_back = read["held_back"]
        return told

    def stop(self) -> None:
        if self._patience is not None:
            self._patience.reschedule(asyncio.get_running_loop().time() + END)
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

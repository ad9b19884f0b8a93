"""What to start for a pod: the model's command line and that of its sidecar."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Final

from msgspec import Struct

from coalmine_sidecar.push.settings import ENVIRONMENT

from ...api.problems import Invalid
from ...api.warmup import warmup_text
from ...engine.model import RevisionRecord
from ...render.container import local_container
from ...render.monitoring import REDIS_PASSWORD
from ...render.tls import model_flags
from .probe import Probe, probe_for
from .state import PodRecord

#: What a sidecar needs of our environment; nothing else of it is the sidecar's business.
_SIDECAR_ENVIRONMENT: Final = (
    REDIS_PASSWORD,
    # Who gets its metrics without asking: on this machine no flag of ours says so.
    *ENVIRONMENT,
    "HOME",
    "LANG",
    "LC_ALL",
    "PATH",
    "PYTHONPATH",
    "SSL_CERT_FILE",
    "TMPDIR",
    "TZ",
    "VIRTUAL_ENV",
)


class Launch(Struct, frozen=True, kw_only=True):
    """A model's process. `grace`: seconds between SIGTERM and SIGKILL; limits: bytes and cores, 0: none.

    `warmup`: the value of the sidecar's flag; `tls`: its flags for the model's certificates.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: Path
    probe: Probe
    grace: float
    memory_limit: int = 0
    cpu_limit: float = 0.0
    warmup: str = ""
    tls: tuple[str, ...] = ()


def launch_of(record: RevisionRecord, folder: Path, port: int) -> Launch:
    """The model of a revision, to listen on `port`. `folder`: where relative paths start, the manifest's own.

    Raises OSError where the template cannot run on this machine: manifests are checked before, so an earlier Coalmine
    must have let it through.
    """
    try:
        container = local_container(record.template, model=record.model)
    except Invalid as error:
        raise OSError(errno.EINVAL, str(error)) from error
    # The tools a model needs (a virtual environment, CUDA) are found through the environment; our own settings and
    # tokens are none of its business.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COALMINE_")}
    return Launch(
        argv=container.argv(port),
        env={**inherited, **container.environment(port)},
        cwd=folder / container.working_dir,
        probe=probe_for(record.model, container.readiness),
        grace=container.termination_grace,
        memory_limit=container.memory_limit_bytes,
        cpu_limit=container.cpu_limit_cores,
        warmup=warmup_text(record.model),
        tls=tuple(model_flags(record.model.tls, str(folder))),
    )


def sidecar_argv(
    record: PodRecord,
    launch: Launch,
    *,
    routing: Path,
    pid_file: Path,
    ingress: int,
    local: int,
    admin: int,
    drain_timeout: float,
) -> list[str]:
    """`ingress`, `local`, `admin`: descriptors of the sockets it inherits."""
    return [
        sys.executable,
        "-m",
        "coalmine_sidecar",
        *("--routing", str(routing)),
        *("--revision", record.revision),
        *("--pod", record.name),
        *("--model", f"127.0.0.1:{record.port}"),
        *("--ingress", f"fd:{ingress}"),
        *("--local", f"fd:{local}"),
        *("--admin", f"fd:{admin}"),
        *("--model-pid-file", str(pid_file)),
        *("--memory-limit", str(launch.memory_limit)),
        *("--cpu-limit", f"{launch.cpu_limit:g}"),
        *("--drain-timeout", f"{drain_timeout:g}"),
        *(("--warmup", launch.warmup) if launch.warmup else ()),
        *launch.tls,
    ]


def sidecar_environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _SIDECAR_ENVIRONMENT if name in os.environ} | {"PYTHONUNBUFFERED": "1"}

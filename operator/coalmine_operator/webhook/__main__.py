"""`python -m coalmine_operator webhook`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import uvloop

from ..render.injection import InjectionSettings
from .server import WebhookError, WebhookSettings, serve

PREFIX = "COALMINE_"


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """The exit status: 0 told to end, 1 could not run, 2 flags that are wrong."""
    settings, level = read_settings(sys.argv[1:] if arguments is None else arguments, environ)
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        uvloop.run(serve(settings))
    except WebhookError as error:
        print(f"coalmine-webhook: {error}", file=sys.stderr)
        return 1
    return 0


def read_settings(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[WebhookSettings, int]:
    """Flags, or environment variables of the same names (`--sidecar-image`: COALMINE_SIDECAR_IMAGE); the log level."""
    parser = argparse.ArgumentParser(prog="coalmine-webhook", description="Admission webhooks of Coalmine.")

    def flag(name: str, default: str, what: str, *, choices: Sequence[str] | None = None) -> None:
        variable = PREFIX + name.upper().replace("-", "_")
        given = environ.get(variable, default)
        parser.add_argument(f"--{name}", default=given, choices=choices, help=f"{what}; or {variable}")

    flag("listen", "0.0.0.0:8443", "address of the HTTPS port")
    flag("certificate-folder", "/etc/coalmine/tls", "holds tls.crt and tls.key; waited for, and read anew")
    flag("sidecar-image", "", "image of the sidecar that pods get")
    flag("sidecar-pull-policy", "IfNotPresent", "of that image", choices=["Always", "IfNotPresent", "Never"])
    flag("sidecar-cpu-request", "50m", "CPU that a sidecar asks for")
    flag("sidecar-memory-request", "64Mi", "memory that a sidecar asks for")
    flag("sidecar-memory-limit", "256Mi", "memory that a sidecar may take")
    flag("log-level", "info", "how much is told", choices=["debug", "info", "warning", "error"])
    given = parser.parse_args(arguments)
    if not given.sidecar_image:
        parser.error("--sidecar-image: missing: give the image that pods get as their sidecar")
    host, colon, port = given.listen.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        parser.error(f"--listen: {given.listen!r} is no HOST:PORT")
    settings = WebhookSettings(
        injection=InjectionSettings(
            image=given.sidecar_image,
            image_pull_policy=given.sidecar_pull_policy,
            cpu_request=given.sidecar_cpu_request,
            memory_request=given.sidecar_memory_request,
            memory_limit=given.sidecar_memory_limit,
        ),
        folder=Path(given.certificate_folder),
        host=host.strip("[]"),
        port=int(port),
    )
    return settings, getattr(logging, given.log_level.upper())


if __name__ == "__main__":
    sys.exit(main())

"""`python -m coalmine_operator operator|webhook`: what the operator's image runs."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import uvloop

from .operating import OperatorError, OperatorSettings, operate
from .platforms.kubernetes import Settings
from .render.injection import InjectionSettings

PREFIX = "COALMINE_"


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """The exit status: 0 told to end, 1 could not run, 2 flags that are wrong."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["webhook"]:
        return int(importlib.import_module(".webhook.__main__", __package__).main(words[1:]))
    settings, level = read_settings(words, environ)
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if settings.kubeconfig is not None:
        os.environ["KUBECONFIG"] = str(settings.kubeconfig)  # where kopf looks
    try:
        uvloop.run(operate(settings))
    except OperatorError as error:
        print(f"coalmine-operator: {error}", file=sys.stderr)
        return 1
    return 0


def read_settings(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[OperatorSettings, int]:
    """Flags, or environment variables of the same names (`--sidecar-image`: COALMINE_SIDECAR_IMAGE); the log level."""
    parser = argparse.ArgumentParser(
        prog="coalmine-operator", description="Rolls out model servers. `webhook` as the first word runs the webhooks."
    )
    parser.add_argument("role", choices=["operator"])

    def flag(name: str, default: str, what: str, *, choices: Sequence[str] | None = None) -> None:
        variable = PREFIX + name.upper().replace("-", "_")
        given = environ.get(variable, default)
        parser.add_argument(f"--{name}", default=given, choices=choices, help=f"{what}; or {variable}")

    flag("sidecar-image", "", "image of the sidecar that new revisions get")
    flag("sidecar-pull-policy", "IfNotPresent", "of that image", choices=["Always", "IfNotPresent", "Never"])
    flag("sidecar-cpu-request", "50m", "CPU that a sidecar asks for")
    flag("sidecar-memory-request", "64Mi", "memory that a sidecar asks for")
    flag("sidecar-memory-limit", "256Mi", "memory that a sidecar may take")
    flag("namespaces", "", "namespaces to serve, with commas; none: all")
    flag("cluster-domain", "cluster.local", "where names of Services end")
    flag(
        "webhook-service", "", "NAMESPACE/NAME of the Service of the webhook whose certificate it keeps; none: of none"
    )
    flag("kubeconfig", environ.get("KUBECONFIG", ""), "a kubeconfig file; none: the pod's service account")
    flag("listen", "0.0.0.0:8080", "address of the web port")
    flag("alerts-token-file", "", "bearer token of Alertmanager's webhook")
    flag("api-token-file", "", "bearer token of the API")
    flag("log-level", "info", "how much is told", choices=["debug", "info", "warning", "error"])
    given = parser.parse_args(arguments)
    if not given.sidecar_image:
        parser.error("--sidecar-image: missing: give the image that revisions get as their sidecar")
    host, colon, port = given.listen.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        parser.error(f"--listen: {given.listen!r} is no HOST:PORT")
    settings = OperatorSettings(
        platform=Settings(
            injection=InjectionSettings(
                image=given.sidecar_image,
                image_pull_policy=given.sidecar_pull_policy,
                cpu_request=given.sidecar_cpu_request,
                memory_request=given.sidecar_memory_request,
                memory_limit=given.sidecar_memory_limit,
            ),
            namespaces=tuple(name for name in given.namespaces.replace(",", " ").split() if name),
            cluster_domain=given.cluster_domain,
            instance=environ.get("POD_NAME", "") or "coalmine-operator",
        ),
        webhook=_service(parser, given.webhook_service),
        kubeconfig=_path(given.kubeconfig),
        host=host.strip("[]"),
        port=int(port),
        alerts_token_file=_path(given.alerts_token_file),
        api_token_file=_path(given.api_token_file),
    )
    return settings, getattr(logging, given.log_level.upper())


def _service(parser: argparse.ArgumentParser, text: str) -> tuple[str, str] | None:
    namespace, slash, name = text.partition("/")
    if text and not (namespace and slash and name):
        parser.error(f"--webhook-service: {text!r} is no NAMESPACE/NAME")
    return (namespace, name) if text else None


def _path(text: str) -> Path | None:
    return Path(text) if text else None


if __name__ == "__main__":
    sys.exit(main())

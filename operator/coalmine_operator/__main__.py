"""`python -m coalmine_operator operator|webhook`: what the operator's image runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from .flags import Flags, log_level, set_up_logging

if TYPE_CHECKING:
    from .operating import OperatorSettings


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """The exit status: 0 told to end, 1 could not run, 2 flags that are wrong."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    # Each imports its own: kopf and a client of Kubernetes are 33 MB that the webhook has no use for.
    if words[:1] == ["webhook"]:
        from .webhook.__main__ import main as webhook

        return webhook(words[1:], environ)
    from .operating import OperatorError, operate

    settings, level = read_settings(words, environ)
    set_up_logging(level)
    try:
        uvloop.run(operate(settings))
    except OperatorError as error:
        print(f"coalmine-operator: {error}", file=sys.stderr)
        return 1
    return 0


def read_settings(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[OperatorSettings, int]:
    """Flags, or environment variables of the same names (`--sidecar-image`: COALMINE_SIDECAR_IMAGE); the log level."""
    from .operating import OperatorSettings
    from .platforms.kubernetes import Settings

    parser = argparse.ArgumentParser(
        prog="coalmine-operator", description="Rolls out model servers. `webhook` as the first word runs the webhooks."
    )
    parser.add_argument("role", choices=["operator"])
    flags = Flags(parser, environ)
    flags.add_common(listen="0.0.0.0:8080")
    flags.add("namespaces", "", "namespaces to serve, with commas; none: all")
    flags.add("cluster-domain", "cluster.local", "where names of Services end")
    flags.add(
        "webhook-service", "", "NAMESPACE/NAME of the Service of the webhook whose certificate it keeps; none: of none"
    )
    flags.add(
        "kubeconfig",
        environ.get("KUBECONFIG", ""),
        "a kubeconfig file with a token or a certificate; none: the pod's service account",
    )
    flags.add("alerts-token-file", "", "bearer token of Alertmanager's webhook")
    flags.add("api-token-file", "", "bearer token of the API")
    given = parser.parse_args(arguments)
    host, port = flags.address(given)
    settings = OperatorSettings(
        platform=Settings(
            injection=flags.injection(given),
            namespaces=tuple(name for name in given.namespaces.replace(",", " ").split() if name),
            cluster_domain=given.cluster_domain,
            instance=environ.get("POD_NAME", "") or "coalmine-operator",
        ),
        webhook=_service(parser, given.webhook_service),
        kubeconfig=_path(given.kubeconfig),
        host=host,
        port=port,
        alerts_token_file=_path(given.alerts_token_file),
        api_token_file=_path(given.api_token_file),
        push=flags.push(given),
    )
    return settings, log_level(given)


def _service(parser: argparse.ArgumentParser, text: str) -> tuple[str, str] | None:
    namespace, slash, name = text.partition("/")
    if text and not (namespace and slash and name):
        parser.error(f"--webhook-service: {text!r} is no NAMESPACE/NAME")
    return (namespace, name) if text else None


def _path(text: str) -> Path | None:
    return Path(text) if text else None


if __name__ == "__main__":
    sys.exit(main())

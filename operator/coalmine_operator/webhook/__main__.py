"""`python -m coalmine_operator webhook`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import uvloop

from ..flags import Flags, log_level, set_up_logging
from .server import WebhookError, WebhookSettings, serve


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """The exit status: 0 told to end, 1 could not run, 2 flags that are wrong."""
    settings, level = read_settings(sys.argv[1:] if arguments is None else arguments, environ)
    set_up_logging(level)
    try:
        uvloop.run(serve(settings))
    except WebhookError as error:
        print(f"coalmine-webhook: {error}", file=sys.stderr)
        return 1
    return 0


def read_settings(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[WebhookSettings, int]:
    """Flags, or environment variables of the same names (`--sidecar-image`: COALMINE_SIDECAR_IMAGE); the log level."""
    flags = Flags(argparse.ArgumentParser(prog="coalmine-webhook", description="Admission webhooks."), environ)
    flags.add_common(listen="0.0.0.0:8443")
    flags.add("certificate-folder", "/etc/coalmine/tls", "holds tls.crt and tls.key; waited for, and read anew")
    given = flags.parser.parse_args(arguments)
    host, port = flags.address(given)
    folder = Path(given.certificate_folder)
    return WebhookSettings(injection=flags.injection(given), folder=folder, host=host, port=port), log_level(given)


if __name__ == "__main__":
    sys.exit(main())

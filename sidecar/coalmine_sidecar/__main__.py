"""`python -m coalmine_sidecar`: one sidecar beside one model server."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Sequence

import uvloop

from .server import StartError, serve
from .settings import read_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sidecar; the exit status: 0 drained, 1 told twice to end, 2 could not start."""
    settings = read_settings(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s %(levelname)s sidecar {settings.pod}: %(message)s")
    # Requests free what they make by reference counts; the collector is for what tears, and need not run for each
    # few hundred of them.
    gc.set_threshold(20_000, 20, 20)
    try:
        return uvloop.run(serve(settings))
    except StartError as error:
        print(f"coalmine-sidecar: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

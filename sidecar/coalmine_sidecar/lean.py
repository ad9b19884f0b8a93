"""`aiohttp.web` without what its import brings for clients, of which the sidecar has none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

#: Where OpenSSL looks for authorities if nobody names any.
_PLACES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")


@contextmanager
def _no_authorities() -> Iterator[None]:
    kept = {name: os.environ.get(name) for name in _PLACES}
    os.environ.update(dict.fromkeys(_PLACES, os.devnull))
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# aiohttp's client, which comes with its server, reads the system's certificate authorities when it is imported: 2 MB of
# memory and a tenth of a second for each pod.
with _no_authorities():
    from aiohttp import web

__all__ = ["web"]

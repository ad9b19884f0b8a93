"""A TLS server's certificate from files, taken anew when they change: no restart, no connection lost."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from pathlib import Path
from typing import Final

#: Seconds between two looks. A renewed certificate has weeks.
PERIOD: Final = 2.0

log = logging.getLogger(__name__)

_Mark = tuple[tuple[int, int], ...]


class CertificateFiles:
    """`context` shows what the files held when they were last right; what is wrong is told once."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self._mark: _Mark = ()
        self._told = ""
        self.context = _context()
        self.loaded = False

    def look(self) -> bool:
        """Whether the certificate is another one now."""
        try:
            mark = tuple((status.st_mtime_ns, status.st_ino) for status in map(os.stat, self._files))
        except OSError as error:
            self._mark = ()
            self._tell(f"{error.filename}: {error.strerror}")
            return False
        if mark == self._mark:
            return False
        self._mark = mark
        try:
            # A context that fails half-way shows a certificate without its key: so first one that nobody uses.
            for context in (_context(), self.context):
                context.load_cert_chain(*self._files, password=_no_password)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            self._tell(f"{self._files[0]}, {self._files[1]}: no certificate and its key: {error}")
            return False
        log.info("certificate %s: in use", self._files[0])
        self._told = ""
        self.loaded = True
        return True

    async def follow(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(PERIOD if self.loaded else PERIOD / 10)
            self.look()

    def _tell(self, message: str) -> None:
        if message != self._told:
            self._told = message
            log.warning("%s; %s", message, "the last good one stays in use" if self.loaded else "waiting for it")


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _no_password() -> str:
    """Asked for encrypted keys, which would otherwise be a question on the terminal."""
    raise ValueError("the key is encrypted")

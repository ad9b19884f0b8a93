"""The routing file on the disk: written whole, only when it says something new, its generation never going back."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from coalmine_sidecar.contract import Routing, RoutingError, decode_routing, encode_routing

from ...render.routing import same_but_generation
from .signature import Signature, signature
from .state import write_atomically

logger = logging.getLogger("coalmine")


class RoutingFile:
    """Sidecars poll it. The generation lives in the file itself, so it survives whoever writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.generation = 0
        self._routing: Routing | None = None
        self._written: Signature = signature(path)
        try:
            self._routing = decode_routing(path.read_bytes())
            self.generation = self._routing.generation
        except FileNotFoundError:
            pass
        except (OSError, RoutingError) as error:
            logger.warning("%s: %s; it is written anew", path, error)
            self.generation = int(time.time())  # larger than any count of changes

    @property
    def touched(self) -> bool:
        """Somebody else wrote, replaced or removed the file."""
        return self._routing is not None and signature(self.path) != self._written

    def put(self, routing: Routing) -> bool:
        """Write `routing`, whose generation is the next one, unless that is all it changes. Raises OSError."""
        if self.touched:
            logger.warning("%s: was changed by somebody else; it is written anew", self.path)
        elif self._routing and same_but_generation(routing, self._routing):
            return False
        write_atomically(self.path, encode_routing(routing))
        self._routing, self.generation, self._written = routing, routing.generation, signature(self.path)
        return True

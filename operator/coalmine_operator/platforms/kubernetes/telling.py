"""What people hear of one model deployment, as Kubernetes Events: of its steps, and of what stands in their way."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from ...api.status import Status, Told
from .events import Poster
from .held import Held

logger = logging.getLogger("coalmine")

#: Warnings that are remembered as told.
_MAX_WARNED: Final = 50
#: Seconds for which events of a status may not have been told: a dead operator is replaced by then.
_UNTOLD: Final = 600.0
#: Seconds that the time of an event loses on its way through the API server; events are further apart.
_LOST: Final = 2e-6


class Teller:
    """`about`: the model deployment as last seen, None when it is gone."""

    def __init__(self, key: str, poster: Poster, about: Callable[[], Held | None]) -> None:
        self._key = key
        self._poster = poster
        self._about = about
        self._warned: set[str] = set()
        #: The time of the newest event told. At first, of what a dead operator may have left untold.
        self._until = time.time() - _UNTOLD

    def saved(self, status: Status) -> None:
        """The events of a status that is durable, each once."""
        held = self._about()
        for told in status.events if held else ():
            if held and told.at > self._until + _LOST:
                self._poster.tell(held, told)
                self._until = told.at

    def say(self, reason: str, message: str, *, warning: bool = False) -> None:
        """What is no step's."""
        if held := self._about():
            self._poster.tell(held, self._told(reason, message, warning))

    def once(self, reason: str, message: str, *, warning: bool = True, mark: str = "") -> None:
        """What stays as it is for a while, and is seen at every look. `mark`: the same, in whatever words."""
        mark = mark or message
        if mark in self._warned:
            return
        if len(self._warned) >= _MAX_WARNED:
            self._warned.clear()
        self._warned.add(mark)
        if held := self._about():
            self._poster.tell_once(held, self._told(reason, message, warning))

    def _told(self, reason: str, message: str, warning: bool) -> Told:
        logger.log(logging.WARNING if warning else logging.INFO, "%s: %s", self._key, message)
        return Told(reason=reason, message=message, warning=warning, at=time.time())

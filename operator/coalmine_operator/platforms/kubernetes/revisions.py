"""The revisions of one model deployment, as its ControllerRevisions keep them."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ...api.problems import Invalid
from ...render.records import Kept, kept
from .held import Held

logger = logging.getLogger("coalmine")


class Revisions:
    """Read once, and remembered: a record that somebody deletes is put back, for nobody else knows what it said."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, Kept]] = {}

    def read(self, controller_revisions: Iterable[Held]) -> dict[str, Kept]:
        """By name. What is no record of ours is left alone."""
        for held in controller_revisions:
            known = self._known.get(held.name)
            if known is None or known[0] != held.version:
                try:
                    self._known[held.name] = (held.version, kept(held.body))
                except Invalid as error:
                    logger.debug("%s: %s is left alone: %s", held.key, held.name, error)
        return {name: one for name, (_, one) in self._known.items()}

    def forget_all_but(self, names: Iterable[str]) -> None:
        wanted = set(names)
        self._known = {name: one for name, one in self._known.items() if name in wanted}

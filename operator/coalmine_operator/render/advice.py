"""What is taken and is hardly meant: a line each, for `coalmine lint` and for whoever applies the manifest. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ..api.duration import show_seconds
from ..api.spec import ModelDeploymentSpec
from .rules import EVERY

#: Steps of the rules in a window: a rate is of two scrapes, which mostly are as far apart as two steps.
_STEPS: Final = 2


def advice(spec: ModelDeploymentSpec) -> Iterator[str]:
    if spec.monitoring is None:
        return
    window = spec.monitoring.drift.window
    if window < _STEPS * EVERY:
        yield (
            f"spec.monitoring.drift.window: {window} is short for rules that look once in {show_seconds(EVERY)}: "
            f"much of the data is in no window; write {show_seconds(_STEPS * EVERY)} or more"
        )

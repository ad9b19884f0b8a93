"""Words of PromQL that all rules are put together from."""

from __future__ import annotations

import json
import math
from typing import Any, Final

from msgspec import Struct

from ...api.duration import show_seconds

Rule = dict[str, Any]

#: Every figure is one of a version: counts of two versions are never added.
VERSION: Final = "model, version"
#: Of a standard normal variable: 95 % lie between -z and z.
Z95: Final = 1.959963984540054
#: What sampling alone exceeds once in a thousand windows.
RARE: Final = 0.001
_Z_RARE: Final = 3.090232306167813


class Scope(Struct, frozen=True, kw_only=True):
    """Which series are one model deployment's. `window`: of all counts, as PromQL writes a duration.

    The sidecars' series carry `namespace` and `modeldeployment` where the PodMonitor, or whoever scrapes, adds them.
    One that does not is no reason to be blind: an absent label matches, too. What is recorded always has both.
    """

    namespace: str
    deployment: str
    model: str
    window: str = "1h"

    @property
    def labels(self) -> dict[str, str]:
        return {"namespace": self.namespace, "modeldeployment": self.deployment}

    @property
    def deployed(self) -> str:
        """Labels of what the operator tells of the model deployment itself."""
        return f'namespace="{self.namespace}", name="{self.deployment}"'

    def raw(self, name: str, more: str = "") -> str:
        """Series of the sidecars and the operator."""
        where = f'namespace=~"|{self.namespace}", modeldeployment=~"|{self.deployment}"'
        return f"{name}{{model={quoted(self.model)}, {where}{', ' if more else ''}{more}}}"

    def own(self, name: str, more: str = "") -> str:
        """Series that these rules recorded."""
        where = f'namespace="{self.namespace}", modeldeployment="{self.deployment}"'
        return f"{name}{{{where}{', ' if more else ''}{more}}}"

    def increase(self, name: str, by: str = VERSION, more: str = "", window: str = "") -> str:
        """What a counter of all pods grew by."""
        return f"sum by ({by}) (increase({self.raw(name, more)}[{window or self.window}]))"

    def gauge(self, name: str, by: str = VERSION, more: str = "") -> str:
        """A gauge that several may tell alike."""
        return f"max by ({by}) ({self.raw(name, more)})"

    def recorded(self, name: str, by: str = VERSION, more: str = "") -> str:
        """A recorded series with no labels but these: such match each other without `on`."""
        return f"sum by ({by}) ({self.own(name, more)})"

    def record(self, name: str, expr: str, **labels: str) -> Rule:
        return {"record": name, "expr": expr.strip(), "labels": self.labels | labels}


def quoted(text: str) -> str:
    """`text` as a string of PromQL, whose escapes are Go's: JSON's are among them."""
    return json.dumps(text, ensure_ascii=False)


def duration(seconds: float) -> str:
    """As PromQL writes it, which knows no fractions of a unit."""
    return show_seconds(seconds) if seconds == int(seconds) else f"{round(seconds * 1000)}ms"


def number(value: float) -> str:
    """The shortest text that reads back as this very number."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


def ratio(part: str, whole: str) -> str:
    """Nothing, and no NaN, where there is nothing to divide by."""
    return f"{part}\n/ ({whole} > 0)"


def chi2_rare(df: str) -> str:
    """The quantile of chi-square that is exceeded once in a thousand, for `df` degrees of freedom (an expression).

    Wilson and Hilferty's approximation (Proc. Natl. Acad. Sci. 17, 1931): a cube of something normal. It is too large
    by 3 % for one degree, by 0.5 % for eleven, and never too small. In PromQL, since each version has bins of its own.
    """
    return f"{df} * (1 - 2 / (9 * {df}) + {number(_Z_RARE)} * sqrt(2 / (9 * {df}))) ^ 3"


def chi2_rare_value(df: int) -> float:
    """`chi2_rare` computed here."""
    return df * (1 - 2 / (9 * df) + _Z_RARE * math.sqrt(2 / (9 * df))) ** 3


def wilson(hits: str, trials: str, sign: str) -> str:
    """A bound (`sign` - or +) of Wilson's 95 % interval of hits / trials, two expressions with the same labels.

    (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n) (Wilson, J. Am. Stat. Assoc. 22, 1927), with hits k = p n.
    """
    z, z2 = number(Z95), number(Z95**2)
    root = f"sqrt(({hits}) * (({trials}) - ({hits})) / ({trials}) + {number(Z95**2 / 4)})"
    return f"(({hits}) + {number(Z95**2 / 2)} {sign} {z} * {root})\n/ (({trials} > 0) + {z2})"

"""Kubernetes' quantities: `512Mi`, `500m`, `2`, `1e3`. Exact, as fractions."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
_SCALES: Final = {
    "": Fraction(1),
    **{prefix: Fraction(1, 1000**power) for power, prefix in enumerate("mun", 1)},
    **{prefix: Fraction(1000**power) for power, prefix in enumerate("kMGTPE", 1)},
    **{f"{prefix}i": Fraction(1024**power) for power, prefix in enumerate("KMGTPE", 1)},
}
_QUANTITY: Final = re.compile(
    r"(?P<number>[-+]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30}))"
    r"(?:(?P<suffix>[munkMGTPE]|[KMGTPE]i)|[eE](?P<exponent>[-+]?[0-9]{1,2}))?"
)


def parse_quantity(text: str) -> Fraction:
    """Raises ValueError, with the remedy, where the text is no quantity or is negative."""
    found = _QUANTITY.fullmatch(text)
    if not found:
        raise ValueError("is no quantity: write it like 512Mi, 2Gi, 500m or 2")
    number = Fraction(found["number"])
    if number < 0:
        raise ValueError("is under 0")
    return number * _SCALES[found["suffix"] or ""] * Fraction(10) ** int(found["exponent"] or 0)

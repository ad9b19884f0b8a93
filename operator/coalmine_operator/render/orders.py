"""Orders by annotation: `kubectl annotate md/fraud coalmine.dev/promote=fraud-1a2b3c4d5e`, and who gave them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, get_args

import msgspec

from ..api.spec import GROUP
from ..engine.model import Verb

#: `refresh` is for the platform: pods of the present revisions get the sidecar of the operator's version.
REFRESH: Final = "refresh"
VERBS: Final = (*get_args(Verb), REFRESH)
#: By verb: its annotation. The value is the revision that is meant, or empty for the present one.
ANNOTATIONS: Final = {verb: f"{GROUP}/{verb}" for verb in VERBS}
#: JSON, verb -> user. Written by the webhook alone: what others write there does not last.
ORDERED_BY: Final = f"{GROUP}/ordered-by"


def ordered_by(annotations: Mapping[str, Any], verb: str) -> str:
    """The user who gave the order that stands in `annotations`; empty where nobody knows (no webhook)."""
    return _known(annotations).get(verb, "")


def stamp(old: Mapping[str, Any], new: Mapping[str, Any], user: str) -> dict[str, Any]:
    """`new` annotations as `user` sent them instead of `old`, with who gave which order.

    An order that stood there before keeps its author; an order that is taken away takes its author along.
    """
    known = _known(old)
    authors = {}
    for verb, annotation in ANNOTATIONS.items():
        if annotation not in new:
            continue
        same = annotation in old and old[annotation] == new[annotation]
        authors[verb] = known.get(verb, "") if same else user
    stamped = {key: value for key, value in new.items() if key != ORDERED_BY}
    authors = {verb: author for verb, author in authors.items() if author}
    if authors:
        stamped[ORDERED_BY] = msgspec.json.encode(authors).decode()
    return stamped


def _known(annotations: Mapping[str, Any]) -> dict[str, str]:
    try:
        return msgspec.json.decode(annotations.get(ORDERED_BY, ""), type=dict[str, str])
    except (msgspec.MsgspecError, TypeError):
        return {}

"""What the parts of a spec are made of: their base, and the kinds of text and numbers that several of them hold."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

# A description says in words what a pattern lets through: it is the remedy in the message.
Name = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=63,
        pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        description="lower-case letters, digits and -, with a letter or digit at both ends",
    ),
]
VersionName = Annotated[
    str,
    Meta(
        max_length=63,
        pattern="^([A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?)?$",
        description="letters, digits, -, _ and ., with a letter or digit at both ends",
    ),
]
Percent = Annotated[int, Meta(ge=0, le=100)]
Port = Annotated[int, Meta(ge=1, le=65535)]
SecretName = Annotated[str, Meta(max_length=253)]
FileName = Annotated[str, Meta(max_length=1024)]
Text = Annotated[str, Meta(min_length=1, max_length=253)]


class SpecPart(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What all parts of the spec share."""

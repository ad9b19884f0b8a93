"""How the operator stands in its cluster."""

from __future__ import annotations

from msgspec import Struct

from ...render.injection import InjectionSettings


class Settings(Struct, frozen=True, kw_only=True):
    """`injection`: what revisions get. `namespaces`: those it serves, none for all. `instance`: who tells of events.

    `cluster_domain` ends the DNS names of Services, which sidecars resolve.
    """

    injection: InjectionSettings
    namespaces: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    instance: str = "coalmine"

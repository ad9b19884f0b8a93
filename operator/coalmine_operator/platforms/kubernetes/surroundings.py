"""What all model deployments of a platform share."""

from __future__ import annotations

from collections.abc import Callable

import aiohttp
from msgspec import Struct

from .applying import Applier
from .cache import Cache
from .client import Client
from .events import Poster
from .settings import Settings


class Surroundings(Struct, frozen=True, kw_only=True):
    """`session` asks sidecars. `notify(key)`: something about a model deployment changed."""

    client: Client
    cache: Cache
    applier: Applier
    poster: Poster
    session: aiohttp.ClientSession
    settings: Settings
    notify: Callable[[str], None]

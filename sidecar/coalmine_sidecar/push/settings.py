"""Where metrics are pushed to, as the sidecar's flags say."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ..outward import http_url

INTERVAL: Final = 15.0
#: Where a receiver of OTLP over HTTP takes metrics, from its base on.
_METRICS: Final = "/v1/metrics"


class PushSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`graphite`: host and port, None: none; `otlp`: the whole URL, empty: none; `interval`: seconds.

    `prefix`: before every name that Graphite gets. `tags`: labels are Graphite's tags (1.1 and newer), else they are
    parts of the name.
    """

    graphite: tuple[str, int] | None = None
    prefix: str = ""
    tags: bool = True
    otlp: str = ""
    interval: float = INTERVAL

    def __bool__(self) -> bool:
        return self.graphite is not None or bool(self.otlp)


def otlp_url(text: str) -> str:
    """The URL for metrics of a receiver whose base or whole URL is given; empty stays empty. Raises ValueError."""
    if not text:
        return ""
    url = http_url(text)
    path = url.path.rstrip("/")
    return str(url if path.endswith(_METRICS) else url.with_path(path + _METRICS, keep_query=True))


def graphite_prefix(text: str) -> str:
    """Raises ValueError with one line."""
    if text and not all(
        part and part.isascii() and part.replace("_", "").replace("-", "").isalnum() for part in text.split(".")
    ):
        raise ValueError(f"{text[:64]!r} is no prefix of letters, digits, _ and -, with dots between its parts")
    return text


def take_push(given: dict[str, Any]) -> PushSettings:
    """Taken out of the flags. Raises ValueError with one line."""
    settings = PushSettings(
        graphite=given.pop("graphite"),
        prefix=given.pop("graphite_prefix"),
        tags=given.pop("graphite_tags") == "true",
        otlp=given.pop("otlp"),
        interval=given.pop("push_interval"),
    )
    if settings and settings.interval < 1:
        raise ValueError(f"--push-interval: {settings.interval:g} is under 1 second")
    return settings

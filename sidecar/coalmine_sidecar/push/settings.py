"""Where metrics are pushed to, as flags say, or variables of the same names, or OpenTelemetry's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from ..outward import split_address
from .standard import VARIABLES, Headers, metrics_url, read_standard

INTERVAL: Final = 15.0
#: Seconds for one push.
TIMEOUT: Final = 5.0
_PREFIX: Final = "COALMINE_"


class PushSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`graphite`: host and port, None: none; `otlp`: the whole URL, empty: none; `interval`: seconds.

    `prefix`: before every name that Graphite gets. `tags`: labels are Graphite's tags (1.1 and newer), else they are
    parts of the name. `headers`: what an OTLP receiver wants to see, such as a key; `timeout`: seconds that it has.
    `remarks`: a line for each thing in OpenTelemetry's variables that is left out.
    """

    graphite: tuple[str, int] | None = None
    prefix: str = ""
    tags: bool = True
    otlp: str = ""
    interval: float = INTERVAL
    headers: Headers = ()
    timeout: float = TIMEOUT
    remarks: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.graphite is not None or bool(self.otlp)


def otlp_url(text: str) -> str:
    """The URL for metrics of a receiver whose base or whole URL is given; empty stays empty. Raises ValueError."""
    return metrics_url(text) if text else ""


def graphite_prefix(text: str) -> str:
    """Raises ValueError with one line."""
    if text and not all(
        part and part.isascii() and part.replace("_", "").replace("-", "").isalnum() for part in text.split(".")
    ):
        raise ValueError(f"{text[:64]!r} is no prefix of letters, digits, _ and -, with dots between its parts")
    return text


def _address(text: str) -> tuple[str, int] | None:
    return split_address(text) if text else None


def _true_or_false(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds < 1e9:
        raise ValueError(f"{text!r} is no number of 0 or more")
    return seconds


class Option(NamedTuple):
    """A flag, and a variable. `read` raises ValueError with one line."""

    name: str
    read: Callable[[str], object]
    what: str
    default: str

    @property
    def variable(self) -> str:
        return _PREFIX + self.name.upper().replace("-", "_")


OPTIONS: Final = (
    Option("graphite", _address, "HOST:PORT", ""),
    Option("graphite-prefix", graphite_prefix, "NAME", ""),
    Option("graphite-tags", _true_or_false, "true|false", "true"),
    Option("otlp", otlp_url, "URL", ""),
    Option("push-interval", _interval, "SECONDS", f"{INTERVAL:g}"),
)
#: All that somebody who pushes reads of its environment.
ENVIRONMENT: Final = (*(option.variable for option in OPTIONS), *VARIABLES)


def take_push(given: dict[str, Any], environ: Mapping[str, str], interval: str = "--push-interval") -> PushSettings:
    """Taken out of `given`, what the options were read as, by their names with _. Raises ValueError with one line.

    `interval`: what that one is called where it was given.
    """
    standard = read_standard(environ, given.pop("otlp"))
    settings = PushSettings(
        graphite=given.pop("graphite"),
        prefix=given.pop("graphite_prefix"),
        tags=given.pop("graphite_tags"),
        otlp=standard.url,
        interval=given.pop("push_interval"),
        headers=standard.headers,
        timeout=TIMEOUT if standard.timeout is None else standard.timeout,
        remarks=standard.remarks,
    )
    if settings and settings.interval < 1:
        raise ValueError(f"{interval}: {settings.interval:g} is under 1 second")
    return settings


def push_settings(environ: Mapping[str, str]) -> PushSettings:
    """As a sidecar with this environment has them. Raises ValueError with one line that names the variable."""
    given: dict[str, Any] = {}
    for option in OPTIONS:
        try:
            given[option.name.replace("-", "_")] = option.read(environ.get(option.variable, option.default))
        except ValueError as error:
            raise ValueError(f"{option.variable}: {error}") from None
    return take_push(given, environ, interval=OPTIONS[-1].variable)

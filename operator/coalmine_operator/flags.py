"""Flags that are environment variables as well, and those that operator and webhook share."""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Final

from coalmine_sidecar.push.settings import PushSettings, push_settings

from .api.monitoring import SecretKey
from .render.injection import InjectionSettings

PREFIX: Final = "COALMINE_"


class Flags:
    """A command line in the making. Whatever is wrong on it ends the process with status 2 and one line."""

    def __init__(self, parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
        self.parser = parser
        self._environ = environ

    def add(self, name: str, default: str, what: str, *, choices: Sequence[str] | None = None) -> None:
        """`--NAME`, or COALMINE_NAME."""
        variable = PREFIX + name.upper().replace("-", "_")
        given = self._environ.get(variable, default)
        self.parser.add_argument(f"--{name}", default=given, choices=choices, help=f"{what}; or {variable}")

    def add_common(self, listen: str) -> None:
        """The sidecar's, the address to listen on, the log level."""
        self.add("sidecar-image", "", "image of the sidecar that pods get")
        self.add("sidecar-pull-policy", "IfNotPresent", "of that image", choices=["Always", "IfNotPresent", "Never"])
        self.add("sidecar-cpu-request", "50m", "CPU that a sidecar asks for")
        self.add("sidecar-memory-request", "64Mi", "memory that a sidecar asks for")
        self.add("sidecar-memory-limit", "256Mi", "memory that a sidecar may take")
        self.add("push-graphite", "", "HOST:PORT of the Graphite that sidecars and operator send their metrics to")
        self.add("push-graphite-prefix", "", "before every name there")
        self.add("push-graphite-tags", "true", "whether it takes tags", choices=["true", "false"])
        self.add("push-otlp", "", "URL of the OTLP receiver that sidecars and operator send their metrics to")
        self.add("push-otlp-headers-secret", "", "NAME/KEY of a Secret, one beside each model, with headers for it")
        self.add("push-interval", "15", "seconds between two of these")
        self.add("listen", listen, "HOST:PORT")
        self.add("log-level", "info", "how much is told", choices=["debug", "info", "warning", "error"])

    def injection(self, given: argparse.Namespace) -> InjectionSettings:
        if not given.sidecar_image:
            self.parser.error("--sidecar-image: missing: give the image that pods get as their sidecar")
        return InjectionSettings(
            image=given.sidecar_image,
            image_pull_policy=given.sidecar_pull_policy,
            cpu_request=given.sidecar_cpu_request,
            memory_request=given.sidecar_memory_request,
            memory_limit=given.sidecar_memory_limit,
            push=self._sidecars_push(given),
            otlp_headers=self._headers_secret(given),
        )

    def push(self, given: argparse.Namespace) -> PushSettings:
        """The operator's own, which goes where that of the sidecars goes. Call `injection` first: it refuses."""
        said = {
            "COALMINE_GRAPHITE": given.push_graphite,
            "COALMINE_GRAPHITE_PREFIX": given.push_graphite_prefix,
            "COALMINE_GRAPHITE_TAGS": given.push_graphite_tags,
            "COALMINE_OTLP": given.push_otlp,
            "COALMINE_PUSH_INTERVAL": given.push_interval,
        }
        return push_settings({**self._environ, **said})

    def _headers_secret(self, given: argparse.Namespace) -> SecretKey | None:
        text = given.push_otlp_headers_secret
        name, _, key = text.partition("/")
        if text and not (
            re.fullmatch(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?", name) and re.fullmatch(r"[-._a-zA-Z0-9]+", key)
        ):
            self.parser.error(f"--push-otlp-headers-secret: {text!r} is no NAME/KEY of a Secret")
        return SecretKey(name=name, key=key) if text and given.push_otlp else None

    def _sidecars_push(self, given: argparse.Namespace) -> tuple[str, ...]:
        """The sidecar's flags. Whatever a sidecar would refuse is refused here: its pod would never be ready."""
        if not given.push_interval.isdecimal() or not 1 <= int(given.push_interval) <= 3600:
            self.parser.error(f"--push-interval: {given.push_interval!r} is no whole number of seconds, 1 to 3600")
        flags = []
        if given.push_graphite:
            if not _is_address(given.push_graphite):
                self.parser.error(f"--push-graphite: {given.push_graphite!r} is no HOST:PORT")
            if not re.fullmatch(r"([-_A-Za-z0-9]+(\.[-_A-Za-z0-9]+)*)?", given.push_graphite_prefix):
                self.parser.error(
                    f"--push-graphite-prefix: {given.push_graphite_prefix!r} is no name such as ml.models"
                )
            flags.append(f"--graphite={given.push_graphite}")
            flags.append(f"--graphite-prefix={given.push_graphite_prefix}")
            flags.append(f"--graphite-tags={given.push_graphite_tags}")
        if given.push_otlp:
            if not _is_open_url(given.push_otlp):
                # Without its text: a password may stand in it.
                self.parser.error("--push-otlp: no URL: write http://HOST:PORT, without user and password")
            flags.append(f"--otlp={given.push_otlp}")
        return (*flags, f"--push-interval={given.push_interval}") if flags else ()

    def address(self, given: argparse.Namespace) -> tuple[str, int]:
        host, colon, port = given.listen.rpartition(":")
        if not colon or not port.isdecimal() or int(port) > 65535:
            self.parser.error(f"--listen: {given.listen!r} is no HOST:PORT")
        return host.strip("[]"), int(port)


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return re.fullmatch(r"[^\s:/@\[\]]+|\[[0-9a-fA-F:.]+\]", host) is not None and _is_port(port)


def _is_port(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", text) is not None and int(text) <= 65535


def _is_open_url(text: str) -> bool:
    """Of http or https, with nobody's name and password: whoever may see pods sees it."""
    found = re.fullmatch(r"https?://([^\s/@?#]+)([/?][^\s@]*)?", text)
    return found is not None and (_is_address(found[1]) or _is_address(f"{found[1]}:80"))


def log_level(given: argparse.Namespace) -> int:
    return int(getattr(logging, given.log_level.upper()))


def set_up_logging(level: int) -> None:
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")

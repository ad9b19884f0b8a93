"""Flags that are environment variables as well, and those that operator and webhook share."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from typing import Final

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
        )

    def address(self, given: argparse.Namespace) -> tuple[str, int]:
        host, colon, port = given.listen.rpartition(":")
        if not colon or not port.isdecimal() or int(port) > 65535:
            self.parser.error(f"--listen: {given.listen!r} is no HOST:PORT")
        return host.strip("[]"), int(port)


def log_level(given: argparse.Namespace) -> int:
    return int(getattr(logging, given.log_level.upper()))


def set_up_logging(level: int) -> None:
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")

"""Who this sidecar is: flags, or environment variables of the same names."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec

from .contract import WarmupRequest, decode_warmup
from .drain import HOLD
from .outward import split_address
from .push.settings import OPTIONS, PushSettings, take_push
from .tlsflags import TlsFiles, take_tls

PREFIX = "COALMINE_"
#: Share of the process's time that reading answers may take. At full load of small answers it takes a quarter, so
#: this leaves nothing unread there, and bounds what huge answers cost the requests beside them.
OBSERVE_SHARE: Final = 0.4


class Listen(msgspec.Struct, frozen=True):
    """Where to listen: `host` and `port`, or an inherited listening socket `fd` (then the others are unset)."""

    host: str = ""
    port: int = 0
    fd: int = -1

    def __str__(self) -> str:
        return f"fd:{self.fd}" if self.fd >= 0 else f"{self.host}:{self.port}"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`memory_limit` bytes and `cpu_limit` cores of the model, 0 where there is none; `drain_timeout` seconds.

    `model_grpc`: where the model speaks gRPC, None: at `model`. `drain_key`: what a drain by HTTP has to show; empty:
    there is none. `drain_hold`: see `drain`, seconds. `observe_share`: of one core, 0 to 1, for reading answers.
    `warmup`: what the model answers before the pod is ready. `*_tls`: certificates towards the model, between sidecars,
    for clients; None: none are used there. `push`: see PushSettings; nothing is pushed without asking.
    `in_pod`: the model's processes are those of its container, which this one sees. `redis_password`: from the
    environment alone.
    """

    routing: Path
    revision: str
    pod: str
    model: tuple[str, int]
    model_grpc: tuple[str, int] | None = None
    ingress: Listen
    local: Listen
    admin: Listen
    model_pid_file: Path | None = None
    in_pod: bool = False
    memory_limit: int = 0
    cpu_limit: float = 0.0
    drain_timeout: float = 30.0
    drain_key: str = ""
    drain_hold: float = HOLD
    max_connections: int = 10_000
    observe_share: float = OBSERVE_SHARE
    warmup: tuple[WarmupRequest, ...] = ()
    model_tls: TlsFiles | None = None
    peer_tls: TlsFiles | None = None
    ingress_tls: TlsFiles | None = None
    push: PushSettings = PushSettings()
    redis_password: str = ""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"coalmine-sidecar: {message}\n")


def read_settings(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> Settings:
    """Flags win over the environment (`--model-pid-file`: COALMINE_MODEL_PID_FILE).

    Ends the process with status 2 and one line on standard error where one is missing or wrong.
    """
    parser = _Parser(prog="coalmine-sidecar", description="Routes, relays and records a model server's requests.")

    def flag(name: str, read: Callable[[str], object], what: str, default: object = None) -> None:
        variable = PREFIX + name.upper().replace("-", "_")
        parser.add_argument(
            f"--{name}",
            type=read,
            metavar=what,
            # argparse reads a default that is a string with `type`, so a bad variable is a bad flag.
            default=environ.get(variable, default),
            required=default is None and variable not in environ,
            help=f"or {variable}",
        )

    flag("routing", Path, "FILE")
    flag("revision", _name, "NAME")
    flag("pod", _name, "NAME")
    flag("model", _address, "HOST:PORT")
    flag("model-grpc", _address_or_none, "HOST:PORT", "")
    for role in ("ingress", "local", "admin"):
        flag(role, _listen, "HOST:PORT|fd:N")
    flag("model-pid-file", Path, "FILE", "")
    flag("model-processes", _in_pod, "pod", "")
    flag("memory-limit", _bytes, "BYTES", 0)
    flag("cpu-limit", _number, "CORES", 0.0)
    flag("drain-timeout", _number, "SECONDS", 30.0)
    flag("drain-key", str, "KEY", "")
    flag("drain-hold", _number, "SECONDS", HOLD)
    flag("max-connections", _count, "COUNT", 10_000)
    flag("observe-share", _share, "SHARE", OBSERVE_SHARE)
    flag("warmup", _warmup, "JSON", "")
    flag("model-tls", _tls, "verify|insecure", "")
    for purpose, files in (
        ("model", ("ca", "cert", "key")),
        ("peer", ("ca", "cert", "key")),
        ("ingress", ("cert", "key")),
    ):
        for file in files:
            flag(f"{purpose}-{file}", Path, "FILE", "")
    flag("model-server-name", str, "NAME", "localhost")
    flag("peer-server-name", str, "NAME", "")
    for option in OPTIONS:
        flag(option.name, _reader(option.read), option.what, option.default)
    given = vars(parser.parse_args(arguments))
    try:
        given |= take_tls(given)
        given["push"] = take_push(given, environ)
    except ValueError as error:
        parser.error(str(error))
    if circle := _circle(given):
        parser.error(circle)
    # No flag: everybody on the machine can read those.
    given["redis_password"] = environ.get(f"{PREFIX}REDIS_PASSWORD", "")
    given["in_pod"] = given.pop("model_processes")
    pid_file = given.pop("model_pid_file")
    # Path("") is the working directory: an unset variable of a template must not become one.
    return Settings(model_pid_file=pid_file if pid_file != Path() else None, **given)


def _circle(given: Mapping[str, Any]) -> str:
    """What is wrong where a request for the model would come back to the sidecar, for ever; else empty."""
    for flag in ("model", "model_grpc"):
        host, port = given[flag] or ("", -1)
        for role in ("ingress", "local", "admin"):
            listen = given[role]
            everywhere = listen.host in ("0.0.0.0", "::") and host in ("localhost", "127.0.0.1", "::1")  # noqa: S104 - compared, not bound
            if listen.fd < 0 and port == listen.port and (host == listen.host or everywhere):
                name = flag.replace("_", "-")
                return f"--{name} {host}:{port} is the sidecar's own --{role}: give the address of the model server"
    return ""


def open_socket(listen: Listen, backlog: int = 4096) -> socket.socket:
    """A listening socket. Raises OSError; its text names the address."""
    if listen.fd >= 0:
        inherited = socket.socket(fileno=listen.fd)
        inherited.setblocking(False)
        return inherited
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((listen.host, listen.port))
        opened.listen(backlog)
        opened.setblocking(False)
    except OSError:
        opened.close()
        raise
    return opened


def _name(text: str) -> str:
    if not 0 < len(text) <= 253 or not text.isprintable() or not text.isascii():
        raise argparse.ArgumentTypeError(f"{text[:64]!r} is no name of 1 to 253 printable ASCII characters")
    return text


def _address(text: str) -> tuple[str, int]:
    try:
        return split_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _address_or_none(text: str) -> tuple[str, int] | None:
    return _address(text) if text else None


def _listen(text: str) -> Listen:
    if text.startswith("fd:"):
        if not text[3:].isdigit():
            raise argparse.ArgumentTypeError(f"{text!r} is no fd:NUMBER")
        return Listen(fd=int(text[3:]))
    return Listen(*_address(text))


def _in_pod(text: str) -> bool:
    if text not in ("", "pod"):
        raise argparse.ArgumentTypeError(f"{text!r} is not pod")
    return text == "pod"


def _tls(text: str) -> str:
    if text not in ("", "verify", "insecure"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither verify nor insecure")
    return text


def _reader(read: Callable[[str], object]) -> Callable[[str], object]:
    """A reader whose ValueError is told as it is: argparse has a message of its own for that, with the text in it."""

    def checked(text: str) -> object:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return checked


def _warmup(text: str) -> tuple[WarmupRequest, ...]:
    try:
        return decode_warmup(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"no warm-up: {error}") from None


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0.0 <= number < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 0 or more")
    return number


def _share(text: str) -> float:
    share = _number(text)
    if share > 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is no share of 0 to 1")
    return share


def _bytes(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of bytes")
    return int(text)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)

"""Which certificates the sidecar uses where, as its flags say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Which files, and for what; `flag` is how messages call them (`model` for --model-ca and so on).

    As a client: `verify` the server by `ca` (None: the system's authorities) and `server_name`, and show `cert` where
    it is asked for. As a server (`serves`): show `cert`; with a `ca`, clients have to show one of it.
    """

    flag: str
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str = ""
    verify: bool = True
    connects: bool = True
    serves: bool = False


def take_tls(given: dict[str, Any]) -> dict[str, TlsFiles | None]:
    """The purposes by their names in Settings, taken out of the flags. Raises ValueError with one line."""

    def file(name: str) -> Path | None:
        path: Path = given.pop(name)
        return path if path != Path() else None

    def pair(purpose: str) -> tuple[Path | None, Path | None]:
        cert, key = file(f"{purpose}_cert"), file(f"{purpose}_key")
        if (cert is None) != (key is None):
            raise ValueError(f"--{purpose}-cert and --{purpose}-key belong together: give both")
        return cert, key

    how, name, ca, (cert, key) = given.pop("model_tls"), given.pop("model_server_name"), file("model_ca"), pair("model")
    if not how and (ca or cert):
        raise ValueError("--model-ca and --model-cert have no effect without --model-tls=verify")
    model = TlsFiles(flag="model", ca=ca, cert=cert, key=key, server_name=name, verify=how == "verify") if how else None

    peer_name, ca, (cert, key) = given.pop("peer_server_name"), file("peer_ca"), pair("peer")
    if not bool(ca) == bool(cert) == bool(peer_name):
        raise ValueError("--peer-ca, --peer-cert, --peer-key and --peer-server-name belong together: give all of them")
    peer = TlsFiles(flag="peer", ca=ca, cert=cert, key=key, server_name=peer_name, serves=True) if ca else None

    cert, key = pair("ingress")
    ingress = TlsFiles(flag="ingress", cert=cert, key=key, connects=False, serves=True) if cert else None
    return {"model_tls": model, "peer_tls": peer, "ingress_tls": ingress}

"""Certificates of a revision: the Secrets mounted into its sidecars, and the flags that name the files."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any, Final

from ..api.problems import Problem, show
from ..api.spec import ModelTls, Tls

MODEL_VOLUME: Final = "coalmine-model-tls"
PEER_VOLUME: Final = "coalmine-tls"
#: Names of the volumes, which no template may take.
VOLUMES: Final = (MODEL_VOLUME, PEER_VOLUME)
_MODEL_FOLDER: Final = "/etc/coalmine/model-tls"
_PEER_FOLDER: Final = "/etc/coalmine/tls"
_FILES: Final = (("ca", "ca_file", "caFile"), ("cert", "cert_file", "certFile"), ("key", "key_file", "keyFile"))


def peer_name(tls: Tls, deployment: str, namespace: str) -> str:
    """The name that the certificate between the sidecars has to be for."""
    return tls.server_name or f"{deployment}.{namespace}.svc"


def model_flags(tls: ModelTls | None, folder: str = _MODEL_FOLDER) -> list[str]:
    """The sidecar's flags; paths that are not absolute begin at `folder`."""
    if tls is None:
        return []
    flags = [f"--model-tls={'insecure' if tls.insecure_skip_verify else 'verify'}"]
    flags += (
        f"--model-{flag}={posixpath.join(folder, path)}" for flag, field, _ in _FILES if (path := getattr(tls, field))
    )
    return [*flags, f"--model-server-name={tls.server_name}"]


def peer_flags(tls: Tls | None, name: str) -> list[str]:
    if tls is None:
        return []
    files = (("ca", "ca.crt"), ("cert", "tls.crt"), ("key", "tls.key"))
    return [*(f"--peer-{flag}={_PEER_FOLDER}/{file}" for flag, file in files), f"--peer-server-name={name}"]


def mounts(model: ModelTls | None, peers: Tls | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Mounts of the sidecar, and the pod's volumes for them.

    Optional ones: a Secret that is not there is told by the sidecar, in the status, and found when it comes.
    """
    wanted = [(MODEL_VOLUME, _MODEL_FOLDER, model.secret_name)] if model is not None and model.secret_name else []
    wanted += [(PEER_VOLUME, _PEER_FOLDER, peers.secret_name)] if peers is not None else []
    return (
        [{"name": volume, "mountPath": folder, "readOnly": True} for volume, folder, _ in wanted],
        [{"name": volume, "secret": {"secretName": secret, "optional": True}} for volume, _, secret in wanted],
    )


def problems(tls: ModelTls | None) -> Iterator[Problem]:
    """Files that no sidecar in a pod can find."""
    if tls is None:
        return
    for _, field, name in _FILES:
        path = getattr(tls, field)
        if path and not path.startswith("/") and not tls.secret_name:
            yield Problem(
                f"spec.model.tls.{name}", f"{show(path)} is in no Secret: name the one that holds it in secretName"
            )
        elif path and tls.secret_name and "/" in path and not path.startswith("/"):
            yield Problem(f"spec.model.tls.{name}", f"{show(path)} is no key of a Secret: a key has no /")

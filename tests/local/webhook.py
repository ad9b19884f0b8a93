"""The webhooks as a process, and an API server's side of the talk."""

from __future__ import annotations

import base64
import json
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from coalmine_operator.render import patch
from coalmine_operator.webhook.authority import Certificate, bundle

NAME = "coalmine-webhook.coalmine.svc"
IMAGE = "coalmine-sidecar:dev"


def write(folder: Path, certificate: Certificate) -> None:
    """As kubelet does: another folder behind a symbolic link."""
    fresh = folder / f"..{len(list(folder.iterdir()))}"
    fresh.mkdir(parents=True)
    for name, data in certificate.secret().items():
        (fresh / name).write_bytes(data)
    for name in certificate.secret():
        with suppress(FileExistsError):
            (folder / name).symlink_to(f"..data/{name}")
    link = folder / "..new"
    link.symlink_to(fresh.name)
    link.replace(folder / "..data")


class Webhook:
    """`authorities`: whom its API server trusts."""

    def __init__(self, process: subprocess.Popen[str], port: int, authorities: bytes) -> None:
        self.process = process
        self.port = port
        self.authorities = authorities

    def send(self, path: str, body: bytes, *, method: str = "POST", authorities: bytes = b"") -> tuple[int, str]:
        """Raises OSError where no connection comes about that can be trusted."""
        context = ssl.create_default_context(cadata=(authorities or self.authorities).decode())
        with closing(HTTPConnection("127.0.0.1", self.port)) as connection:
            with socket.create_connection(("127.0.0.1", self.port), 10) as plain:
                connection.sock = context.wrap_socket(plain, server_hostname=NAME)
            connection.request(method, path, body)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()

    def ask(self, path: str, **request: Any) -> dict[str, Any]:
        """The `response` of an AdmissionReview."""
        status, text = self.send(path, review(**request))
        assert status == 200, text
        answer = json.loads(text)
        assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
        assert answer["response"]["uid"] == "1-2-3"
        return answer["response"]

    def trusted(self, held: Certificate) -> bool:
        """Whether what it shows now verifies."""
        try:
            return self.send("/healthz", b"", method="GET", authorities=bundle(held))[0] == 200
        except OSError:
            return False

    def until_up(self) -> None:
        """Connections are taken, whatever it shows."""
        for _ in range(200):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.1)
        raise AssertionError("nothing listens")

    def until_trusted(self, held: Certificate, *, trusted: bool = True) -> None:
        for _ in range(200):
            if self.trusted(held) is trusted:
                return
            time.sleep(0.1)
        raise AssertionError("another certificate is shown")

    def ended(self) -> tuple[int, str]:
        """Told to end: its exit status and what it said."""
        self.process.send_signal(signal.SIGTERM)
        said, _ = self.process.communicate(timeout=15)
        return self.process.returncode, said


@contextmanager
def running(folder: Path, certificate: Certificate) -> Iterator[Webhook]:
    """It finds its certificate in `folder`; its API server trusts whoever signed `certificate`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "coalmine_operator.webhook"),
            *(f"--listen=127.0.0.1:{port}", f"--certificate-folder={folder}", f"--sidecar-image={IMAGE}"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield Webhook(process, port, bundle(certificate))
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def review(
    *, operation: str = "CREATE", user: str = "alice", new: Any = None, old: Any = None, namespace: str = "ml"
) -> bytes:
    request = {
        "uid": "1-2-3",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "operation": operation,
        "namespace": namespace,
        "userInfo": {"username": user, "groups": ["system:authenticated"]},
        "object": new,
        "oldObject": old,
        "dryRun": False,
    }
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()


def patched(document: dict[str, Any], response: dict[str, Any]) -> dict[str, Any]:
    """What the API server makes of an answer."""
    assert response["allowed"]
    if "patch" not in response:
        return document
    assert response["patchType"] == "JSONPatch"
    return patch.apply(document, json.loads(base64.b64decode(response["patch"])))

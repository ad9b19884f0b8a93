"""The webhook's certificate where there is no cert-manager: made, renewed and told to the API server by the operator.

The webhook itself has no rights in the cluster; it takes what kubelet projects from the Secret. Names are made from
that of the webhook's Service: the Secret NAME-tls, and both webhook configurations, NAME.NAMESPACE.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import datetime as dt
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from .platforms.kubernetes import ApiError, Client
from .platforms.kubernetes.kinds import POD, SECRET, Kind
from .webhook.authority import Certificate, bundle, due, from_secret, issue

logger = logging.getLogger("coalmine")

#: Seconds between two looks: at the Secret, which somebody may have emptied, and at what an upgrade may have undone.
PERIOD: Final = 60.0
#: Seconds after a look that failed.
AGAIN: Final = 5.0

CONFIGURATIONS: Final = tuple(
    Kind("admissionregistration.k8s.io/v1", f"{which}WebhookConfiguration", f"{which.lower()}webhookconfigurations")
    for which in ("Mutating", "Validating")
)
#: On the webhook's pods: a changed annotation makes kubelet look at their Secrets at once.
TOUCH: Final = "coalmine.dev/certificate"


class Names(Struct, frozen=True):
    """What there is to one webhook. `dns`: the names its certificate is for."""

    secret: str
    configuration: str
    dns: tuple[str, ...]


def names_of(namespace: str, service: str, domain: str) -> Names:
    """The names that the chart gives. `domain`: where names of Services end."""
    host = f"{service}.{namespace}.svc"
    return Names(f"{service}-tls", f"{service}.{namespace}", (host, f"{host}.{domain}"))


def now_utc() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class CertificateKeeper:
    """Of the webhook behind the Service `name` in `namespace`. See `names_of`."""

    def __init__(
        self,
        client: Client,
        *,
        namespace: str,
        name: str,
        domain: str,
        clock: Callable[[], dt.datetime] = now_utc,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._names = names_of(namespace, name, domain)
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled. What fails is told once and tried again."""
        told = ""
        while True:
            try:
                await self.look()
            except ApiError as error:
                if str(error) != told:
                    told = str(error)
                    logger.warning("the webhook's certificate: %s; trying again", told)
                await asyncio.sleep(AGAIN)
            else:
                told = ""
                await asyncio.sleep(PERIOD)

    async def look(self) -> bool:
        """Put right what is not; whether there is another certificate. Raises ApiError."""
        path = SECRET.path(self._namespace, self._names.secret)
        secret = await self._client.get(path)
        held = from_secret(_data(secret))
        reason = due(self._clock(), held, self._names.dns)
        if not reason and held is not None:
            await self._trust(held)
            return False
        made = issue(self._clock(), self._names.dns, held)
        # First who is trusted, then what is shown: so there is no moment without trust, see `authority`.
        await self._trust(made)
        version = {"resourceVersion": secret["metadata"]["resourceVersion"]}
        data = {key: base64.b64encode(value).decode() for key, value in made.secret().items()}
        await self._client.patch(path, {"metadata": version, "data": data})
        logger.info("the webhook's certificate: a new one, for %s", reason)
        await self._touch(hashlib.sha256(made.certificate).hexdigest()[:16])
        return True

    async def _trust(self, held: Certificate) -> None:
        wanted = base64.b64encode(bundle(held)).decode()
        for kind in CONFIGURATIONS:
            path = kind.path(name=self._names.configuration)
            present = await self._client.get(path)
            patch = _bundle_patch(present.get("webhooks") or (), wanted)
            if patch:
                await self._client.patch(path, patch, "json")

    async def _touch(self, mark: str) -> None:
        """Without it kubelet needs a minute or two, which matters when there was no certificate at all."""
        with contextlib.suppress(ApiError):
            async for page in self._client.pages(POD.path(self._namespace)):
                for pod in page["items"]:
                    if _mounts(pod, self._names.secret):
                        patch = {"metadata": {"annotations": {TOUCH: mark}}}
                        await self._client.patch(POD.path(self._namespace, pod["metadata"]["name"]), patch)


def _data(secret: Mapping[str, Any]) -> dict[str, bytes]:
    """Of a Secret; what is no base64 counts as missing."""
    found = {}
    for key, value in (secret.get("data") or {}).items():
        with contextlib.suppress(binascii.Error, ValueError):
            found[key] = base64.b64decode(value, validate=True)
    return found


def _bundle_patch(webhooks: Sequence[Mapping[str, Any]], wanted: str) -> list[dict[str, Any]]:
    """JSON patch; the names are tested, since somebody may change the list meanwhile."""
    patch: list[dict[str, Any]] = []
    for index, webhook in enumerate(webhooks):
        if webhook["clientConfig"].get("caBundle") != wanted:
            patch.append({"op": "test", "path": f"/webhooks/{index}/name", "value": webhook["name"]})
            patch.append({"op": "add", "path": f"/webhooks/{index}/clientConfig/caBundle", "value": wanted})
    return patch


def _mounts(pod: Mapping[str, Any], secret: str) -> bool:
    volumes = pod.get("spec", {}).get("volumes") or ()
    return any((volume.get("secret") or {}).get("secretName") == secret for volume in volumes)

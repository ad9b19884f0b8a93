"""The certificate of a release's webhook: what its pods show, what is kept, and how time passes for it."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt

from tests.cluster.installed import RELEASE, Install
from tests.cluster.lab.layout import CLUSTER_DOMAIN

from coalmine_operator.certificates import CertificateKeeper
from coalmine_operator.platforms.kubernetes import Client
from coalmine_operator.platforms.kubernetes.access import from_kubeconfig
from coalmine_operator.webhook.authority import LIFE, RENEW_BEFORE


def shown_certificates(install: Install) -> set[str]:
    """Certificates that the webhook's pods show."""
    code = "import ssl, sys; print(*(ssl.get_server_certificate((ip, 8443)) for ip in sys.argv[1:]), sep='|')"
    addresses = [pod["status"]["podIP"] for pod in install.pods("webhook")]
    assert len(addresses) == 2
    return {one.strip() for one in install.cluster.run_in_net(["python3", "-c", code, *addresses]).split("|")}


def kept_certificate(install: Install) -> str:
    """The certificate in the Secret."""
    return base64.b64decode(install.secret("webhook-tls")["tls.crt"]).decode().strip()


async def _age(install: Install) -> None:
    client = Client(from_kubeconfig(install.cluster.api))
    try:
        keeper = CertificateKeeper(
            client,
            namespace=install.own,
            name=f"{RELEASE}-webhook",
            domain=CLUSTER_DOMAIN,
            clock=lambda: dt.datetime.now(dt.UTC) - (LIFE - RENEW_BEFORE) - dt.timedelta(days=1),
        )
        assert await keeper.look()
    finally:
        await client.close()


def age(install: Install) -> None:
    """Two months pass: the certificate becomes one that was made that long ago, and is due for renewal."""
    asyncio.run(_age(install))

"""The certificates of one cluster: an authority of its own, made anew for each node and forgotten with it."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .layout import API_SERVICE_ADDRESS, CLUSTER_DOMAIN, NODE_ADDRESS, NODE_NAME

VALID = datetime.timedelta(days=30)


@dataclass(frozen=True)
class Identity:
    """Who a certificate speaks for: Kubernetes reads the user from the common name, groups from the organisation."""

    file: str
    user: str
    group: str = ""
    hosts: Sequence[str] = ()


_LOOPBACK = ("localhost", "127.0.0.1")
IDENTITIES = (
    Identity("admin", "coalmine-test-admin", "system:masters"),
    Identity(
        "kube-apiserver",
        "kube-apiserver",
        hosts=(
            *_LOOPBACK,
            NODE_ADDRESS,
            API_SERVICE_ADDRESS,
            "kubernetes.default.svc",
            f"kubernetes.default.svc.{CLUSTER_DOMAIN}",
        ),
    ),
    Identity("kube-controller-manager", "system:kube-controller-manager"),
    Identity("kube-scheduler", "system:kube-scheduler"),
    Identity("kube-proxy", "system:kube-proxy"),
    Identity("kubelet", f"system:node:{NODE_NAME}", "system:nodes", hosts=(*_LOOPBACK, NODE_NAME, NODE_ADDRESS)),
)


def write_certificates(folder: Path) -> None:
    """`ca.crt`, `ca.key`, a pair for each of IDENTITIES, and `accounts.key`/`.pub`, which sign pods' tokens."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "coalmine test authority")])
    ca = (
        _certificate(ca_name, ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    _write_key(folder / "ca.key", ca_key)
    (folder / "ca.crt").write_bytes(ca.public_bytes(Encoding.PEM))
    for identity in IDENTITIES:
        key = ec.generate_private_key(ec.SECP256R1())
        _write_key(folder / f"{identity.file}.key", key)
        signed = _leaf(identity, ca_name, key.public_key()).sign(ca_key, hashes.SHA256())
        (folder / f"{identity.file}.crt").write_bytes(signed.public_bytes(Encoding.PEM))
    accounts = ec.generate_private_key(ec.SECP256R1())
    _write_key(folder / "accounts.key", accounts)
    public = accounts.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "accounts.pub").write_bytes(public)


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + VALID)
    )


def _leaf(identity: Identity, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    names = [x509.NameAttribute(NameOID.COMMON_NAME, identity.user)]
    if identity.group:
        names.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, identity.group))
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if identity.hosts else [])]
    leaf = _certificate(x509.Name(names), issuer, key).add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if identity.hosts:
        leaf = leaf.add_extension(x509.SubjectAlternativeName([_host(host) for host in identity.hosts]), critical=False)
    return leaf


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

"""An authority of a test's own, which signs certificates into files."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DAY = dt.timedelta(days=1)


class Files(NamedTuple):
    ca: Path
    cert: Path
    key: Path


class Authority:
    """Its certificate is `ca.crt` in `folder`; `issue` writes others beside it. `days` until they expire."""

    def __init__(self, folder: Path, days: int = 30) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"authority {folder.name}")])
        self.ca = folder / "ca.crt"
        authority = self._signed(self._name, self._key, days, (), authority=True)
        self.ca.write_bytes(authority.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *others: str, days: int = 30, stem: str = "tls", after: float = -60 * 86400) -> Files:
        """A certificate for servers and clients, for these names and addresses, valid `after` seconds from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate = self._signed(subject, key, days, (name, *others), after=after)
        files = Files(self.ca, self.folder / f"{stem}.crt", self.folder / f"{stem}.key")
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        # As everybody does who cares: a new file, renamed over the old one.
        for path, data in (
            (files.key, secret),
            (files.cert, certificate.public_bytes(serialization.Encoding.PEM)),
        ):
            fresh = path.with_suffix(".new")
            fresh.write_bytes(data)
            fresh.replace(path)
        return files

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        days: int,
        names: tuple[str, ...],
        authority: bool = False,
        after: float = -60 * 86400,
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + dt.timedelta(seconds=after))
            .not_valid_after(now + days * DAY)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([*map(_name, names)]), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def serving(files: Files, *, clients: bool = False, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    """A server's context; `clients` have to show a certificate of the same authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files.ca)
    context.load_cert_chain(files.cert, files.key)
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def asking(files: Files, *, shows: bool = True) -> ssl.SSLContext:
    """A client's context."""
    context = ssl.create_default_context(cafile=files.ca)
    if shows:
        context.load_cert_chain(files.cert, files.key)
    return context

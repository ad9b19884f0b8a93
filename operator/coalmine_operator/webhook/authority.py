"""Certificates of our own for the webhooks, where there is no cert-manager.

Each renewal makes a new authority, which signs one certificate and whose key is then forgotten: nothing is kept that
could sign another one. API servers go on trusting the authority before it, whose certificate may still be in use
somewhere. So the order of writes is: first `bundle` into the webhook configurations, then the Secret. A crash in
between leaves a bundle that names one authority too many.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

LIFE: Final = dt.timedelta(days=90)
#: A third of its life before it ends, a certificate is renewed.
RENEW_BEFORE: Final = LIFE / 3
#: Clocks of nodes may be behind ours.
SKEW: Final = dt.timedelta(minutes=10)
#: Keys of the Secret, as in those of type kubernetes.io/tls that cert-manager makes.
CERTIFICATE_KEY: Final = "tls.crt"
PRIVATE_KEY: Final = "tls.key"
AUTHORITY_KEY: Final = "ca.crt"


class Certificate(Struct, frozen=True, kw_only=True):
    """PEM. `authorities`: the one that signed it, then the one before it."""

    certificate: bytes
    key: bytes
    authorities: bytes

    def secret(self) -> dict[str, bytes]:
        """The data of the Secret, not yet in base64."""
        return {CERTIFICATE_KEY: self.certificate, PRIVATE_KEY: self.key, AUTHORITY_KEY: self.authorities}

    def __repr__(self) -> str:
        return "Certificate(...)"


def from_secret(data: dict[str, bytes]) -> Certificate | None:
    """What `secret` gave; None where something of it is missing."""
    parts = [data.get(key, b"") for key in (CERTIFICATE_KEY, PRIVATE_KEY, AUTHORITY_KEY)]
    if not all(parts):
        return None
    return Certificate(certificate=parts[0], key=parts[1], authorities=parts[2])


def bundle(held: Certificate) -> bytes:
    """`caBundle` of the webhook configurations (there in base64)."""
    return held.authorities


def due(now: dt.datetime, held: Certificate | None, names: Iterable[str]) -> str:
    """Why another certificate is needed, or an empty text. Pure; `now` has a time zone."""
    if held is None:
        return "there is none"
    try:
        certificate = x509.load_pem_x509_certificate(held.certificate)
        key = load_pem_private_key(held.key, None)
        authorities = x509.load_pem_x509_certificates(held.authorities)
        covered = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound):
        return "it cannot be read"
    missing = sorted(set(names) - set(covered.get_values_for_type(x509.DNSName)))
    if missing:
        return f"it does not cover {', '.join(missing)}"
    if certificate.public_key() != key.public_key():
        return "it is not of its key"
    if not _signed_by_any(certificate, authorities):
        return "none of its authorities signed it"
    if now < certificate.not_valid_before_utc:
        return "it is not valid yet: was the clock set back?"
    if now > certificate.not_valid_after_utc - RENEW_BEFORE:
        return f"it ends at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    return ""


def issue(now: dt.datetime, names: Iterable[str], before: Certificate | None = None) -> Certificate:
    """A certificate for the DNS `names` by a new authority. `before`: what is in use, whose authority stays trusted."""
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Coalmine webhooks {now:%Y-%m-%d %H:%M:%S}")])
    authority = (
        _builder(now, subject, subject, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    wanted = sorted(set(names))
    # The first one is also the subject, cut to what X.509 allows: some people's tools show nothing else.
    leaf = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, wanted[0][:64])])
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        _builder(now, leaf, subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in wanted]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    return Certificate(
        certificate=certificate.public_bytes(Encoding.PEM),
        key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        authorities=authority.public_bytes(Encoding.PEM) + _authority_in_use(before, now),
    )


def _authority_in_use(held: Certificate | None, now: dt.datetime) -> bytes:
    """The one that signed what is in use, unless nobody would accept it anyway."""
    if held is None:
        return b""
    try:
        certificate = x509.load_pem_x509_certificate(held.certificate)
        authorities = x509.load_pem_x509_certificates(held.authorities)
    except ValueError:
        return b""
    live = [one for one in authorities if _signed_by_any(certificate, [one]) and now < one.not_valid_after_utc]
    return b"".join(one.public_bytes(Encoding.PEM) for one in live[:1])


def _signed_by_any(certificate: x509.Certificate, authorities: Iterable[x509.Certificate]) -> bool:
    for authority in authorities:
        try:
            certificate.verify_directly_issued_by(authority)
        except (InvalidSignature, ValueError, TypeError):
            continue
        return True
    return False


def _builder(
    now: dt.datetime, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + LIFE)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )

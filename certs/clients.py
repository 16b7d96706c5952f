"""Certificates of calling systems: whether a chain that a client shows leads to an anchor, and is good now.

The anchors are the operator's, in a folder with the lists of revoked certificates of every authority on the way;
nothing is fetched, so that no caller can make the core call anywhere. That the client holds the key is not decided here
but by the signature of its assertion.
"""

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import ClientVerifier, Criticality, ExtensionPolicy, PolicyBuilder, Store

from certs.profiles import RSA_EXPONENT, spki_of
from certs.revocation_lists import RevocationList, is_revoked

CHAIN_LIMIT = 4
"""Certificates that a client may show: its own, and authorities up to the anchor."""
LEAST_RSA_BITS = 2048
MOST_RSA_BITS = 4096
"""A longer key costs the core more than its owner gains."""
FILE_LIMIT_BYTES = 64 * 1024 * 1024

_CLIENT_PURPOSES = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}

ClientKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

log = structlog.get_logger(__name__)


class CertificateRefused(ValueError):
    """The chain is not one of a client; the text says why, for the operator and never for a stranger."""


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A chain that leads to an anchor; whose it may be is for the register to say."""

    key: ClientKey
    subject: bytes
    """Name, DER."""
    issuer_key_sha256: bytes
    """Of the issuing authority's SubjectPublicKeyInfo: two authorities may have one name."""
    path: tuple[x509.Certificate, ...] = field(repr=False)
    """The client's certificate first, the anchor last."""


@dataclass(frozen=True, slots=True)
class _Trust:
    anchors: tuple[x509.Certificate, ...] = ()
    lists: tuple[RevocationList, ...] = ()


class ClientCertificates:
    """Reads its folder again whenever something in it has changed, since lists come anew every day."""

    def __init__(self, folder: Path | None) -> None:
        """Nothing is read yet.

        Args:
            folder: ``*.pem`` with the authorities that are anchors, roots or not, ``*.crl`` with lists in DER or PEM;
                ``None`` where no client has a certificate.
        """
        self._folder = folder
        self._seen: object = None
        self._trust = _Trust()

    async def check(self, chain: Sequence[bytes], now: datetime) -> ClientCertificate:
        """Check everything but revocation.

        Args:
            chain: The client's certificate first, then each the issuer of the one before (RFC 7515 §4.1.6); DER.
            now: Aware UTC.

        Raises:
            CertificateRefused: It does not parse or not stand in order, leads to no anchor, is not valid now, is an
                authority's or not for digital signatures, or has a key that is not P-256 or RSA of 2048 to 4096 bits.
        """
        return await asyncio.to_thread(self._check, chain, now)

    async def check_status(self, certificate: ClientCertificate, now: datetime) -> None:
        """Check that nothing on the way was revoked; the anchor answers for itself by being in the folder.

        Raises:
            CertificateRefused: Revoked, or on hold.
            StatusUnknown: The lists do not say.
        """
        trust = await asyncio.to_thread(self._load)
        for below, issuer in pairwise(certificate.path):
            if is_revoked(below, issuer, trust.lists, now):
                raise CertificateRefused("a certificate of the chain is revoked")

    def _check(self, chain: Sequence[bytes], now: datetime) -> ClientCertificate:
        if not 0 < len(chain) <= CHAIN_LIMIT:
            raise CertificateRefused(f"a chain has 1 to {CHAIN_LIMIT} certificates")
        anchors = self._load().anchors
        if not anchors:
            raise CertificateRefused("there is no anchor for certificates of clients")
        try:
            shown = [x509.load_der_x509_certificate(der) for der in chain]
            key = _key(shown[0])
            _check_terms(shown[0])
            for certificate, issuer in pairwise(shown):
                certificate.verify_directly_issued_by(issuer)
            path = _verifier(anchors, now).verify(shown[0], shown[1:]).chain
        except CertificateRefused:
            raise
        except Exception as error:
            # Parsers and verifiers have many ways to fail on what a stranger may send; all mean the same here.
            raise CertificateRefused(f"the chain does not hold: {error}") from error
        # There are two at least: anchors are authorities, and the client's own certificate is not.
        return ClientCertificate(
            key=key,
            subject=shown[0].subject.public_bytes(),
            issuer_key_sha256=hashlib.sha256(spki_of(path[1].public_key())).digest(),
            path=tuple(path),
        )

    def _load(self) -> _Trust:
        if self._folder is None:
            return self._trust
        try:
            files = sorted(path for path in self._folder.iterdir() if path.suffix in {".pem", ".crl"})
            states = [path.stat() for path in files]
        except OSError as error:
            log.warning("agency trust folder cannot be read", error=type(error).__name__)
            return _Trust()
        seen = [
            (path.name, state.st_ino, state.st_size, state.st_mtime_ns)
            for path, state in zip(files, states, strict=True)
        ]
        if seen != self._seen:
            trust = _Trust(
                tuple(anchor for path in files if path.suffix == ".pem" for anchor in _anchors(path)),
                tuple(each for path in files if path.suffix == ".crl" for each in _lists(path)),
            )
            self._trust, self._seen = trust, seen
        return self._trust


def _anchors(path: Path) -> Iterator[x509.Certificate]:
    # A file that cannot be used is left out and said so: that refuses its authority's clients, and nobody else's.
    try:
        for certificate in x509.load_pem_x509_certificates(_content(path)):
            if not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
                raise ValueError("not an authority")  # noqa: TRY301 - one place tells of every unfit file
            yield certificate
    except (OSError, ValueError, x509.ExtensionNotFound) as error:
        log.warning("agency anchor left out", file=path.name, error=str(error))


def _lists(path: Path) -> Iterator[RevocationList]:
    try:
        content = _content(path)
        if content.startswith(b"-----BEGIN"):
            content = x509.load_pem_x509_crl(content).public_bytes(Encoding.DER)
        yield RevocationList(content)
    except (OSError, ValueError) as error:
        log.warning("agency revocation list left out", file=path.name, error=str(error))


def _content(path: Path) -> bytes:
    if path.stat().st_size > FILE_LIMIT_BYTES:
        raise ValueError("the file is too large")
    return path.read_bytes()


def _verifier(anchors: Sequence[x509.Certificate], now: datetime) -> ClientVerifier:
    """Path building by RFC 5280 §6.1: the library's rules for authorities, ours for the client's own certificate.

    Those of the Web PKI for the latter ask for a host name, which an organisation's seal does not have.
    """
    own = ExtensionPolicy.permit_all().require_present(x509.KeyUsage, Criticality.AGNOSTIC, None)
    policies = PolicyBuilder().extension_policies(ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=own)
    return policies.store(Store(list(anchors))).time(now).max_chain_depth(CHAIN_LIMIT - 1).build_client_verifier()


def _key(certificate: x509.Certificate) -> ClientKey:
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    if (
        isinstance(key, rsa.RSAPublicKey)
        and LEAST_RSA_BITS <= key.key_size <= MOST_RSA_BITS
        and key.public_numbers().e == RSA_EXPONENT
    ):
        return key
    raise CertificateRefused("a client's key is P-256, or RSA of 2048 to 4096 bits with exponent 65537")


def _check_terms(certificate: x509.Certificate) -> None:
    if not list(certificate.subject):
        raise CertificateRefused("the certificate names nobody")
    found = {type(extension.value): extension.value for extension in certificate.extensions}
    usage = found.get(x509.KeyUsage)
    if not isinstance(usage, x509.KeyUsage) or not usage.digital_signature or usage.key_cert_sign:
        raise CertificateRefused("the certificate's key usage is not digitalSignature")
    constraints = found.get(x509.BasicConstraints)
    if isinstance(constraints, x509.BasicConstraints) and constraints.ca:
        raise CertificateRefused("the certificate is an authority's")
    purposes = found.get(x509.ExtendedKeyUsage)
    # A time-stamping unit or OCSP responder of the same organisation is not its client.
    if isinstance(purposes, x509.ExtendedKeyUsage) and not set(purposes) & _CLIENT_PURPOSES:
        raise CertificateRefused("the certificate's extended key usage is not clientAuth")

"""Root and issuing CA: certificates, revocation, CRLs (RFC 5280)."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NoReturn

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from certs import profiles
from certs.issuer import CitizenSubject, IssuedCertificate, RevocationReason, Subject
from certs.pki.keys import Token, TokenKey
from certs.pki.storage import Entry, Storage, StoredCRL, Transaction
from certs.profiles import PublicAddresses
from domain.clock import Clock
from domain.errors import IdempotencyConflict, MalformedRequest, NotFound, StateConflict
from hsm.keys import SigningKey

AuthorityName = Literal["root", "ca"]

ROOT_LIFE = timedelta(days=20 * 365)
CA_LIFE = timedelta(days=10 * 365)
"""The issuing CA, and with it the OCSP responder and the TSA."""
CRL_LIFE = timedelta(days=7)
BACKDATE = timedelta(days=1)
"""Of the PKI's own certificates: a citizen's notBefore, two hours before issue, has to lie inside the CA's validity."""

IDEMPOTENCY_KEY_LIMIT = 200
CSR_LIMIT_BYTES = 8192


class PublicURLChanged(Exception):
    """The addresses in the certificates already issued are others than the settings' ``public_url``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnCertificates:
    """The PKI's certificates for itself."""

    root: x509.Certificate
    ca: x509.Certificate
    ocsp: x509.Certificate
    tsa: x509.Certificate


class Authority:
    """The root and the issuing CA of one PKI. Not thread-safe: everything runs in the thread that owns the token."""

    def __init__(self, token: Token, storage: Storage, addresses: PublicAddresses, clock: Clock) -> None:
        """Make what is missing: certificates in one transaction, then the first CRLs.

        Raises:
            PublicURLChanged: The store was made for other addresses.
            ValueError: The store was made with other keys.
        """
        self._token = token
        self._storage = storage
        self._addresses = addresses
        self._clock = clock
        self._root_key = TokenKey(token, SigningKey.PKI_ROOT)
        self._ca_key = TokenKey(token, SigningKey.PKI_CA)
        with storage.transaction() as tx:
            stored = tx.fact("public_url", addresses.base)
            if stored != addresses.base:
                raise PublicURLChanged(f"certificates were issued for {stored}; public_url must stay that")
            self.certificates = self._own_certificates(tx)
        self.crl("root")
        self.crl("ca")

    # --- citizens and the seal

    def issue(self, csr: bytes, subject: Subject, idempotency_key: str) -> IssuedCertificate:
        """Certify the key of ``csr`` (PKCS#10, DER); the same key gives the same certificate again.

        Raises:
            MalformedRequest: The request does not parse, its signature or its subject is not right.
            AlgorithmNotAllowed: A key that citizens may not have.
            IdempotencyConflict: The idempotency key came before with another key.
            StateConflict: The key is certified for another subject, or its certificate is revoked.
        """
        if not 0 < len(idempotency_key) <= IDEMPOTENCY_KEY_LIMIT:
            raise MalformedRequest(f"an idempotency key has 1 to {IDEMPOTENCY_KEY_LIMIT} characters")
        name = profiles.subject_name(subject)
        key = _checked_csr_key(csr, name)
        spki_sha256 = hashlib.sha256(profiles.spki_of(key)).digest()
        with self._storage.transaction() as tx:
            known = tx.by_key(spki_sha256)
            if known is not None:
                return self._again(known, name)
            if tx.by_idempotency_key(idempotency_key) is not None:
                raise IdempotencyConflict("this idempotency key came before with another key")
            now = self._now()
            ca = self.certificates.ca
            of_citizen = isinstance(subject, CitizenSubject)
            life, extensions = (
                (profiles.CITIZEN_LIFE, profiles.citizen_extensions)
                if of_citizen
                else (profiles.SEAL_LIFE, profiles.seal_extensions)
            )
            certificate = self._certify(
                tx,
                role="citizen" if of_citizen else "seal",
                name=name,
                key=key,
                not_before=now - profiles.CITIZEN_BACKDATE,
                not_after=min(now + life, ca.not_valid_after_utc),
                extensions=extensions(key, ca, self._addresses),
                issuer=(self._ca_key, ca.subject),
                idempotency_key=idempotency_key,
            )
        return self._with_chain(_der(certificate))

    def revoke(self, serial: int, reason: RevocationReason) -> None:
        """Revoke a citizen's certificate, or a seal's, and publish it; a second time changes nothing.

        Raises:
            NotFound: None of them has this serial number.
        """
        with self._storage.transaction() as tx:
            entry = tx.by_serial(serial)
            if entry is None or entry.role not in ("citizen", "seal"):
                raise NotFound("no certificate of a citizen or a seal has this serial number")
            if entry.revoked_at is None:
                tx.revoke(serial, reason, self._now())
                self._new_crl(tx, "ca")

    def _again(self, known: Entry, name: x509.Name) -> IssuedCertificate:
        if known.revoked_at is not None:
            raise StateConflict("the certificate of this key is revoked")
        if x509.load_der_x509_certificate(known.certificate).subject != name:
            raise StateConflict("this key is certified for another subject")
        return self._with_chain(known.certificate)

    def _with_chain(self, certificate: bytes) -> IssuedCertificate:
        return IssuedCertificate(certificate, (_der(self.certificates.ca),))

    # --- status

    def crl(self, authority: AuthorityName) -> bytes:
        """The list of revoked certificates, DER.

        A new one is made when half of the last one's life has passed, or when a certificate begins later than it:
        validators take a list for no proof about a certificate that it is older than.
        """
        with self._storage.transaction() as tx:
            stored = tx.crl(authority)
            if stored is not None:
                half_life = stored.this_update + (stored.next_update - stored.this_update) / 2
                if self._now() < half_life and tx.newest_not_before() <= stored.this_update:
                    return stored.crl
            return self._new_crl(tx, authority)

    def find(self, serial: int) -> Entry | None:
        """What the issuing CA issued under ``serial``."""
        with self._storage.transaction() as tx:
            entry = tx.by_serial(serial)
        return None if entry is None or entry.role in ("root", "ca") else entry

    def _new_crl(self, tx: Transaction, authority: AuthorityName) -> bytes:
        now = self._now()
        issuer = getattr(self.certificates, authority)
        key = {"root": self._root_key, "ca": self._ca_key}[authority]
        key_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer.subject)
            .last_update(now)
            .next_update(now + CRL_LIFE)
            .add_extension(x509.CRLNumber(tx.count(f"crl {authority}")), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), critical=False)
        )
        # The root issued nothing but the CA, which nobody can revoke here.
        for entry in tx.revoked() if authority == "ca" else []:
            builder = builder.add_revoked_certificate(_crl_entry(entry))
        crl = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
        tx.put_crl(authority, StoredCRL(this_update=now, next_update=now + CRL_LIFE, crl=crl))
        return crl

    # --- the PKI's own certificates

    def _own_certificates(self, tx: Transaction) -> OwnCertificates:
        now = self._now()
        not_before = now - BACKDATE

        def own(
            role: str,
            name: str,
            key: TokenKey,
            extensions: Callable[[CertificatePublicKeyTypes], profiles.Extensions],
            issuer: tuple[TokenKey, x509.Name] | None = None,
        ) -> x509.Certificate:
            public = key.public_key()
            entry = tx.by_role(role)
            if entry is not None:
                certificate = x509.load_der_x509_certificate(entry.certificate)
                if certificate.public_key() != public:
                    raise ValueError(f"the stored certificate of {role} is not for the token's key")
                return certificate
            subject = _own_name(name)
            return self._certify(
                tx,
                role=role,
                name=subject,
                key=public,
                not_before=not_before,
                not_after=now + (CA_LIFE if issuer else ROOT_LIFE),
                extensions=extensions(public),
                issuer=issuer or (key, subject),
            )

        at = self._addresses
        root = own("root", "Root", self._root_key, profiles.root_extensions)
        by_root = (self._root_key, root.subject)
        ca = own("ca", "Issuing CA", self._ca_key, lambda key: profiles.ca_extensions(key, root, at), by_root)
        by_ca = (self._ca_key, ca.subject)
        ocsp_key = TokenKey(self._token, SigningKey.PKI_OCSP)
        ocsp = own("ocsp", "OCSP", ocsp_key, lambda key: profiles.ocsp_extensions(key, ca), by_ca)
        tsa_key = TokenKey(self._token, SigningKey.PKI_TSA)
        tsa = own("tsa", "TSA", tsa_key, lambda key: profiles.tsa_extensions(key, ca, at), by_ca)
        return OwnCertificates(root=root, ca=ca, ocsp=ocsp, tsa=tsa)

    def _certify(
        self,
        tx: Transaction,
        *,
        role: str,
        name: x509.Name,
        key: CertificatePublicKeyTypes,
        not_before: datetime,
        not_after: datetime,
        extensions: profiles.Extensions,
        issuer: tuple[TokenKey, x509.Name],
        idempotency_key: str | None = None,
    ) -> x509.Certificate:
        issuer_key, issuer_name = issuer
        # 126 random bits below a leading one: positive, never zero, always of the same length (RFC 5280 §4.1.2.2).
        serial = 1 << 126 | int.from_bytes(self._token.random(16), "big") >> 2
        builder = (
            x509.CertificateBuilder()
            .serial_number(serial)
            .subject_name(name)
            .issuer_name(issuer_name)
            .public_key(key)
            .not_valid_before(not_before)
            .not_valid_after(not_after)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        certificate = builder.sign(issuer_key, hashes.SHA256())
        tx.add_certificate(
            serial=serial,
            role=role,
            spki_sha256=hashlib.sha256(profiles.spki_of(key)).digest(),
            not_before=not_before,
            certificate=_der(certificate),
            idempotency_key=idempotency_key,
        )
        return certificate

    def _now(self) -> datetime:
        # Certificates, CRLs and OCSP answers have whole seconds.
        return self._clock.now().replace(microsecond=0)


def _checked_csr_key(csr: bytes, name: x509.Name) -> CertificatePublicKeyTypes:
    if len(csr) > CSR_LIMIT_BYTES:
        raise MalformedRequest("the certification request is too long")
    try:
        request = x509.load_der_x509_csr(csr)
        key = request.public_key()
        subject = request.subject
        verified = request.is_signature_valid
    except Exception as exc:  # noqa: BLE001 - a parser's every failure on a stranger's bytes is the stranger's
        _refuse("the certification request cannot be read", exc)
    if not verified:
        _refuse("the signature of the certification request does not verify")
    if not isinstance(request.signature_hash_algorithm, hashes.SHA256):
        _refuse("the certification request must be signed with SHA-256")
    if subject.public_bytes() != name.public_bytes():
        _refuse("the certification request is for another subject")
    profiles.check_citizen_key(key)
    return key


def _refuse(detail: str, cause: Exception | None = None) -> NoReturn:
    raise MalformedRequest(detail) from cause


def _crl_entry(entry: Entry) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder().serial_number(entry.serial)
    if entry.revoked_at is not None:
        builder = builder.revocation_date(entry.revoked_at)
    # "unspecified" is told by leaving the extension out (RFC 5280 §5.3.1).
    if entry.reason is not None and entry.reason is not RevocationReason.UNSPECIFIED:
        builder = builder.add_extension(x509.CRLReason(x509.ReasonFlags(entry.reason.value)), critical=False)
    return builder.build()


def _own_name(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "ES"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Rubrica development PKI"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Rubrica development {name}"),
        ]
    )


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)

"""What our certificates contain, and the check of what an issuer gives back.

Sources: RFC 5280 (X.509), EN 319 412-1 §5.1 (semantics of serialNumber), EN 319 412-2 (natural persons), EN 319 412-5
(QcStatements), RFC 6960 §4.2.2.2 (OCSP responder), RFC 3161 §2.3 (time-stamping unit).
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from asn1crypto import core, parser
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from certs.issuer import IssuedCertificate, OrganisationSubject, Subject
from domain.algorithms import KeyType
from domain.errors import AlgorithmNotAllowed, IssuerUnavailable, MalformedRequest

POLICY_ARC = "2.999.1"
"""OID of ours: under {joint-iso-itu-t(2) example(999)}, the arc that X.660 keeps for examples and nobody owns."""
CITIZEN_POLICY = x509.ObjectIdentifier(f"{POLICY_ARC}.1")
TIMESTAMP_POLICY = f"{POLICY_ARC}.2"
SEAL_POLICY = x509.ObjectIdentifier(f"{POLICY_ARC}.3")

QC_STATEMENTS = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.3")  # OID: RFC 3739, id-pe-qcStatements
QC_SYNTAX_V2 = "1.3.6.1.5.5.7.11.2"  # OID: RFC 3739, id-qcs-pkixQCSyntax-v2
SEMANTICS_LEGAL_PERSON = "0.4.0.194121.1.2"  # OID: EN 319 412-1, id-etsi-qcs-SemanticsId-Legal
SEMANTICS_NATURAL_PERSON = "0.4.0.194121.1.1"  # OID: EN 319 412-1, id-etsi-qcs-SemanticsId-Natural
QC_RETENTION_PERIOD = "0.4.0.1862.1.3"  # OID: EN 319 412-5, id-etsi-qcs-QcRetentionPeriod
RETENTION_YEARS = 15  # Ley 6/2020 art. 9.3.a

CITIZEN_LIFE = timedelta(days=730)
SEAL_LIFE = timedelta(days=3 * 365)
CITIZEN_BACKDATE = timedelta(hours=2)
"""A first certificate is born after its document was prepared; the signing time in there must not precede it."""

COMMON_NAME_LIMIT = 64  # RFC 5280 appendix A, ub-common-name
NAME_LIMIT_CHARACTERS = 128
RSA_EXPONENT = 65537

Extensions = list[tuple[x509.ExtensionType, bool]]
"""Each extension with its criticality."""


class UnfitCertificate(IssuerUnavailable):
    """The issuer answered with a certificate that is not the one asked for."""


@dataclass(frozen=True, slots=True)
class PublicAddresses:
    """Where relying parties find an authority's answers; these go into certificates, so they have to last."""

    base: str
    """For example ``http://127.0.0.1:8085``, without a slash at the end."""

    @property
    def ocsp(self) -> str:
        """The OCSP responder."""
        return f"{self.base}/ocsp"

    @property
    def timestamp(self) -> str:
        """The time-stamping authority (RFC 3161 §3.4)."""
        return f"{self.base}/tsa"

    def crl(self, authority: str) -> str:
        """The list of revoked certificates of ``root`` or ``ca``."""
        return f"{self.base}/crl/{authority}.crl"

    def certificate(self, authority: str) -> str:
        """The certificate of ``root`` or ``ca``."""
        return f"{self.base}/certs/{authority}.crt"


# --- subjects


def subject_name(subject: Subject) -> x509.Name:
    """The distinguished name of a citizen, by EN 319 412-2 §4.2.4, or of an organisation, by EN 319 412-3 §4.2.1.

    ``serialNumber`` is ``IDCES-`` and the NIF; the common name reads "SURNAMES NAME - NIF", its names
    shortened to fit 64 characters.

    Raises:
        MalformedRequest: A NIF that is not nine letters and digits, a name or first surname that is missing, too
            long or not printable; an organisation's identifier of another form.
    """
    if isinstance(subject, OrganisationSubject):
        return _organisation_name(subject)
    if not re.fullmatch(r"[0-9A-Z]{9}", subject.nif):
        raise MalformedRequest("a NIF has nine upper-case letters and digits")
    given_name = _name(subject.given_name, "given name")
    surname = _name(subject.first_surname, "first surname")
    if subject.second_surname:
        surname += " " + _name(subject.second_surname, "second surname")
    tail = f" - {subject.nif}"
    common_name = f"{surname} {given_name}"[: COMMON_NAME_LIMIT - len(tail)].rstrip() + tail
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "ES"),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, f"IDCES-{subject.nif}"),
            x509.NameAttribute(NameOID.SURNAME, surname),
            x509.NameAttribute(NameOID.GIVEN_NAME, given_name),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _organisation_name(subject: OrganisationSubject) -> x509.Name:
    # EN 319 412-1 §5.1.4: three letters for the kind of register, the country, a hyphen, the identifier.
    if not re.fullmatch(r"(?:VAT|NTR|PSD|LEI|[A-Z]{2}:)[A-Z]{2}-[0-9A-Za-z-]{1,40}", subject.organisation_id):
        raise MalformedRequest("an organisation's identifier looks like VATES-Q2826000H")
    organisation = _name(subject.organisation, "organisation")[:COMMON_NAME_LIMIT].rstrip()
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "ES"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.ORGANIZATION_IDENTIFIER, subject.organisation_id),
            x509.NameAttribute(NameOID.COMMON_NAME, organisation),
        ]
    )


def _name(text: str, what: str) -> str:
    name = unicodedata.normalize("NFC", text).strip()
    if not name or len(name) > NAME_LIMIT_CHARACTERS or not name.isprintable():
        raise MalformedRequest(f"the {what} must have 1 to {NAME_LIMIT_CHARACTERS} printable characters")
    return name


# --- keys


def check_citizen_key(key: CertificatePublicKeyTypes) -> KeyType:
    """P-256, or RSA of exactly 3072 bits with the usual exponent; nothing else is certified.

    Raises:
        AlgorithmNotAllowed: Another curve, size, exponent or kind of key.
    """
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return KeyType.P256
    if isinstance(key, rsa.RSAPublicKey) and key.key_size == 3072 and key.public_numbers().e == RSA_EXPONENT:  # noqa: PLR2004 - the name of the key type
        return KeyType.RSA3072
    raise AlgorithmNotAllowed("a citizen's key must be P-256 or RSA-3072 with exponent 65537")


def spki_of(key: CertificatePublicKeyTypes) -> bytes:
    """SubjectPublicKeyInfo, DER, with an uncompressed point."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


# --- extensions


def root_extensions(key: CertificatePublicKeyTypes) -> Extensions:
    """A self-signed anchor."""
    return [
        (x509.BasicConstraints(ca=True, path_length=1), True),
        (_key_usage("key_cert_sign", "crl_sign"), True),
        (x509.SubjectKeyIdentifier.from_public_key(key), False),
    ]


def ca_extensions(key: CertificatePublicKeyTypes, root: x509.Certificate, addresses: PublicAddresses) -> Extensions:
    """The issuing CA; the root's CRL alone tells its status, since the OCSP responder is the CA's, not the root's."""
    return [
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (_key_usage("key_cert_sign", "crl_sign"), True),
        (_policies(x509.ObjectIdentifier("2.5.29.32.0")), False),  # OID: RFC 5280 §4.2.1.4, anyPolicy
        *_identifiers(key, root),
        (_crl_at(addresses.crl("root")), False),
        (
            x509.AuthorityInformationAccess(
                [_access(AuthorityInformationAccessOID.CA_ISSUERS, addresses.certificate("root"))]
            ),
            False,
        ),
    ]


def citizen_extensions(key: CertificatePublicKeyTypes, ca: x509.Certificate, addresses: PublicAddresses) -> Extensions:
    """A citizen's signing certificate (EN 319 412-2 §4.3): contentCommitment is its only use.

    QcCompliance and QcSSCD are not claimed, because neither would be true.
    """
    return [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage("content_commitment"), True),
        (_policies(CITIZEN_POLICY), False),
        *_issued_by_ca(key, ca, addresses),
        (x509.UnrecognizedExtension(QC_STATEMENTS, _qc_statements(SEMANTICS_NATURAL_PERSON)), False),
    ]


def seal_extensions(key: CertificatePublicKeyTypes, ca: x509.Certificate, addresses: PublicAddresses) -> Extensions:
    """The organisation's seal (EN 319 412-3): as a citizen's certificate, under a policy of its own.

    contentCommitment alone (type A of EN 319 412-2 §4.3.2), so that the seal's key logs in nowhere.
    """
    return [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage("content_commitment"), True),
        (_policies(SEAL_POLICY), False),
        *_issued_by_ca(key, ca, addresses),
        (x509.UnrecognizedExtension(QC_STATEMENTS, _qc_statements(SEMANTICS_LEGAL_PERSON)), False),
    ]


def ocsp_extensions(key: CertificatePublicKeyTypes, ca: x509.Certificate) -> Extensions:
    """A delegated OCSP responder: nobody is asked about its own status (RFC 6960 §4.2.2.2.1)."""
    return [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage("digital_signature"), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), False),
        (x509.OCSPNoCheck(), False),
        *_identifiers(key, ca),
    ]


def tsa_extensions(key: CertificatePublicKeyTypes, ca: x509.Certificate, addresses: PublicAddresses) -> Extensions:
    """A time-stamping unit: timeStamping is its only extended key usage, and critical (RFC 3161 §2.3)."""
    return [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage("digital_signature"), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), True),
        (_policies(x509.ObjectIdentifier(TIMESTAMP_POLICY)), False),
        *_issued_by_ca(key, ca, addresses),
    ]


def _issued_by_ca(key: CertificatePublicKeyTypes, ca: x509.Certificate, addresses: PublicAddresses) -> Extensions:
    access = [
        _access(AuthorityInformationAccessOID.OCSP, addresses.ocsp),
        _access(AuthorityInformationAccessOID.CA_ISSUERS, addresses.certificate("ca")),
    ]
    return [
        *_identifiers(key, ca),
        (_crl_at(addresses.crl("ca")), False),
        (x509.AuthorityInformationAccess(access), False),
    ]


def _identifiers(key: CertificatePublicKeyTypes, issuer: x509.Certificate) -> Extensions:
    issuer_key_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return [
        (x509.SubjectKeyIdentifier.from_public_key(key), False),
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key_id), False),
    ]


def _key_usage(*uses: str) -> x509.KeyUsage:
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: name in uses for name in names})


def _policies(policy: x509.ObjectIdentifier) -> x509.CertificatePolicies:
    return x509.CertificatePolicies([x509.PolicyInformation(policy, None)])


def _crl_at(url: str) -> x509.CRLDistributionPoints:
    return x509.CRLDistributionPoints([x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None)])


def _access(method: x509.ObjectIdentifier, url: str) -> x509.AccessDescription:
    return x509.AccessDescription(method, x509.UniformResourceIdentifier(url))


def _qc_statements(semantics_id: str) -> bytes:
    semantics = _sequence([_oid(QC_SYNTAX_V2), _sequence([_oid(semantics_id)])])
    retention = _sequence([_oid(QC_RETENTION_PERIOD), core.Integer(RETENTION_YEARS).dump()])
    return _sequence([semantics, retention])


def _oid(dotted: str) -> bytes:
    encoded: bytes = core.ObjectIdentifier(dotted).dump()
    return encoded


def _sequence(parts: Iterable[bytes]) -> bytes:
    encoded: bytes = parser.emit(core.CLASS_NAME_TO_NUM_MAP["universal"], 1, core.Sequence.tag, b"".join(parts))
    return encoded


# --- the check of what came back


def check_issued(
    issued: IssuedCertificate, spki: bytes, subject: Subject, now: datetime, anchors: Sequence[x509.Certificate]
) -> x509.Certificate:
    """Accept an issuer's answer only if it certifies this key for this subject, now, for signing documents.

    Revocation is not asked here: the certificate is seconds old, and the document's finishing asks OCSP anyway.

    Args:
        issued: What the issuer gave.
        spki: The key that was to be certified, SubjectPublicKeyInfo in DER.
        subject: Whom it was to be certified for.
        now: Aware UTC.
        anchors: Pinned roots; one of them must have signed the last certificate of the chain.

    Returns:
        The subject's certificate, parsed.

    Raises:
        MalformedRequest: ``subject`` is not one that can be certified.
        UnfitCertificate: It does not parse, or key, subject, key usage, basic constraints, policy, validity, a
            signature of the chain or its root is off.
    """
    name = subject_name(subject)
    organisation = isinstance(subject, OrganisationSubject)
    policy, life = (SEAL_POLICY, SEAL_LIFE) if organisation else (CITIZEN_POLICY, CITIZEN_LIFE)
    try:
        certificate = x509.load_der_x509_certificate(issued.certificate)
        chain = [x509.load_der_x509_certificate(der) for der in issued.chain]
        _check_leaf(certificate, spki, name)
        _check_terms(certificate, policy, life)
        _check_chain([certificate, *chain], now, anchors)
    except UnfitCertificate:
        raise
    except Exception as exc:
        # Parsers and verifiers have many ways to fail on what an issuer may send; all mean the same here.
        raise UnfitCertificate("the issuer's answer cannot be read as a certificate with its chain") from exc
    return certificate


def _check_leaf(certificate: x509.Certificate, spki: bytes, name: x509.Name) -> None:
    if spki_of(certificate.public_key()) != spki:
        raise UnfitCertificate("the issuer certified another key")
    if certificate.subject.public_bytes() != name.public_bytes():
        raise UnfitCertificate("the issuer certified another subject")
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    if not usage.critical or usage.value != _key_usage("content_commitment"):
        raise UnfitCertificate("the issuer allowed another key usage than contentCommitment")


def _check_terms(certificate: x509.Certificate, policy: x509.ObjectIdentifier, life: timedelta) -> None:
    if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
        raise UnfitCertificate("the issuer made a CA of who signs")
    policies = certificate.extensions.get_extension_for_class(x509.CertificatePolicies).value
    if [information.policy_identifier for information in policies] != [policy]:
        raise UnfitCertificate("the issuer certified under another policy")
    if certificate.not_valid_after_utc - certificate.not_valid_before_utc > life + CITIZEN_BACKDATE:
        raise UnfitCertificate("the issuer's certificate is valid for too long")


def _check_chain(path: list[x509.Certificate], now: datetime, anchors: Sequence[x509.Certificate]) -> None:
    if len(path) == 1:
        raise UnfitCertificate("the issuer gave no chain")
    for certificate, issuer in pairwise(path):
        _check_link(certificate, issuer)
    # RFC 5280 §6.1: the root is given, not sent; an answer that ends in a root of its own ends nowhere.
    roots = [anchor for anchor in anchors if anchor.subject == path[-1].issuer and _signed_by(path[-1], anchor)]
    if not roots:
        raise UnfitCertificate("the issuer's chain does not lead to a trusted root")
    for certificate in (*path, roots[0]):
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise UnfitCertificate("a certificate of the issuer's chain is not valid now")
    for below, authority in enumerate((*path[1:], roots[0])):
        most = authority.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        if most is not None and below > most:
            raise UnfitCertificate("the issuer's chain is longer than a CA of it allows")


def _check_link(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    if not issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
        raise UnfitCertificate("a certificate of the issuer's chain is not a CA's")
    if not issuer.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign:
        raise UnfitCertificate("a CA of the issuer's chain may not sign certificates")
    if not _signed_by(certificate, issuer):
        raise UnfitCertificate("a signature of the issuer's chain does not verify")


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True

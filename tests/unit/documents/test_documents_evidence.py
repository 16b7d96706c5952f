"""Whose addresses are asked for revocation data: those in certificates that our authorities have signed."""

from datetime import UTC, datetime, timedelta

import pytest
from asn1crypto import x509 as asn1
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from documents.model import FetchKind
from documents.pades.evidence import gather
from documents.pades.trust import Evidence
from domain.errors import TimestampUnavailable
from tests.testkit.documents import fetch_of
from tests.testkit.pki import InMemoryPKI

NOW = datetime.now(UTC)


def certificate(name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> asn1.Certificate:
    """A stranger's, with an address of ours in it."""
    url = x509.UniformResourceIdentifier("http://pki.test/ocsp")
    access = x509.AuthorityInformationAccess([x509.AccessDescription(AuthorityInformationAccessOID.OCSP, url)])
    builder = x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
        public_key=key.public_key(),
        serial_number=7,
        not_valid_before=NOW - timedelta(days=1),
        not_valid_after=NOW + timedelta(days=1),
    )
    made = builder.add_extension(access, critical=False).sign(key, hashes.SHA256())
    return asn1.Certificate.load(made.public_bytes(Encoding.DER))


def asked_for(leaf: asn1.Certificate, evidence: Evidence, pki: InMemoryPKI) -> list[FetchKind]:
    pki.fetched.clear()
    gather(leaf, pki.trust, fetch_of(pki), NOW, evidence, signer=True)
    return [kind for kind, _ in pki.fetched]


def test_a_citizens_certificate_names_whom_to_ask(pki: InMemoryPKI) -> None:
    citizen = asn1.Certificate.load(pki.certify().chain[0])
    assert FetchKind.OCSP in asked_for(citizen, Evidence(), pki)


@pytest.mark.parametrize("between", [False, True], ids=["named directly", "through an authority of its own"])
def test_a_strangers_certificate_that_only_names_our_authority_makes_nobody_ask(
    pki: InMemoryPKI, *, between: bool
) -> None:
    ours = x509.load_der_x509_certificate(pki.ca).subject
    key = ec.generate_private_key(ec.SECP256R1())
    evidence = Evidence()
    issuer = ours
    if between:
        authority = certificate("Mallory's authority", ours, key)
        evidence.add_certificates([authority])
        issuer = x509.load_der_x509_certificate(authority.dump()).subject
    leaf = certificate("Mallory", issuer, key)
    with pytest.raises(TimestampUnavailable):
        asked_for(leaf, evidence, pki)
    assert pki.fetched == []

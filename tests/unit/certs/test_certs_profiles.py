"""Contents of certificates, and the check of an issuer's answer with its forged twins."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from certs import profiles
from certs.anchors import TrustAnchors
from certs.issuer import CitizenSubject, IssuedCertificate
from certs.profiles import PublicAddresses, UnfitCertificate, check_issued, spki_of, subject_name
from domain.algorithms import KeyType
from domain.errors import IssuerUnavailable, MalformedRequest
from tests.testkit.pki import DEMO_CITIZEN, InMemoryPKI, new_key

OpenSSL = Callable[..., "CompletedProcess[str]"]

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
DAY = timedelta(days=1)
CA_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")])
ROOT_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test root")])
ROOT_KEY = ec.generate_private_key(ec.SECP256R1())


# --- subjects


def test_subject_by_en_319_412_2() -> None:
    found = [(attribute.oid, attribute.value) for attribute in subject_name(DEMO_CITIZEN)]
    assert found == [
        (NameOID.COUNTRY_NAME, "ES"),
        (NameOID.SERIAL_NUMBER, "IDCES-12345678Z"),
        (NameOID.SURNAME, "García Núñez"),
        (NameOID.GIVEN_NAME, "Begoña"),
        (NameOID.COMMON_NAME, "García Núñez Begoña - 12345678Z"),
    ]


def test_one_surname_and_decomposed_letters() -> None:
    decomposed = CitizenSubject(nif="X1234567L", given_name="Zoë", first_surname=" Muñoz ")
    composed = CitizenSubject(nif="X1234567L", given_name="Zo\u00eb", first_surname="Mu\u00f1oz")
    assert subject_name(decomposed).public_bytes() == subject_name(composed).public_bytes()
    assert subject_name(composed).get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "Muñoz Zoë - X1234567L"


def test_a_long_name_keeps_its_nif_in_64_characters() -> None:
    long = CitizenSubject(nif="12345678Z", given_name="M" * 60, first_surname="G" * 60, second_surname="N" * 60)
    common_name = subject_name(long).get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    assert len(common_name) == 64
    assert str(common_name).endswith(" - 12345678Z")


@pytest.mark.parametrize(
    "change",
    [
        {"nif": ""},
        {"nif": "12345678z"},
        {"nif": "12345678Z\n"},
        {"nif": "1234567890"},
        {"given_name": ""},
        {"given_name": "\u202eBegoña"},
        {"given_name": "B\x00"},
        {"given_name": "\ud800"},
        {"first_surname": "   "},
        {"first_surname": "G" * 129},
        {"second_surname": "N\nN"},
        {"second_surname": " "},
    ],
)
def test_subjects_that_are_refused(change: dict[str, str]) -> None:
    with pytest.raises(MalformedRequest):
        subject_name(replace(DEMO_CITIZEN, **change))


# --- contents of what the development PKI issues


def test_openssl_reads_the_citizens_certificate(pki: InMemoryPKI, openssl: OpenSSL, tmp_path: Path) -> None:
    (tmp_path / "citizen.der").write_bytes(pki.certify().issued.certificate)

    text = openssl(
        "x509",
        "-inform",
        "DER",
        "-in",
        "citizen.der",
        "-noout",
        "-text",
        "-nameopt",
        "utf8,sep_comma_plus_space,esc_ctrl",
    ).stdout
    lines = [line.strip() for line in text.splitlines()]

    def after(title: str) -> str:
        return lines[next(number for number, line in enumerate(lines) if line.startswith(title)) + 1]

    assert (
        "Subject: C=ES, serialNumber=IDCES-12345678Z, SN=García Núñez, GN=Begoña, CN=García Núñez Begoña - 12345678Z"
        in lines
    )
    assert after("X509v3 Key Usage: critical") == "Non Repudiation"
    assert after("X509v3 Basic Constraints: critical") == "CA:FALSE"
    assert after("X509v3 Certificate Policies:") == "Policy: 2.999.1.1"
    assert "OCSP - URI:http://pki.test/ocsp" in lines
    assert "CA Issuers - URI:http://pki.test/certs/ca.crt" in lines
    assert "URI:http://pki.test/crl/ca.crl" in lines
    assert not any("Extended Key Usage" in line for line in lines)


def test_qc_statements_are_retention_and_semantics_and_no_claim_to_be_qualified(pki: InMemoryPKI) -> None:
    extension = pki.certify().certificate.extensions.get_extension_for_oid(profiles.QC_STATEMENTS)
    assert isinstance(extension.value, x509.UnrecognizedExtension)
    assert not extension.critical

    statements = core.SequenceOf.load(extension.value.value, spec=core.SequenceOf, strict=True)
    dumped = [core.Sequence.load(bytes(statement.dump())).contents for statement in statements]

    semantics = (
        core.ObjectIdentifier("1.3.6.1.5.5.7.11.2").dump()
        + b"\x30\x09"
        + core.ObjectIdentifier("0.4.0.194121.1.1").dump()
    )
    retention = core.ObjectIdentifier("0.4.0.1862.1.3").dump() + core.Integer(15).dump()
    assert dumped == [semantics, retention]


def test_validity_of_a_citizen_begins_two_hours_early_and_ends_inside_the_cas(pki: InMemoryPKI) -> None:
    certificate, ca = pki.certify().certificate, pki.authority.certificates.ca
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert life == timedelta(days=730, hours=2)
    assert ca.not_valid_before_utc < certificate.not_valid_before_utc
    assert certificate.not_valid_after_utc < ca.not_valid_after_utc


def test_usages_of_the_pkis_own_certificates(pki: InMemoryPKI) -> None:
    own = pki.authority.certificates
    usages = {
        name: {
            use
            for use in ("digital_signature", "content_commitment", "key_cert_sign", "crl_sign")
            if getattr(certificate.extensions.get_extension_for_class(x509.KeyUsage).value, use)
        }
        for name, certificate in {"root": own.root, "ca": own.ca, "ocsp": own.ocsp, "tsa": own.tsa}.items()
    }
    assert usages == {
        "root": {"key_cert_sign", "crl_sign"},
        "ca": {"key_cert_sign", "crl_sign"},
        "ocsp": {"digital_signature"},
        "tsa": {"digital_signature"},
    }
    stamping = own.tsa.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert stamping.critical
    assert list(stamping.value) == [ExtendedKeyUsageOID.TIME_STAMPING]
    answering = own.ocsp.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert list(answering.value) == [ExtendedKeyUsageOID.OCSP_SIGNING]
    assert own.ocsp.extensions.get_extension_for_class(x509.OCSPNoCheck)
    access = own.ca.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    assert [description.access_method for description in access] == [AuthorityInformationAccessOID.CA_ISSUERS]


# --- check_issued


@dataclass(frozen=True, kw_only=True)
class Forge:
    """An issuer that does as told; as it stands, it issues what was asked for."""

    subject: CitizenSubject = DEMO_CITIZEN
    key_usage: x509.KeyUsage | None = None
    usage_critical: bool = True
    not_before: datetime = NOW - DAY
    not_after: datetime = NOW + DAY
    ca_may_sign: bool = True
    ca_is_ca: bool = True
    ca_not_after: datetime = NOW + DAY
    root_key: ec.EllipticCurvePrivateKey = ROOT_KEY
    policy: x509.ObjectIdentifier = profiles.CITIZEN_POLICY
    leaf_is_ca: bool = False

    def issue(self, key: ec.EllipticCurvePrivateKey) -> IssuedCertificate:
        ca_key = ec.generate_private_key(ec.SECP256R1())
        usage = {**NO_USE, "key_cert_sign": self.ca_may_sign, "crl_sign": True}
        ca_extensions: profiles.Extensions = [
            (x509.BasicConstraints(ca=self.ca_is_ca, path_length=None), True),
            (x509.KeyUsage(**usage), True),
            (x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), False),
        ]
        validity = (NOW - DAY, self.ca_not_after)
        ca = signed(CA_NAME, ca_key.public_key(), self.root_key, ca_extensions, validity, issuer=ROOT_NAME)
        changed: dict[type[x509.ExtensionType], tuple[x509.ExtensionType | None, bool]] = {
            x509.KeyUsage: (self.key_usage, self.usage_critical),
            x509.BasicConstraints: (x509.BasicConstraints(ca=self.leaf_is_ca, path_length=None), True),
            x509.CertificatePolicies: (
                x509.CertificatePolicies([x509.PolicyInformation(self.policy, None)]),
                False,
            ),
        }
        extensions: profiles.Extensions = []
        for extension, critical in profiles.citizen_extensions(key.public_key(), ca, PublicAddresses("http://x")):
            other, otherwise = changed.get(type(extension), (None, critical))
            extensions.append((other or extension, otherwise))
        name = subject_name(self.subject)
        leaf = signed(name, key.public_key(), ca_key, extensions, (self.not_before, self.not_after))
        return IssuedCertificate(leaf.public_bytes(Encoding.DER), (ca.public_bytes(Encoding.DER),))


NO_USE = dict.fromkeys(
    (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    ),
    False,
)


def signed(
    name: x509.Name,
    public: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    extensions: profiles.Extensions,
    validity: tuple[datetime, datetime],
    issuer: x509.Name = CA_NAME,
) -> x509.Certificate:
    builder = x509.CertificateBuilder(issuer, name, public, 1, *validity)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(issuer_key, hashes.SHA256())


def root(
    key: ec.EllipticCurvePrivateKey = ROOT_KEY, *, not_after: datetime = NOW + DAY, path_length: int | None = None
) -> x509.Certificate:
    extensions: profiles.Extensions = [
        (x509.BasicConstraints(ca=True, path_length=path_length), True),
        (x509.KeyUsage(**{**NO_USE, "key_cert_sign": True}), True),
    ]
    return signed(ROOT_NAME, key.public_key(), key, extensions, (NOW - DAY, not_after), issuer=ROOT_NAME)


ANCHORS = (root(),)


@pytest.fixture
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def test_what_was_asked_for_is_accepted(key: ec.EllipticCurvePrivateKey) -> None:
    issued = Forge().issue(key)
    certificate = check_issued(issued, spki_of(key.public_key()), DEMO_CITIZEN, NOW, ANCHORS)
    assert certificate.public_bytes(Encoding.DER) == issued.certificate


def test_the_development_pkis_answer_is_accepted(pki: InMemoryPKI) -> None:
    citizen = pki.certify()
    now = datetime.now(UTC)
    checked = check_issued(
        citizen.issued, spki_of(citizen.key.public_key()), DEMO_CITIZEN, now, [pki.authority.certificates.root]
    )
    assert checked == citizen.certificate


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (Forge(subject=replace(DEMO_CITIZEN, nif="87654321X")), "another subject"),
        (Forge(subject=replace(DEMO_CITIZEN, given_name="BEGOÑA")), "another subject"),
        (Forge(key_usage=x509.KeyUsage(**{**NO_USE, "digital_signature": True})), "another key usage"),
        (
            Forge(key_usage=x509.KeyUsage(**{**NO_USE, "content_commitment": True, "digital_signature": True})),
            "another key usage",
        ),
        (Forge(usage_critical=False), "another key usage"),
        (Forge(not_before=NOW + DAY / 24), "not valid now"),
        (Forge(not_after=NOW - DAY / 24), "not valid now"),
        (Forge(ca_not_after=NOW - DAY / 24), "not valid now"),
        (Forge(ca_may_sign=False), "may not sign"),
        (Forge(ca_is_ca=False), "not a CA's"),
        (Forge(root_key=ec.generate_private_key(ec.SECP256R1())), "trusted root"),
        (Forge(policy=profiles.SEAL_POLICY), "another policy"),
        (Forge(leaf_is_ca=True), "made a CA"),
        (Forge(not_after=NOW + profiles.CITIZEN_LIFE, ca_not_after=NOW + 900 * DAY), "too long"),
    ],
)
def test_forged_twins(key: ec.EllipticCurvePrivateKey, forge: Forge, reason: str) -> None:
    with pytest.raises(UnfitCertificate, match=reason):
        check_issued(forge.issue(key), spki_of(key.public_key()), DEMO_CITIZEN, NOW, ANCHORS)


def test_a_root_that_comes_with_the_answer_is_no_root(key: ec.EllipticCurvePrivateKey) -> None:
    own = ec.generate_private_key(ec.SECP256R1())
    issued = Forge(root_key=own).issue(key)
    brought = replace(issued, chain=(*issued.chain, root(own).public_bytes(Encoding.DER)))
    with pytest.raises(UnfitCertificate, match="trusted root"):
        check_issued(brought, spki_of(key.public_key()), DEMO_CITIZEN, NOW, ANCHORS)
    with pytest.raises(UnfitCertificate, match="trusted root"):
        check_issued(Forge().issue(key), spki_of(key.public_key()), DEMO_CITIZEN, NOW, ())
    # Of several roots one has to fit; one of the same name with another key does not.
    assert check_issued(Forge().issue(key), spki_of(key.public_key()), DEMO_CITIZEN, NOW, (root(own), *ANCHORS))


def test_a_root_that_is_over_or_allows_no_further_ca(key: ec.EllipticCurvePrivateKey) -> None:
    issued, spki = Forge().issue(key), spki_of(key.public_key())
    with pytest.raises(UnfitCertificate, match="not valid now"):
        check_issued(issued, spki, DEMO_CITIZEN, NOW, [root(not_after=NOW - DAY / 24)])
    with pytest.raises(UnfitCertificate, match="longer than a CA"):
        check_issued(issued, spki, DEMO_CITIZEN, NOW, [root(path_length=0)])
    assert check_issued(issued, spki, DEMO_CITIZEN, NOW, [root(path_length=1)])


def test_anchors_are_read_once_they_are_there(tmp_path: Path) -> None:
    with pytest.raises(IssuerUnavailable, match="configured"):
        TrustAnchors(None).load()
    anchors = TrustAnchors(tmp_path / "root.pem")
    for content in (None, b"", b"-----BEGIN CERTIFICATE-----\nhalf"):
        if content is not None:
            (tmp_path / "root.pem").write_bytes(content)
        with pytest.raises(IssuerUnavailable, match="cannot be read"):
            anchors.load()
    (tmp_path / "root.pem").write_bytes(ANCHORS[0].public_bytes(Encoding.PEM))
    assert anchors.load() == ANCHORS


def test_another_key(key: ec.EllipticCurvePrivateKey) -> None:
    other = spki_of(new_key(KeyType.P256).public_key())
    with pytest.raises(UnfitCertificate, match="another key"):
        check_issued(Forge().issue(key), other, DEMO_CITIZEN, NOW, ANCHORS)


def test_a_namesake_of_the_ca_did_not_sign(key: ec.EllipticCurvePrivateKey) -> None:
    leaf, stranger = Forge().issue(key), Forge().issue(key)
    swapped = IssuedCertificate(leaf.certificate, stranger.chain)
    with pytest.raises(UnfitCertificate, match="does not verify"):
        check_issued(swapped, spki_of(key.public_key()), DEMO_CITIZEN, NOW, ANCHORS)


def test_an_unrelated_ca_did_not_sign(key: ec.EllipticCurvePrivateKey, pki: InMemoryPKI) -> None:
    now = datetime.now(UTC)
    leaf = Forge(not_before=now - DAY, not_after=now + DAY).issue(key).certificate
    swapped = IssuedCertificate(leaf, (pki.ca,))
    with pytest.raises(UnfitCertificate, match="does not verify"):
        check_issued(swapped, spki_of(key.public_key()), DEMO_CITIZEN, now, [pki.authority.certificates.root])


def test_a_flipped_bit_in_the_signature(key: ec.EllipticCurvePrivateKey) -> None:
    issued = Forge().issue(key)
    damaged = issued.certificate[:-1] + bytes([issued.certificate[-1] ^ 1])
    with pytest.raises(UnfitCertificate, match="does not verify"):
        check_issued(IssuedCertificate(damaged, issued.chain), spki_of(key.public_key()), DEMO_CITIZEN, NOW, ANCHORS)


def test_no_chain(key: ec.EllipticCurvePrivateKey) -> None:
    issued = Forge().issue(key)
    with pytest.raises(UnfitCertificate, match="no chain"):
        check_issued(IssuedCertificate(issued.certificate, ()), spki_of(key.public_key()), DEMO_CITIZEN, NOW, ANCHORS)


@pytest.mark.parametrize("garbage", [b"", b"\x30\x00", b"not a certificate", b"\x30\x82\xff\xff"])
def test_garbage(key: ec.EllipticCurvePrivateKey, garbage: bytes) -> None:
    issued = Forge().issue(key)
    spki = spki_of(key.public_key())
    with pytest.raises(UnfitCertificate, match="cannot be read"):
        check_issued(IssuedCertificate(garbage, issued.chain), spki, DEMO_CITIZEN, NOW, ANCHORS)
    with pytest.raises(UnfitCertificate, match="cannot be read"):
        check_issued(IssuedCertificate(issued.certificate, (garbage,)), spki, DEMO_CITIZEN, NOW, ANCHORS)


def test_a_ca_without_key_usage_is_no_ca_here(key: ec.EllipticCurvePrivateKey) -> None:
    signer = ed25519.Ed25519PrivateKey.generate()
    builder = x509.CertificateBuilder(CA_NAME, CA_NAME, signer.public_key(), 1, NOW - DAY, NOW + DAY)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    bare = builder.sign(signer, None).public_bytes(Encoding.DER)
    issued = IssuedCertificate(Forge().issue(key).certificate, (bare,))
    with pytest.raises(UnfitCertificate, match="cannot be read"):
        check_issued(issued, spki_of(key.public_key()), DEMO_CITIZEN, NOW, ANCHORS)


def test_refusal_reads_as_the_issuer_being_at_fault() -> None:
    assert issubclass(UnfitCertificate, IssuerUnavailable)
    assert UnfitCertificate.code == "ca_unavailable"

"""Issuing, revoking and CRLs, under a clock that the tests move."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from asn1crypto import keys
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from certs.csr import assemble_csr, csr_to_be_signed
from certs.issuer import OrganisationSubject, RevocationReason
from certs.pki.authority import PublicURLChanged
from certs.pki.keys import TokenKey
from certs.pki.service import PKI
from certs.profiles import UnfitCertificate, check_issued, spki_of, subject_name
from domain.algorithms import KeyType
from domain.errors import AlgorithmNotAllowed, IdempotencyConflict, MalformedRequest, NotFound, StateConflict
from hsm.keys import SigningKey
from tests.testkit.pki import (
    DEMO_CITIZEN,
    IN_MEMORY_URL,
    InMemoryPKI,
    PrivateKey,
    SoftwareToken,
    a_csr,
    new_key,
    sign_with,
)
from tests.testkit.time import FrozenClock

NEIGHBOUR = replace(DEMO_CITIZEN, nif="87654321X", given_name="Ana")
ORGANISATION = OrganisationSubject(organisation="Ayuntamiento", organisation_id="VATES-P2807900B")
DAY_SECONDS = 86400


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def pki(clock: FrozenClock) -> InMemoryPKI:
    return InMemoryPKI(clock)


def ca_crl(pki: InMemoryPKI) -> x509.CertificateRevocationList:
    return x509.load_der_x509_crl(pki.authority.crl("ca"))


def crl_number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


# --- issuing


def test_the_same_key_gives_the_same_certificate_again(pki: InMemoryPKI, clock: FrozenClock) -> None:
    key = new_key(KeyType.P256)
    first = pki.authority.issue(a_csr(key), DEMO_CITIZEN, "one")
    clock.advance(60)
    assert pki.authority.issue(a_csr(key), DEMO_CITIZEN, "one") == first
    assert pki.authority.issue(a_csr(key), DEMO_CITIZEN, "another") == first


def test_a_rsa_key_is_certified(pki: InMemoryPKI, rsa_key: PrivateKey) -> None:
    issued = pki.authority.issue(a_csr(rsa_key), DEMO_CITIZEN, "one")
    certificate = x509.load_der_x509_certificate(issued.certificate)
    assert certificate.public_key() == rsa_key.public_key()
    assert issued.chain == (pki.ca,)


def test_a_seal_is_certified_for_an_organisation_alone(pki: InMemoryPKI, clock: FrozenClock) -> None:
    key = new_key(KeyType.P256)
    csr = a_csr(key, ORGANISATION)
    issued = pki.authority.issue(csr, ORGANISATION, "seal-1")
    again = pki.authority.issue(csr, ORGANISATION, "seal-1")
    assert issued == again
    certificate = check_issued(
        issued, spki_of(key.public_key()), ORGANISATION, clock.now(), [pki.authority.certificates.root]
    )
    assert certificate.subject.rfc4514_string() == "CN=Ayuntamiento,2.5.4.97=VATES-P2807900B,O=Ayuntamiento,C=ES"
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.content_commitment
    assert not usage.digital_signature
    policies = certificate.extensions.get_extension_for_class(x509.CertificatePolicies).value
    assert [policy.policy_identifier.dotted_string for policy in policies] == ["2.999.1.3"]
    with pytest.raises(UnfitCertificate, match="another subject"):
        check_issued(issued, spki_of(key.public_key()), DEMO_CITIZEN, clock.now(), [pki.authority.certificates.root])
    with pytest.raises(StateConflict):
        pki.authority.issue(a_csr(key, DEMO_CITIZEN), DEMO_CITIZEN, "citizen-1")
    pki.authority.revoke(certificate.serial_number, RevocationReason.KEY_COMPROMISE)
    assert ca_crl(pki).get_revoked_certificate_by_serial_number(certificate.serial_number) is not None


@pytest.mark.parametrize("organisation_id", ["", "P2807900B", "VATES", "vates-p2807900b", "VATES-"])
def test_an_organisation_needs_an_identifier_of_its_kind(pki: InMemoryPKI, organisation_id: str) -> None:
    subject = OrganisationSubject(organisation="Ayuntamiento", organisation_id=organisation_id)
    with pytest.raises(MalformedRequest, match="identifier"):
        pki.authority.issue(b"", subject, "seal-1")


def test_serial_numbers_are_long_and_differ(pki: InMemoryPKI) -> None:
    serials = [pki.certify().certificate.serial_number for _ in range(20)]
    assert len(set(serials)) == 20
    assert {serial.bit_length() for serial in serials} == {127}


def test_a_key_of_somebody_else_is_refused(pki: InMemoryPKI) -> None:
    key = new_key(KeyType.P256)
    pki.authority.issue(a_csr(key), DEMO_CITIZEN, "one")
    with pytest.raises(StateConflict, match="another subject"):
        pki.authority.issue(a_csr(key, NEIGHBOUR), NEIGHBOUR, "two")


def test_a_revoked_key_is_refused(pki: InMemoryPKI) -> None:
    citizen = pki.certify()
    pki.revoke(citizen)
    with pytest.raises(StateConflict, match="revoked"):
        pki.authority.issue(a_csr(citizen.key), DEMO_CITIZEN, "again")


def test_an_idempotency_key_belongs_to_one_key(pki: InMemoryPKI) -> None:
    pki.authority.issue(a_csr(new_key(KeyType.P256)), DEMO_CITIZEN, "one")
    with pytest.raises(IdempotencyConflict):
        pki.authority.issue(a_csr(new_key(KeyType.P256)), DEMO_CITIZEN, "one")


def test_the_subject_asked_for_must_be_that_of_the_request(pki: InMemoryPKI) -> None:
    with pytest.raises(MalformedRequest, match="another subject"):
        pki.authority.issue(a_csr(new_key(KeyType.P256)), NEIGHBOUR, "one")


def test_a_request_signed_by_another_key_is_refused(pki: InMemoryPKI) -> None:
    to_be_signed = csr_to_be_signed(DEMO_CITIZEN, spki_of(new_key(KeyType.P256).public_key()))
    forged = assemble_csr(to_be_signed, sign_with(new_key(KeyType.P256), to_be_signed), KeyType.P256)
    with pytest.raises(MalformedRequest, match="does not verify"):
        pki.authority.issue(forged, DEMO_CITIZEN, "one")


def test_a_request_hashed_with_sha512_is_refused(pki: InMemoryPKI) -> None:
    builder = x509.CertificateSigningRequestBuilder(subject_name(DEMO_CITIZEN))
    csr = builder.sign(new_key(KeyType.P256), hashes.SHA512()).public_bytes(Encoding.DER)
    with pytest.raises(MalformedRequest, match="SHA-256"):
        pki.authority.issue(csr, DEMO_CITIZEN, "one")


@pytest.mark.parametrize(
    "make",
    [
        lambda: rsa.generate_private_key(65537, 2048),
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: ec.generate_private_key(ec.SECP256K1()),
    ],
    ids=["RSA-2048", "P-384", "secp256k1"],
)
def test_other_keys_are_refused(pki: InMemoryPKI, make: "type[PrivateKey]") -> None:
    builder = x509.CertificateSigningRequestBuilder(subject_name(DEMO_CITIZEN))
    csr = builder.sign(make(), hashes.SHA256()).public_bytes(Encoding.DER)
    with pytest.raises(AlgorithmNotAllowed):
        pki.authority.issue(csr, DEMO_CITIZEN, "one")


def test_a_short_exponent_is_refused(pki: InMemoryPKI) -> None:
    key = rsa.generate_private_key(3, 3072)
    with pytest.raises(AlgorithmNotAllowed):
        pki.authority.issue(a_csr(key), DEMO_CITIZEN, "one")


def test_a_point_off_the_curve_is_refused(pki: InMemoryPKI) -> None:
    key = new_key(KeyType.P256)
    csr = a_csr(key)
    point = keys.PublicKeyInfo.load(spki_of(key.public_key()))["public_key"].contents[1:]
    off = point[:-1] + bytes([point[-1] ^ 1])
    assert point in csr
    with pytest.raises(MalformedRequest, match="cannot be read"):
        pki.authority.issue(csr.replace(point, off), DEMO_CITIZEN, "one")


@pytest.mark.parametrize("csr", [b"", b"\x30\x00", b"garbage", bytes(range(256)), b"\x30" * 9000])
def test_garbage_is_refused(pki: InMemoryPKI, csr: bytes) -> None:
    with pytest.raises(MalformedRequest):
        pki.authority.issue(csr, DEMO_CITIZEN, "one")


@pytest.mark.parametrize("key", ["", "k" * 201])
def test_idempotency_keys_have_a_length(pki: InMemoryPKI, key: str) -> None:
    with pytest.raises(MalformedRequest):
        pki.authority.issue(a_csr(new_key(KeyType.P256)), DEMO_CITIZEN, key)


# --- revoking


def test_revocation_is_in_the_next_crl_with_its_reason(pki: InMemoryPKI, clock: FrozenClock) -> None:
    citizen = pki.certify()
    before = ca_crl(pki)
    clock.advance(5)
    pki.revoke(citizen, RevocationReason.CESSATION_OF_OPERATION)
    after = ca_crl(pki)

    assert before.get_revoked_certificate_by_serial_number(citizen.certificate.serial_number) is None
    entry = after.get_revoked_certificate_by_serial_number(citizen.certificate.serial_number)
    assert entry is not None
    assert entry.revocation_date_utc == clock.now()
    assert (
        entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.cessation_of_operation
    )
    assert crl_number(after) == crl_number(before) + 1


def test_an_unspecified_reason_is_left_out(pki: InMemoryPKI) -> None:
    citizen = pki.certify()
    pki.revoke(citizen, RevocationReason.UNSPECIFIED)
    entry = ca_crl(pki).get_revoked_certificate_by_serial_number(citizen.certificate.serial_number)
    assert entry is not None
    assert list(entry.extensions) == []


def test_revoking_twice_changes_nothing(pki: InMemoryPKI, clock: FrozenClock) -> None:
    citizen = pki.certify()
    pki.revoke(citizen, RevocationReason.KEY_COMPROMISE)
    first = ca_crl(pki)
    clock.advance(60)
    pki.revoke(citizen, RevocationReason.SUPERSEDED)
    assert ca_crl(pki) == first


def test_only_citizens_are_revoked(pki: InMemoryPKI) -> None:
    own = pki.authority.certificates
    for serial in (1, own.root.serial_number, own.ca.serial_number, own.ocsp.serial_number, own.tsa.serial_number):
        with pytest.raises(NotFound):
            pki.authority.revoke(serial, RevocationReason.SUPERSEDED)
    assert len(ca_crl(pki)) == 0


# --- CRLs


def test_a_crl_is_kept_for_half_of_its_life(pki: InMemoryPKI, clock: FrozenClock) -> None:
    first = ca_crl(pki)
    clock.advance(3.5 * DAY_SECONDS - 1)
    assert ca_crl(pki) == first
    clock.advance(1)
    second = ca_crl(pki)
    assert crl_number(second) == crl_number(first) + 1
    assert second.last_update_utc == clock.now()
    assert second.next_update_utc == clock.now() + timedelta(days=7)


def test_a_crl_is_never_older_than_a_certificate(pki: InMemoryPKI, clock: FrozenClock) -> None:
    first = ca_crl(pki)
    clock.advance(DAY_SECONDS)
    citizen = pki.certify()
    assert first.last_update_utc < citizen.certificate.not_valid_before_utc
    assert ca_crl(pki).last_update_utc >= citizen.certificate.not_valid_before_utc


def test_root_and_ca_sign_their_own_lists(pki: InMemoryPKI) -> None:
    own = pki.authority.certificates
    root_crl = x509.load_der_x509_crl(pki.authority.crl("root"))
    assert root_crl.is_signature_valid(own.root.public_key())  # type: ignore[arg-type]
    assert ca_crl(pki).is_signature_valid(own.ca.public_key())  # type: ignore[arg-type]
    assert not ca_crl(pki).is_signature_valid(own.root.public_key())  # type: ignore[arg-type]


# --- the store


def test_a_second_start_changes_nothing(tmp_path: Path, clock: FrozenClock) -> None:
    token, url = SoftwareToken(), f"sqlite:///{tmp_path / 'pki.sqlite'}"
    first = PKI.open(token, url, IN_MEMORY_URL, clock)
    issued = first.authority.issue(a_csr(key := new_key(KeyType.P256)), DEMO_CITIZEN, "one")
    crl = first.authority.crl("ca")

    second = PKI.open(token, url, IN_MEMORY_URL, clock)

    assert second.authority.certificates == first.authority.certificates
    assert second.authority.crl("ca") == crl
    assert second.authority.issue(a_csr(key), DEMO_CITIZEN, "one") == issued


def test_other_addresses_are_refused(tmp_path: Path, clock: FrozenClock) -> None:
    token, url = SoftwareToken(), f"sqlite:///{tmp_path / 'pki.sqlite'}"
    PKI.open(token, url, IN_MEMORY_URL, clock)
    with pytest.raises(PublicURLChanged, match=IN_MEMORY_URL):
        PKI.open(token, url, "http://elsewhere.test", clock)


def test_another_token_is_refused(tmp_path: Path, clock: FrozenClock) -> None:
    url = f"sqlite:///{tmp_path / 'pki.sqlite'}"
    PKI.open(SoftwareToken(), url, IN_MEMORY_URL, clock)
    with pytest.raises(ValueError, match="not for the token's key"):
        PKI.open(SoftwareToken(), url, IN_MEMORY_URL, clock)


class FailingToken(SoftwareToken):
    """Signs so many times, and then no more."""

    def __init__(self, signatures: int) -> None:
        super().__init__()
        self.left = signatures

    def sign_with(self, key: SigningKey, digest: bytes) -> bytes:
        if self.left == 0:
            raise ConnectionError("the token is gone")
        self.left -= 1
        return super().sign_with(key, digest)


def test_a_first_start_that_breaks_off_leaves_nothing(tmp_path: Path, clock: FrozenClock) -> None:
    url = f"sqlite:///{tmp_path / 'pki.sqlite'}"
    broken = FailingToken(3)
    with pytest.raises(ConnectionError):
        PKI.open(broken, url, IN_MEMORY_URL, clock)
    # Other keys and another address: nothing of the first try may be left to contradict them.
    whole = PKI.open(SoftwareToken(), url, "http://elsewhere.test", clock)
    assert whole.authority.certificates.tsa.issuer == whole.authority.certificates.ca.subject


def test_a_token_key_signs_sha256_only_and_stays_inside() -> None:
    key = TokenKey(SoftwareToken(), SigningKey.PKI_CA)
    key.public_key().verify(key.sign(b"data", ec.ECDSA(hashes.SHA256())), b"data", ec.ECDSA(hashes.SHA256()))
    with pytest.raises(ValueError, match="SHA-256"):
        key.sign(b"data", ec.ECDSA(hashes.SHA512()))
    with pytest.raises(NotImplementedError):
        key.private_numbers()


def test_times_follow_the_clock(pki: InMemoryPKI, clock: FrozenClock) -> None:
    certificate = pki.certify().certificate
    assert certificate.not_valid_before_utc == clock.now() - timedelta(hours=2)
    assert certificate.not_valid_after_utc == clock.now() + timedelta(days=730)

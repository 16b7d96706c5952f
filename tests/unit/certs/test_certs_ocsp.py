"""OCSP answers, read by cryptography; OpenSSL judges them in the integration tests."""

from datetime import timedelta

import pytest
from asn1crypto import ocsp as asn1_ocsp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from certs.issuer import RevocationReason
from certs.pki.ocsp import REASONS
from tests.testkit.pki import InMemoryPKI
from tests.testkit.time import FrozenClock


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def pki(clock: FrozenClock) -> InMemoryPKI:
    return InMemoryPKI(clock)


def ask(
    pki: InMemoryPKI,
    certificate: x509.Certificate,
    issuer: x509.Certificate | None = None,
    algorithm: hashes.HashAlgorithm | None = None,
    nonce: bytes | None = None,
) -> ocsp.OCSPResponse:
    builder = ocsp.OCSPRequestBuilder().add_certificate(
        certificate, issuer or pki.authority.certificates.ca, algorithm or hashes.SHA256()
    )
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return ocsp.load_der_ocsp_response(pki.ocsp.respond(builder.build().public_bytes(Encoding.DER)))


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])  # noqa: S303 - names the issuer
def test_good_whatever_hash_names_the_issuer(
    pki: InMemoryPKI, clock: FrozenClock, algorithm: hashes.HashAlgorithm
) -> None:
    citizen = pki.certify()
    answer = ask(pki, citizen.certificate, algorithm=algorithm)

    assert answer.certificate_status is ocsp.OCSPCertStatus.GOOD
    assert answer.serial_number == citizen.certificate.serial_number
    assert answer.this_update_utc == clock.now()
    assert answer.next_update_utc == clock.now() + timedelta(days=1)
    assert answer.produced_at_utc == clock.now()


def test_it_is_signed_by_the_delegated_responder(pki: InMemoryPKI) -> None:
    answer = ask(pki, pki.certify().certificate)
    responder = pki.authority.certificates.ocsp
    public = responder.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(answer.signature, answer.tbs_response_bytes, ec.ECDSA(hashes.SHA256()))
    assert answer.certificates == [responder]
    assert answer.responder_key_hash == x509.SubjectKeyIdentifier.from_public_key(public).digest


@pytest.mark.parametrize("reason", list(RevocationReason))
def test_revoked_from_that_moment_with_the_reason(
    pki: InMemoryPKI, clock: FrozenClock, reason: RevocationReason
) -> None:
    citizen = pki.certify()
    revoked_at = clock.now()
    pki.revoke(citizen, reason)
    clock.advance(60)
    answer = ask(pki, citizen.certificate)

    assert answer.certificate_status is ocsp.OCSPCertStatus.REVOKED
    assert answer.revocation_time_utc == revoked_at
    assert answer.revocation_reason is not None
    assert answer.revocation_reason.value == reason.value


def test_every_reason_has_its_name() -> None:
    assert set(REASONS) == set(RevocationReason)


def test_unknown_for_a_serial_that_was_never_issued(pki: InMemoryPKI) -> None:
    certificate = pki.certify().certificate
    ca = pki.authority.certificates.ca
    by_hash = ask(pki, certificate)
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        by_hash.issuer_name_hash, by_hash.issuer_key_hash, certificate.serial_number + 1, hashes.SHA256()
    )
    answer = ocsp.load_der_ocsp_response(pki.ocsp.respond(builder.build().public_bytes(Encoding.DER)))
    assert answer.certificate_status is ocsp.OCSPCertStatus.UNKNOWN

    # The CA's own certificate is the root's: its serial number means nothing here.
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        by_hash.issuer_name_hash, by_hash.issuer_key_hash, ca.serial_number, hashes.SHA256()
    )
    answer = ocsp.load_der_ocsp_response(pki.ocsp.respond(builder.build().public_bytes(Encoding.DER)))
    assert answer.certificate_status is ocsp.OCSPCertStatus.UNKNOWN


def test_another_issuers_certificate_is_not_ours_to_answer(pki: InMemoryPKI) -> None:
    own = pki.authority.certificates
    answer = ask(pki, own.ca, issuer=own.root)
    assert answer.response_status is ocsp.OCSPResponseStatus.UNAUTHORIZED


@pytest.mark.parametrize("size", [1, 16, 32, 128])
def test_a_nonce_comes_back(pki: InMemoryPKI, size: int) -> None:
    answer = ask(pki, pki.certify().certificate, nonce=b"n" * size)
    assert answer.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == b"n" * size


def test_no_nonce_where_none_was_sent(pki: InMemoryPKI) -> None:
    assert list(ask(pki, pki.certify().certificate).extensions) == []


@pytest.mark.parametrize("size", [0, 129])
def test_nonces_outside_rfc_9654(pki: InMemoryPKI, size: int) -> None:
    answer = ask(pki, pki.certify().certificate, nonce=b"n" * size)
    assert answer.response_status is ocsp.OCSPResponseStatus.MALFORMED_REQUEST


@pytest.mark.parametrize("garbage", [b"", b"\x30\x00", b"garbage", bytes(range(256)), b"\x30" * 5000])
def test_garbage(pki: InMemoryPKI, garbage: bytes) -> None:
    answer = ocsp.load_der_ocsp_response(pki.ocsp.respond(garbage))
    assert answer.response_status is ocsp.OCSPResponseStatus.MALFORMED_REQUEST


def test_two_certificates_at_once(pki: InMemoryPKI) -> None:
    ca = pki.authority.certificates.ca
    single = ocsp.OCSPRequestBuilder().add_certificate(pki.certify().certificate, ca, hashes.SHA256()).build()
    request = asn1_ocsp.OCSPRequest.load(single.public_bytes(Encoding.DER))
    request["tbs_request"]["request_list"].append(request["tbs_request"]["request_list"][0].copy())
    answer = ocsp.load_der_ocsp_response(pki.ocsp.respond(request.dump(force=True)))
    assert answer.response_status is ocsp.OCSPResponseStatus.MALFORMED_REQUEST


def test_every_truncation_of_a_request(pki: InMemoryPKI) -> None:
    ca = pki.authority.certificates.ca
    builder = ocsp.OCSPRequestBuilder().add_certificate(pki.certify().certificate, ca, hashes.SHA256())
    request = builder.add_extension(x509.OCSPNonce(b"n" * 16), critical=False).build().public_bytes(Encoding.DER)
    statuses = {
        ocsp.load_der_ocsp_response(pki.ocsp.respond(request[:size])).response_status for size in range(len(request))
    }
    assert statuses == {ocsp.OCSPResponseStatus.MALFORMED_REQUEST}

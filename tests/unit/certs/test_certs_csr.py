"""Certification requests, judged by OpenSSL and cryptography."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from cryptography import x509

from certs.csr import assemble_csr, csr_to_be_signed
from certs.issuer import CitizenSubject
from certs.profiles import spki_of, subject_name
from domain.algorithms import KeyType
from domain.errors import MalformedRequest
from tests.testkit.pki import DEMO_CITIZEN, PrivateKey, a_csr, new_key, sign_with

OpenSSL = Callable[..., "CompletedProcess[str]"]


@pytest.mark.parametrize("key_type", list(KeyType))
def test_both_judges_accept_it(key_type: KeyType, rsa_key: PrivateKey, openssl: OpenSSL, tmp_path: Path) -> None:
    key = rsa_key if key_type is KeyType.RSA3072 else new_key(key_type)
    csr = a_csr(key)
    (tmp_path / "csr.der").write_bytes(csr)

    verified = openssl("req", "-inform", "DER", "-in", "csr.der", "-noout", "-verify", "-subject", "-nameopt", "utf8")
    parsed = x509.load_der_x509_csr(csr)

    assert verified.returncode == 0
    assert "verify OK" in verified.stderr
    assert "serialNumber=IDCES-12345678Z, SN=García Núñez, GN=Begoña" in verified.stdout
    assert parsed.is_signature_valid
    assert parsed.subject == subject_name(DEMO_CITIZEN)
    assert spki_of(parsed.public_key()) == spki_of(key.public_key())


@pytest.mark.parametrize("key_type", list(KeyType))
def test_a_signature_over_something_else_is_refused(
    key_type: KeyType, rsa_key: PrivateKey, openssl: OpenSSL, tmp_path: Path
) -> None:
    key = rsa_key if key_type is KeyType.RSA3072 else new_key(key_type)
    to_be_signed = csr_to_be_signed(DEMO_CITIZEN, spki_of(key.public_key()))
    csr = assemble_csr(to_be_signed, sign_with(key, to_be_signed + b"\0"), key_type)
    (tmp_path / "csr.der").write_bytes(csr)

    verified = openssl("req", "-inform", "DER", "-in", "csr.der", "-noout", "-verify")

    assert "verify OK" not in verified.stderr
    assert not x509.load_der_x509_csr(csr).is_signature_valid


def test_what_is_signed_stays_as_it_was() -> None:
    key = new_key(KeyType.P256)
    to_be_signed = csr_to_be_signed(DEMO_CITIZEN, spki_of(key.public_key()))

    csr = assemble_csr(to_be_signed, sign_with(key, to_be_signed), KeyType.P256)

    assert x509.load_der_x509_csr(csr).tbs_certrequest_bytes == to_be_signed


def test_no_request_for_a_subject_that_cannot_be_certified() -> None:
    nobody = CitizenSubject(nif="12345678Z", given_name=" ", first_surname="García")
    with pytest.raises(MalformedRequest):
        csr_to_be_signed(nobody, spki_of(new_key(KeyType.P256).public_key()))

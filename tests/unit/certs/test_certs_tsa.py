"""Time-stamp tokens, judged by OpenSSL; requests that are refused, with the failure RFC 3161 names."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from asn1crypto import core, tsp
from cryptography.hazmat.primitives.serialization import Encoding

from certs.pki.service import PKI
from certs.profiles import TIMESTAMP_POLICY
from tests.testkit.pki import IN_MEMORY_URL, InMemoryPKI, SoftwareToken
from tests.testkit.time import FrozenClock

OpenSSL = Callable[..., "CompletedProcess[str]"]

DATA = b"data to be stamped"
GARBAGE_IDS = ["empty", "empty sequence", "text", "bytes", "trailing byte", "too long"]


def a_request(algorithm: str = "sha256", **fields: Any) -> bytes:
    imprint = {
        "hash_algorithm": {"algorithm": algorithm},
        "hashed_message": hashlib.new(algorithm, DATA).digest(),
    }
    request: bytes = tsp.TimeStampReq({"version": 1, "message_imprint": imprint, **fields}).dump()
    return request


def info_of(response: bytes) -> Any:
    return tsp.TimeStampResp.load(response)["time_stamp_token"]["content"]["encap_content_info"]["content"].parsed


def status_of(response: bytes) -> tuple[str, set[str]]:
    info = tsp.PKIStatusInfo.load(bytes(core.Sequence.load(response, strict=True).contents))
    return info["status"].native, info["fail_info"].native


def granted(pki: InMemoryPKI, request: bytes) -> bytes:
    answer = pki.tsa.respond(request)
    assert answer.readable
    assert tsp.TimeStampResp.load(answer.response)["status"]["status"].native == "granted"
    return answer.response


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("certificates", [True, False])
def test_openssl_accepts_the_token(
    pki: InMemoryPKI, openssl: OpenSSL, tmp_path: Path, algorithm: str, *, certificates: bool
) -> None:
    own = pki.authority.certificates
    (tmp_path / "root.pem").write_bytes(own.root.public_bytes(Encoding.PEM))
    below = own.ca.public_bytes(Encoding.PEM) + own.tsa.public_bytes(Encoding.PEM)
    (tmp_path / "below.pem").write_bytes(below)
    (tmp_path / "data").write_bytes(DATA)
    (tmp_path / "other").write_bytes(DATA + b"!")
    wanted = ["-cert"] if certificates else []
    openssl("ts", "-query", "-data", "data", f"-{algorithm}", *wanted, "-out", "query")
    (tmp_path / "reply").write_bytes(granted(pki, (tmp_path / "query").read_bytes()))

    trust = ("-CAfile", "root.pem", "-untrusted", "below.pem")
    by_query = openssl("ts", "-verify", "-queryfile", "query", "-in", "reply", *trust)
    by_data = openssl("ts", "-verify", "-data", "data", "-in", "reply", *trust)
    by_other = openssl("ts", "-verify", "-data", "other", "-in", "reply", *trust)

    assert "Verification: OK" in by_query.stdout
    assert "Verification: OK" in by_data.stdout
    assert "Verification: FAILED" in by_other.stdout


def test_contents_of_the_token() -> None:
    clock = FrozenClock()
    clock.advance(0.75)
    pki = InMemoryPKI(clock)
    info = info_of(granted(pki, a_request("sha384", nonce=2**63 + 7, req_policy=TIMESTAMP_POLICY)))

    assert info["version"].native == "v1"
    assert info["policy"].native == TIMESTAMP_POLICY
    assert info["message_imprint"]["hashed_message"].native == hashlib.sha384(DATA).digest()
    assert info["gen_time"].native == clock.now().replace(microsecond=0)
    assert info["accuracy"]["seconds"].native == 1
    assert info["nonce"].native == 2**63 + 7


def test_the_signer_is_named_by_its_sha256(pki: InMemoryPKI) -> None:
    response = granted(pki, a_request())
    signed = tsp.TimeStampResp.load(response)["time_stamp_token"]["content"]
    attributes = {
        attribute["type"].native: attribute["values"][0] for attribute in signed["signer_infos"][0]["signed_attrs"]
    }
    cert_id = attributes["signing_certificate_v2"]["certs"][0]
    tsa = pki.authority.certificates.tsa
    assert cert_id["cert_hash"].native == hashlib.sha256(tsa.public_bytes(Encoding.DER)).digest()
    assert cert_id["issuer_serial"]["serial_number"].native == tsa.serial_number
    assert set(attributes) == {"content_type", "message_digest", "signing_certificate_v2"}


def test_certificates_only_if_asked_for(pki: InMemoryPKI) -> None:
    without = tsp.TimeStampResp.load(granted(pki, a_request()))["time_stamp_token"]["content"]
    having = tsp.TimeStampResp.load(granted(pki, a_request(cert_req=True)))["time_stamp_token"]["content"]
    assert isinstance(without["certificates"], core.Void)
    serials = {certificate.chosen.serial_number for certificate in having["certificates"]}
    own = pki.authority.certificates
    assert serials == {own.tsa.serial_number, own.ca.serial_number}


def test_serial_numbers_never_repeat_even_after_a_restart(tmp_path: Path) -> None:
    token, url, clock = SoftwareToken(), f"sqlite:///{tmp_path / 'pki.sqlite'}", FrozenClock()
    serials = []
    for _ in range(2):
        pki = PKI.open(token, url, IN_MEMORY_URL, clock)
        serials += [info_of(pki.tsa.respond(a_request()).response)["serial_number"].native for _ in range(3)]
    assert serials == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("request_bytes", "failure"),
    [
        (a_request("sha1"), "bad_alg"),
        (a_request("sha3_256"), "bad_alg"),
        (a_request(req_policy="2.999.9"), "unaccepted_policy"),
        (a_request(extensions=[{"extn_id": "2.999.9", "extn_value": b"\x05\x00"}]), "unaccepted_extensions"),
        (a_request(nonce=2**256), "bad_request"),
        (a_request(version=2), "bad_request"),
    ],
    ids=["SHA-1", "SHA3-256", "policy", "extension", "nonce", "version"],
)
def test_refusals(pki: InMemoryPKI, request_bytes: bytes, failure: str) -> None:
    answer = pki.tsa.respond(request_bytes)
    assert status_of(answer.response) == ("rejection", {failure})


def test_an_imprint_of_the_wrong_length(pki: InMemoryPKI) -> None:
    imprint = {"hash_algorithm": {"algorithm": "sha256"}, "hashed_message": b"1" * 31}
    answer = pki.tsa.respond(tsp.TimeStampReq({"version": 1, "message_imprint": imprint}).dump())
    assert answer.readable
    assert status_of(answer.response) == ("rejection", {"bad_data_format"})


@pytest.mark.parametrize(
    "garbage", [b"", b"\x30\x00", b"garbage", bytes(range(256)), a_request() + b"\0", b"\x30" * 5000], ids=GARBAGE_IDS
)
def test_garbage(pki: InMemoryPKI, garbage: bytes) -> None:
    answer = pki.tsa.respond(garbage)
    assert not answer.readable
    assert status_of(answer.response) == ("rejection", {"bad_data_format"})


def test_every_truncation_and_every_changed_byte(pki: InMemoryPKI) -> None:
    request = a_request("sha256", nonce=7, cert_req=True)
    variants = [request[:size] for size in range(len(request))]
    variants += [
        request[:place] + bytes([request[place] ^ 0xFF]) + request[place + 1 :] for place in range(len(request))
    ]
    for variant in variants:
        status, _ = status_of(pki.tsa.respond(variant).response)
        # A changed imprint or nonce is still a request.
        assert status in {"granted", "rejection"}

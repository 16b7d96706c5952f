"""The development PKI as its own process over a real SoftHSM token, judged by OpenSSL and pyhanko-certvalidator."""

import asyncio
import base64
import json
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from asn1crypto import crl as asn1_crl
from asn1crypto import ocsp as asn1_ocsp
from asn1crypto import tsp
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from pyhanko_certvalidator import CertificateValidator, ValidationContext
from pyhanko_certvalidator.errors import RevokedError
from pyhanko_certvalidator.registry import SimpleCertificateStore

from certs.anchors import TrustAnchors
from certs.http_issuer import HTTPIssuer
from certs.issuer import IssuedCertificate, RevocationReason
from certs.pki.trust import write_trust_anchors
from certs.profiles import check_issued, spki_of
from domain.algorithms import KeyType
from domain.errors import IssuerUnavailable
from hsm.settings import TokenSettings
from tests.testkit.pki import (
    DEMO_CITIZEN,
    PROJECT,
    RunningPKI,
    a_csr,
    make_pki_token,
    new_key,
    running_pki,
    write_pki_settings,
)

OpenSSL = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> TokenSettings:
    return make_pki_token(tmp_path_factory.mktemp("token"))


@pytest.fixture(scope="module")
def pki(token: TokenSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPKI]:
    with running_pki(tmp_path_factory.mktemp("pki"), token) as running:
        yield running


@pytest.fixture
async def issuer(pki: RunningPKI) -> AsyncIterator[HTTPIssuer]:
    issuer = HTTPIssuer(pki.issuer_socket)
    yield issuer
    await issuer.close()


@pytest.fixture
def openssl(tmp_path: Path) -> OpenSSL:
    def call(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(["openssl", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)

    return call


async def certify(
    pki: RunningPKI, issuer: HTTPIssuer, key_type: KeyType = KeyType.P256
) -> tuple[IssuedCertificate, x509.Certificate]:
    key = new_key(key_type)
    issued = await issuer.issue(a_csr(key), DEMO_CITIZEN, idempotency_key=secrets.token_hex(8))
    anchors = TrustAnchors(pki.trust / "root.pem").load()
    return issued, check_issued(issued, spki_of(key.public_key()), DEMO_CITIZEN, datetime.now(UTC), anchors)


def write_pem(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(Encoding.PEM))


def verify_arguments(trust: Path) -> list[str]:
    return [
        "verify",
        "-x509_strict",
        "-crl_check_all",
        "-CAfile",
        str(trust / "root.pem"),
        "-untrusted",
        str(trust / "ca.pem"),
        "-CRLfile",
        str(trust / "root.crl"),
        "-CRLfile",
        str(trust / "ca.crl"),
    ]


@pytest.mark.parametrize("key_type", list(KeyType))
async def test_openssl_follows_a_citizen_from_good_to_revoked(
    pki: RunningPKI, issuer: HTTPIssuer, openssl: OpenSSL, tmp_path: Path, key_type: KeyType
) -> None:
    _, certificate = await certify(pki, issuer, key_type)
    write_pem(tmp_path / "citizen.pem", certificate)
    write_trust_anchors(tmp_path / "trust", pki.public_url)
    ask = ["ocsp", "-issuer", "trust/ca.pem", "-cert", "citizen.pem", "-url", f"{pki.public_url}/ocsp"]
    ask += ["-CAfile", "trust/root.pem"]

    verified = openssl(*verify_arguments(tmp_path / "trust"), "citizen.pem")
    status = openssl(*ask)
    assert verified.stdout == "citizen.pem: OK\n"
    assert "citizen.pem: good" in status.stdout
    assert "Response verify OK" in status.stderr
    # A responder that leaves the nonce out, or sends another, is told of.
    assert "nonce" not in status.stderr.lower()

    await issuer.revoke(certificate.serial_number, RevocationReason.KEY_COMPROMISE)
    write_trust_anchors(tmp_path / "trust", pki.public_url)

    verified = openssl(*verify_arguments(tmp_path / "trust"), "citizen.pem")
    status = openssl(*ask)
    assert "certificate revoked" in verified.stderr
    assert "citizen.pem: revoked" in status.stdout
    assert "Reason: keyCompromise" in status.stdout


async def test_openssl_refuses_a_stranger(pki: RunningPKI, openssl: OpenSSL, tmp_path: Path) -> None:
    key = new_key(KeyType.P256)
    ca = x509.load_pem_x509_certificate((pki.trust / "ca.pem").read_bytes())
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(ca.subject, ca.subject, key.public_key(), 1, now, now + timedelta(days=1))
    write_pem(tmp_path / "stranger.pem", builder.sign(key, hashes.SHA256()))
    assert openssl(*verify_arguments(pki.trust), "stranger.pem").returncode != 0


def test_openssl_reads_the_crls(pki: RunningPKI, openssl: OpenSSL) -> None:
    for name in ("root", "ca"):
        read = openssl(
            *("crl", "-in", str(pki.trust / f"{name}.crl"), "-CAfile", str(pki.trust / f"{name}.pem")),
            *("-noout", "-crlnumber", "-nextupdate"),
        )
        assert "verify OK" in read.stderr
        assert "crlNumber=0x" in read.stdout
        next_update = datetime.strptime(
            read.stdout.partition("nextUpdate=")[2].strip(), "%b %d %H:%M:%S %Y %Z"
        ).replace(tzinfo=UTC)
        assert timedelta(days=6) < next_update - datetime.now(UTC) < timedelta(days=8)


def test_openssl_accepts_timestamps(pki: RunningPKI, openssl: OpenSSL, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"data to be stamped")
    trust = ("-CAfile", str(pki.trust / "root.pem"), "-untrusted", str(pki.trust / "ca.pem"))
    serials = []
    for algorithm in ("sha256", "sha384", "sha512"):
        openssl("ts", "-query", "-data", "data", f"-{algorithm}", "-cert", "-out", "query")
        answer = httpx.post(f"{pki.public_url}/tsa", content=(tmp_path / "query").read_bytes(), trust_env=False)
        (tmp_path / "reply").write_bytes(answer.content)
        assert "Verification: OK" in openssl("ts", "-verify", "-queryfile", "query", "-in", "reply", *trust).stdout
        text = openssl("ts", "-reply", "-in", "reply", "-text").stdout
        serials.append(next(line for line in text.splitlines() if line.startswith("Serial number")))
        # The last byte is the signature's.
        (tmp_path / "reply").write_bytes(answer.content[:-1] + bytes([answer.content[-1] ^ 1]))
        assert "Verification: OK" not in openssl("ts", "-verify", "-queryfile", "query", "-in", "reply", *trust).stdout
    assert len(set(serials)) == 3


async def test_certvalidator_with_crls_and_ocsp(pki: RunningPKI, issuer: HTTPIssuer) -> None:
    issued, _ = await certify(pki, issuer)
    async with httpx.AsyncClient(base_url=pki.public_url, trust_env=False) as client:
        await validate_with(client, issuer, issued)


async def validate_with(client: httpx.AsyncClient, issuer: HTTPIssuer, issued: IssuedCertificate) -> None:
    certificate = x509.load_der_x509_certificate(issued.certificate)
    citizen, ca = (asn1_x509.Certificate.load(der) for der in (issued.certificate, *issued.chain))
    root = asn1_x509.Certificate.load((await client.get("/certs/root.crt")).content)

    async def validate(*, by_ocsp: bool) -> None:
        lists = ("root",) if by_ocsp else ("root", "ca")
        request = ocsp.OCSPRequestBuilder().add_certificate(
            certificate, x509.load_der_x509_certificate(issued.chain[0]), hashes.SHA256()
        )
        answer = (await client.post("/ocsp", content=request.build().public_bytes(Encoding.DER))).content
        crls = [(await client.get(f"/crl/{name}.crl")).content for name in lists]
        context = ValidationContext(
            trust_roots=[root],
            other_certs=[ca],
            crls=[asn1_crl.CertificateList.load(crl) for crl in crls],
            ocsps=[asn1_ocsp.OCSPResponse.load(answer)] if by_ocsp else [],
            revocation_mode="require",
            allow_fetching=False,
        )
        validator = CertificateValidator(citizen, SimpleCertificateStore.from_certs([ca]), context)
        await validator.async_validate_usage(key_usage={"non_repudiation"})

    await validate(by_ocsp=False)
    await validate(by_ocsp=True)
    await issuer.revoke(certificate.serial_number, RevocationReason.SUPERSEDED)
    for by_ocsp in (False, True):
        with pytest.raises(RevokedError):
            await validate(by_ocsp=by_ocsp)


async def test_addresses_in_a_certificate_lead_to_what_they_name(pki: RunningPKI, issuer: HTTPIssuer) -> None:
    issued, certificate = await certify(pki, issuer)
    access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    at = {description.access_method._name: description.access_location.value for description in access}
    points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert points[0].full_name is not None
    async with httpx.AsyncClient(trust_env=False) as client:
        ca = await client.get(at["caIssuers"])
        crl = await client.get(points[0].full_name[0].value)
        request = ocsp.OCSPRequestBuilder().add_certificate(
            certificate,
            x509.load_der_x509_certificate(ca.content),
            hashes.SHA1(),  # noqa: S303 - names the issuer
        )
        encoded = base64.b64encode(request.build().public_bytes(Encoding.DER)).decode()
        status = await client.get(f"{at['OCSP']}/{encoded}")
    assert ca.content == issued.chain[0]
    public = x509.load_der_x509_certificate(ca.content).public_key()
    assert x509.load_der_x509_crl(crl.content).is_signature_valid(public)  # type: ignore[arg-type]
    assert ocsp.load_der_ocsp_response(status.content).certificate_status is ocsp.OCSPCertStatus.GOOD


async def test_many_callers_at_once_over_one_token(pki: RunningPKI, issuer: HTTPIssuer) -> None:
    imprint = {"hash_algorithm": {"algorithm": "sha256"}, "hashed_message": bytes(32)}
    query = tsp.TimeStampReq({"version": 1, "message_imprint": imprint}).dump()
    async with httpx.AsyncClient(base_url=pki.public_url, trust_env=False) as client:
        stamps = [client.post("/tsa", content=query) for _ in range(30)]
        lists = [client.get("/crl/ca.crl") for _ in range(10)]
        answers, certified = await asyncio.gather(
            asyncio.gather(*stamps, *lists), asyncio.gather(*(certify(pki, issuer) for _ in range(30)))
        )
    assert {answer.status_code for answer in answers} == {200}
    assert len({certificate.serial_number for _, certificate in certified}) == 30


async def test_a_proxy_in_the_environment_is_passed_by(
    pki: RunningPKI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    issuer = HTTPIssuer(pki.issuer_socket)
    _, certificate = await certify(pki, issuer)
    await issuer.close()
    write_trust_anchors(tmp_path / "trust", pki.public_url)
    ca = x509.load_pem_x509_certificate((tmp_path / "trust" / "ca.pem").read_bytes())
    certificate.verify_directly_issued_by(ca)


async def test_refusals_reach_the_core_as_the_issuers(issuer: HTTPIssuer) -> None:
    key = new_key(KeyType.P256)
    neighbour = replace(DEMO_CITIZEN, nif="87654321X")
    with pytest.raises(IssuerUnavailable, match="malformed_request"):
        await issuer.issue(a_csr(key), neighbour, idempotency_key="forged")
    with pytest.raises(IssuerUnavailable, match="not_found"):
        await issuer.revoke(1, RevocationReason.SUPERSEDED)


async def test_no_name_and_no_nif_in_the_log_at_debug_level(pki: RunningPKI, issuer: HTTPIssuer) -> None:
    _, certificate = await certify(pki, issuer)
    with pytest.raises(IssuerUnavailable):
        await issuer.issue(b"garbage", DEMO_CITIZEN, idempotency_key="garbage")
    log = pki.log.read_text()
    assert f"{certificate.serial_number:x}" in log
    for personal in (DEMO_CITIZEN.nif, DEMO_CITIZEN.given_name, DEMO_CITIZEN.first_surname):
        assert personal not in log
        assert json.dumps(personal)[1:-1] not in log


def test_the_issuing_face_is_closed_to_others(pki: RunningPKI) -> None:
    assert pki.issuer_socket.parent.stat().st_mode & 0o777 == 0o700
    assert httpx.post(f"{pki.public_url}/issue", json={}, trust_env=False).status_code == 404


async def test_it_comes_back_after_a_kill_with_what_it_had(token: TokenSettings, tmp_path: Path) -> None:
    key = new_key(KeyType.P256)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        kept = listening.dup()
        with running_pki(tmp_path, token, listening) as first:
            issuer = HTTPIssuer(first.issuer_socket)
            issued = await issuer.issue(a_csr(key), DEMO_CITIZEN, idempotency_key="one")
            await issuer.close()
            certificate = x509.load_der_x509_certificate(issued.certificate)
            root = (first.trust / "root.pem").read_bytes()
            first.process.send_signal(signal.SIGKILL)
            first.process.wait()
        assert first.issuer_socket.exists()
        with running_pki(tmp_path, token, kept) as second:
            assert (second.trust / "root.pem").read_bytes() == root
            issuer = HTTPIssuer(second.issuer_socket)
            assert await issuer.issue(a_csr(key), DEMO_CITIZEN, idempotency_key="one") == issued
            await issuer.revoke(certificate.serial_number, RevocationReason.SUPERSEDED)
            await issuer.close()
    assert second.process.returncode == 0
    assert not second.issuer_socket.exists()


def started(config: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "rubrica", "pki", "--config", str(config)]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=60)


def test_it_does_not_start_with_an_open_folder(token: TokenSettings, tmp_path: Path) -> None:
    (tmp_path / "issuer").mkdir(mode=0o755)
    ended = started(write_pki_settings(tmp_path, token, "http://127.0.0.1:1", port=0))
    assert ended.returncode != 0
    assert "closed to other users" in ended.stderr


def test_it_does_not_take_a_socket_from_a_living_process(pki: RunningPKI, token: TokenSettings, tmp_path: Path) -> None:
    config = write_pki_settings(tmp_path, token, "http://127.0.0.1:1", port=0, issuer_socket=pki.issuer_socket)
    assert started(config).returncode != 0
    with socket.socket(socket.AF_UNIX) as probe:
        assert probe.connect_ex(str(pki.issuer_socket)) == 0

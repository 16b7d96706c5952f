"""Both HTTP faces in process: what they answer to what they are for, and to everything else."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from asn1crypto import tsp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from certs.pki.service import TokenThread
from certs.pki.web import BODY_LIMIT_BYTES, create_issuing_app, create_public_app
from domain.algorithms import KeyType
from hsm.errors import SessionLost
from tests.testkit.pki import DEMO_CITIZEN, InMemoryPKI, SoftwareToken, a_csr, new_key

SUBJECT = {"nif": "12345678Z", "given_name": "Begoña", "first_surname": "García", "second_surname": "Núñez"}


@pytest.fixture
async def thread() -> AsyncIterator[TokenThread]:
    thread = TokenThread()
    yield thread
    thread.close()


@pytest.fixture
async def issuing(pki: InMemoryPKI, thread: TokenThread) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_issuing_app(pki.pki, thread))
    async with httpx.AsyncClient(transport=transport, base_url="http://pki") as client:
        yield client


@pytest.fixture
async def public(pki: InMemoryPKI, thread: TokenThread) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_public_app(pki.pki, thread))
    async with httpx.AsyncClient(transport=transport, base_url="http://pki") as client:
        yield client


def an_issue_body(**others: object) -> dict[str, Any]:
    csr = base64.b64encode(a_csr(new_key(KeyType.P256))).decode()
    return {"csr": csr, "subject": SUBJECT, "idempotency_key": "one", **others}


def an_ocsp_request(pki: InMemoryPKI) -> bytes:
    builder = ocsp.OCSPRequestBuilder()
    builder = builder.add_certificate(pki.certify().certificate, pki.authority.certificates.ca, hashes.SHA256())
    return builder.build().public_bytes(Encoding.DER)


# --- issuing face


async def test_issue_and_revoke(pki: InMemoryPKI, issuing: httpx.AsyncClient) -> None:
    answer = await issuing.post("/issue", json=an_issue_body())
    assert answer.status_code == 200
    certificate = x509.load_der_x509_certificate(base64.b64decode(answer.json()["certificate"]))
    assert [base64.b64decode(der) for der in answer.json()["chain"]] == [pki.ca]

    serial = f"{certificate.serial_number:x}"
    revoked = [await issuing.post("/revoke", json={"serial": serial, "reason": "superseded"}) for _ in range(2)]
    assert [answer.status_code for answer in revoked] == [204, 204]
    entry = pki.authority.find(certificate.serial_number)
    assert entry is not None
    assert entry.revoked_at is not None


async def test_the_same_request_ten_times_at_once_makes_one_certificate(issuing: httpx.AsyncClient) -> None:
    body = an_issue_body()
    answers = await asyncio.gather(*(issuing.post("/issue", json=body) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["certificate"] for answer in answers}) == 1


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"csr": "?"}, 400, "malformed_request"),
        ({"csr": ""}, 400, "malformed_request"),
        ({"csr": "AAAA"}, 400, "malformed_request"),
        ({"csr": 7}, 400, "malformed_request"),
        ({"subject": {**SUBJECT, "nif": "87654321X"}}, 400, "malformed_request"),
        ({"subject": {**SUBJECT, "given_name": "\x00"}}, 400, "malformed_request"),
        ({"subject": {**SUBJECT, "mother": "x"}}, 400, "malformed_request"),
        ({"subject": None}, 400, "malformed_request"),
        ({"idempotency_key": ""}, 400, "malformed_request"),
        ({"more": 1}, 400, "malformed_request"),
    ],
)
async def test_bad_issue_requests(
    issuing: httpx.AsyncClient, change: dict[str, object], status: int, code: str
) -> None:
    answer = await issuing.post("/issue", json=an_issue_body(**change))
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'"\\ud800"',
        b'{"csr": "\\ud800", "subject": 1, "\\ud800": 2}',
        b"[" * 30000,
    ],
)
@pytest.mark.parametrize("path", ["/issue", "/revoke"])
async def test_garbage_to_the_issuing_face(issuing: httpx.AsyncClient, path: str, body: bytes) -> None:
    answer = await issuing.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code in {400, 422}


async def test_a_refusal_does_not_echo_the_name(issuing: httpx.AsyncClient) -> None:
    answer = await issuing.post("/issue", json=an_issue_body(subject={**SUBJECT, "given_name": ["Begoña"]}))
    assert answer.json() == {"code": "malformed_request", "detail": "missing or malformed: body.subject.given_name"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"serial": "1", "reason": "superseded"}, 404),
        ({"serial": "XYZ", "reason": "superseded"}, 400),
        ({"serial": "", "reason": "superseded"}, 400),
        ({"serial": "f" * 41, "reason": "superseded"}, 400),
        ({"serial": 1, "reason": "superseded"}, 400),
        ({"serial": "1", "reason": "whim"}, 400),
        ({"serial": "1"}, 400),
    ],
)
async def test_bad_revocations(issuing: httpx.AsyncClient, body: dict[str, object], status: int) -> None:
    assert (await issuing.post("/revoke", json=body)).status_code == status


async def test_conflicts_are_409(pki: InMemoryPKI, issuing: httpx.AsyncClient) -> None:
    citizen = pki.certify()
    pki.revoke(citizen)
    csr = base64.b64encode(a_csr(citizen.key)).decode()
    answer = await issuing.post("/issue", json=an_issue_body(csr=csr))
    assert (answer.status_code, answer.json()["code"]) == (409, "state_conflict")


async def test_a_token_that_fails_is_503_and_issues_nothing(
    thread: TokenThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    pki = InMemoryPKI()

    def fail(*_: object) -> bytes:
        raise SessionLost("the token is gone")

    monkeypatch.setattr(SoftwareToken, "sign_with", fail)
    transport = httpx.ASGITransport(create_issuing_app(pki.pki, thread))
    body = an_issue_body()
    async with httpx.AsyncClient(transport=transport, base_url="http://pki") as client:
        failed = await client.post("/issue", json=body)
        with pki.authority._storage.transaction() as tx:
            left = tx.by_idempotency_key("one")
        monkeypatch.undo()
        again = await client.post("/issue", json=body)
    assert (failed.status_code, failed.json()["code"]) == (503, "hsm_unavailable")
    assert left is None
    assert again.status_code == 200


# --- public face


async def test_the_public_face_neither_issues_nor_revokes(public: httpx.AsyncClient) -> None:
    assert (await public.post("/issue", json=an_issue_body())).status_code == 404
    assert (await public.post("/revoke", json={"serial": "1", "reason": "superseded"})).status_code == 404


async def test_certificates_and_crls(pki: InMemoryPKI, public: httpx.AsyncClient) -> None:
    own = pki.authority.certificates
    for name, certificate in (("root", own.root), ("ca", own.ca)):
        answer = await public.get(f"/certs/{name}.crt")
        assert answer.headers["content-type"] == "application/pkix-cert"
        assert x509.load_der_x509_certificate(answer.content) == certificate
        crl = await public.get(f"/crl/{name}.crl")
        assert crl.headers["content-type"] == "application/pkix-crl"
        assert x509.load_der_x509_crl(crl.content).issuer == certificate.subject


@pytest.mark.parametrize(
    "path", ["/certs/tsa.crt", "/crl/x.crl", "/crl/..%2fca.crl", "/crl/", "/", "/docs", "/openapi.json"]
)
async def test_nothing_else_is_there(public: httpx.AsyncClient, path: str) -> None:
    assert (await public.get(path)).status_code in {400, 404}


async def test_ocsp_by_post_and_by_get(pki: InMemoryPKI, public: httpx.AsyncClient) -> None:
    request = an_ocsp_request(pki)
    encoded = base64.b64encode(request).decode()
    answers = [
        await public.post("/ocsp", content=request),
        await public.get(f"/ocsp/{quote(encoded, safe='')}"),
        await public.get(f"/ocsp/{encoded}"),
    ]
    for answer in answers:
        assert answer.headers["content-type"] == "application/ocsp-response"
        assert ocsp.load_der_ocsp_response(answer.content).certificate_status is ocsp.OCSPCertStatus.GOOD


@pytest.mark.parametrize("garbage", [b"", b"garbage", bytes(range(256))])
async def test_garbage_to_ocsp(public: httpx.AsyncClient, garbage: bytes) -> None:
    answers = [
        await public.post("/ocsp", content=garbage),
        await public.get(f"/ocsp/{quote(base64.b64encode(garbage or b'0').decode(), safe='')}"),
        await public.get("/ocsp/%ff%00!"),
    ]
    for answer in answers:
        assert answer.status_code == 200
        status = ocsp.load_der_ocsp_response(answer.content).response_status
        assert status is ocsp.OCSPResponseStatus.MALFORMED_REQUEST


async def test_a_timestamp(public: httpx.AsyncClient) -> None:
    imprint = {"hash_algorithm": {"algorithm": "sha256"}, "hashed_message": hashlib.sha256(b"x").digest()}
    answer = await public.post("/tsa", content=tsp.TimeStampReq({"version": 1, "message_imprint": imprint}).dump())
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/timestamp-reply")
    assert tsp.TimeStampResp.load(answer.content)["status"]["status"].native == "granted"


@pytest.mark.parametrize("garbage", [b"", b"garbage", bytes(range(256))])
async def test_garbage_to_the_tsa(public: httpx.AsyncClient, garbage: bytes) -> None:
    answer = await public.post("/tsa", content=garbage)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/timestamp-reply")


@pytest.mark.parametrize("path", ["/tsa", "/ocsp"])
async def test_bodies_have_an_end(public: httpx.AsyncClient, path: str) -> None:
    answer = await public.post(path, content=b"0" * (BODY_LIMIT_BYTES + 1))
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")


async def test_the_demo_citizen_is_the_body_s_subject() -> None:
    assert {name: getattr(DEMO_CITIZEN, name) for name in SUBJECT} == SUBJECT

"""What an agency's system does: create, upload, submit, look, collect, verify."""

import base64
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from rubrica_client import jws
from rubrica_client.gate import pinned_key
from rubrica_client.jws import JWSInvalid, PrivateKey
from rubrica_client.problems import send

ASSERTION_LIFE_SECONDS = 60
TIMEOUT_SECONDS = 120.0
CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class NewDocument:
    """A document to be signed."""

    title: str
    """What the citizen is shown, also in the SMS."""
    content: bytes | Path = field(default=b"", repr=False)
    """Its octets, or the file that has them, where it goes with the transaction (``send``)."""
    media_type: str = "application/pdf"
    """What they are, without parameters."""

    def chunks(self) -> Iterator[bytes]:
        """The octets, piece by piece."""
        if isinstance(self.content, Path):
            yield from _chunks(self.content)
        else:
            yield from (self.content[at : at + CHUNK_BYTES] for at in range(0, len(self.content), CHUNK_BYTES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """A new transaction."""

    id: str
    review_url: str = field(repr=False)
    """Where the citizen's browser goes; whoever has it may look."""
    link_token: str = field(repr=False)


class Agency:
    """One registered client: how it proves who it is, and what it believes; the same over REST and gRPC."""

    def __init__(
        self,
        client_id: str,
        private_key: PrivateKey,
        audience: str,
        now: Callable[[], float],
        certificate_chain: Sequence[x509.Certificate],
    ) -> None:
        """What every face needs.

        Raises:
            ValueError: The first certificate is not the key's, or there is none and the key is not an elliptic curve's.
        """
        if certificate_chain and certificate_chain[0].public_key() != private_key.public_key():
            raise ValueError("the first certificate of the chain is not the private key's")
        if not certificate_chain and not isinstance(private_key, ec.EllipticCurvePrivateKey):
            raise ValueError("without a certificate the registered key is a P-256 key")
        self._client_id = client_id
        self._key = private_key
        self._audience = audience
        self._now = now
        self._header: dict[str, Any] = {"kid": client_id, "typ": "JWT"}
        if certificate_chain:
            # RFC 7515 §4.1.6: base64, not base64url, of DER.
            ders = (each.public_bytes(Encoding.DER) for each in certificate_chain)
            self._header["x5c"] = [base64.b64encode(der).decode() for der in ders]

    def verify_result(
        self, token: str, token_key: ec.EllipticCurvePublicKey | bytes, *, nonce: str = ""
    ) -> dict[str, Any]:
        """The claims of a result token made for this client.

        Args:
            token: From the return address or the status.
            token_key: The core's public TOK key or its PEM, pinned.
            nonce: The one given at creation.

        Raises:
            JWSInvalid: Not by that key, not a result, for someone else, another nonce, or over.
        """
        claims = jws.verify(token, pinned_key(token_key), kind="result+jwt")
        if claims.get("aud") != self._client_id or claims.get("nonce") != nonce:
            raise JWSInvalid("the result is not for this client and nonce")
        expires = claims.get("exp")
        if type(expires) is not int or expires <= self._now():
            raise JWSInvalid("the result is over")
        return claims

    @staticmethod
    def verify_receipt(receipt: str, token_key: ec.EllipticCurvePublicKey | bytes) -> dict[str, Any]:
        """The claims of a receipt.

        Raises:
            JWSInvalid: Not a receipt by that key.
        """
        return jws.verify(receipt, pinned_key(token_key), kind="receipt+jwt")

    def assertion(self) -> str:
        """A private_key_jwt (RFC 7523) that serves one request."""
        issued = int(self._now())
        claims = {
            "iss": self._client_id,
            "sub": self._client_id,
            "aud": self._audience,
            "iat": issued,
            "exp": issued + ASSERTION_LIFE_SECONDS,
            "jti": secrets.token_hex(16),
        }
        return jws.sign(self._header, claims, self._key)


class AgencyClient(Agency):
    """Speaks with an edge as one registered client; use as a context manager or call ``close``."""

    def __init__(
        self,
        edge_url: str,
        client_id: str,
        private_key: PrivateKey,
        *,
        certificate_chain: Sequence[x509.Certificate] = (),
        audience: str | None = None,
        transport: httpx.BaseTransport | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Nothing is sent yet.

        Args:
            edge_url: The edge's origin.
            client_id: As registered in the core.
            private_key: Of the registered P-256 key, or of the certificate, then P-256 or RSA; stays here.
            certificate_chain: Where the client is registered by its certificate: that one, then its authorities up to
                the service's anchor, which may be left out.
            audience: The edge's address as the core has it, where that differs from ``edge_url``.
            transport: Another one for tests.
            now: Seconds since 1970.

        Raises:
            ValueError: Key and certificate do not fit.
        """
        super().__init__(client_id, private_key, audience or edge_url, now, certificate_chain)
        self._http = httpx.Client(base_url=edge_url, transport=transport, timeout=TIMEOUT_SECONDS, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def create(
        self,
        documents: Sequence[NewDocument],
        *,
        citizen_nif: str,
        level: str = "",
        algorithm: str = "ES256",
        format: str = "pades",  # noqa: A002 - the word of the API
        packaging: str = "enveloped",
        return_url: str = "",
        nonce: str = "",
        idempotency_key: str | None = None,
    ) -> Created:
        """Open a transaction.

        Args:
            documents: One to a hundred.
            citizen_nif: Who is to sign.
            level: B-B, B-T, B-LT or B-LTA; XAdES has B-B. The highest by default.
            algorithm: ES256 or RS256.
            format: ``pades`` or ``xades``.
            packaging: ``enveloped``; XAdES has also ``enveloping`` and ``detached``.
            return_url: One of those registered.
            nonce: Comes back in the result token.
            idempotency_key: The same key with the same content gets the same transaction; drawn if not given.
        """
        body = {
            "documents": [{"title": document.title} for document in documents],
            "level": level,
            "algorithm": algorithm,
            "format": format,
            "packaging": packaging,
            "citizen_nif": citizen_nif,
            "return_url": return_url,
            "nonce": nonce,
        }
        key = idempotency_key or secrets.token_hex(16)
        answer = self._send("POST", "/v1/transactions", json=body, headers={"Idempotency-Key": key}).json()
        return Created(id=answer["id"], review_url=answer["review_url"], link_token=answer["link_token"])

    def send(
        self, documents: Sequence[NewDocument], *, citizen_nif: str, idempotency_key: str | None = None, **options: str
    ) -> Created:
        """Open a transaction, upload its documents and close it: ``create``, ``upload`` and ``submit`` in one.

        Args:
            documents: One to a hundred, with their content.
            citizen_nif: Who is to sign.
            idempotency_key: The same key with the same documents gets the same transaction, and goes on where it broke.
            options: Those of ``create``: level, algorithm, format, packaging, return_url, nonce.

        Raises:
            RubricaProblem: ``unsupported_document`` with a plain reason, and others.
        """
        key = idempotency_key or secrets.token_hex(16)
        created = self.create(documents, citizen_nif=citizen_nif, idempotency_key=key, **options)
        if self.status(created.id)["state"] == "OPEN":
            for number, document in enumerate(documents, 1):
                self.upload(created.id, number, document.content, media_type=document.media_type)
            self.submit(created.id, idempotency_key=key)
        return created

    def upload(
        self, transaction_id: str, number: int, document: bytes | Path, *, media_type: str = "application/pdf"
    ) -> dict[str, Any]:
        """Upload document ``number``; a file is streamed.

        Args:
            transaction_id: From ``create``.
            number: From 1.
            document: Its octets, or the file that has them.
            media_type: What it is, without parameters.

        Raises:
            RubricaProblem: ``unsupported_document`` with a plain reason, and others.
        """
        path = f"/v1/transactions/{transaction_id}/documents/{number}"
        headers = {"Content-Type": media_type}
        answer: dict[str, Any] = send(
            lambda: self._http.put(
                path,
                content=document if isinstance(document, bytes) else _chunks(document),
                headers={**headers, **self._authorization()},
            )
        ).json()
        return answer

    def submit(self, transaction_id: str, *, idempotency_key: str | None = None) -> dict[str, Any]:
        """Say that all documents are there."""
        key = idempotency_key or secrets.token_hex(16)
        answer: dict[str, Any] = self._send(
            "POST", f"/v1/transactions/{transaction_id}/submit", headers={"Idempotency-Key": key}
        ).json()
        return answer

    def status(self, transaction_id: str) -> dict[str, Any]:
        """How far it is, and what is next."""
        answer: dict[str, Any] = self._send("GET", f"/v1/transactions/{transaction_id}").json()
        return answer

    def collect(self, transaction_id: str, number: int) -> bytes:
        """The signed document."""
        content: bytes = self._send("GET", f"/v1/transactions/{transaction_id}/documents/{number}").content
        return content

    def original(self, transaction_id: str, number: int) -> bytes:
        """The document as it was uploaded."""
        content: bytes = self._send("GET", f"/v1/transactions/{transaction_id}/documents/{number}/original").content
        return content

    def receipt(self, transaction_id: str) -> str:
        """The core's receipt, a compact JWS."""
        text: str = self._send("GET", f"/v1/transactions/{transaction_id}/receipt").text
        return text

    def cancel(self, transaction_id: str) -> None:
        """Give up before the citizen approves."""
        self._send("DELETE", f"/v1/transactions/{transaction_id}")

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        headers = request.pop("headers", {})
        found: httpx.Response = send(
            lambda: self._http.request(method, path, headers={**headers, **self._authorization()}, **request)
        )
        return found

    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.assertion()}"}


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk

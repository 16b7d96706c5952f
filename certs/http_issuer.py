"""The issuer port over HTTP on a Unix socket: the development PKI's issuing face."""

import asyncio
import base64
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from certs.issuer import IssuedCertificate, OrganisationSubject, RevocationReason, Subject
from domain.errors import IssuerUnavailable


class HTTPIssuer:
    """An ``Issuer``; safe to ask again, since the same key is given the same certificate.

    Args:
        socket_path: The issuing face's socket.
        deadline_seconds: For one whole call.
    """

    def __init__(self, socket_path: Path, *, deadline_seconds: float = 10.0) -> None:
        self._deadline_seconds = deadline_seconds
        transport = httpx.AsyncHTTPTransport(uds=str(socket_path))
        # Without the environment: a proxy named there would be asked instead of the socket.
        self._client = httpx.AsyncClient(
            transport=transport, base_url="http://pki", timeout=deadline_seconds, trust_env=False
        )

    async def issue(self, csr: bytes, subject: Subject, *, idempotency_key: str) -> IssuedCertificate:
        """Certify the key of ``csr`` (PKCS#10, DER) for ``subject``; check the result with ``profiles.check_issued``.

        Raises:
            IssuerUnavailable: No answer in time, a refusal, or an answer that is none.
        """
        answer = await self._post(
            "/issue",
            {
                "csr": _base64(csr),
                "organisation" if isinstance(subject, OrganisationSubject) else "subject": asdict(subject),
                "idempotency_key": idempotency_key,
            },
        )
        try:
            body = answer.json()
            certificate = base64.b64decode(body["certificate"], validate=True)
            chain = tuple(base64.b64decode(der, validate=True) for der in body["chain"])
        except (ValueError, KeyError, TypeError) as exc:
            raise IssuerUnavailable("the certification authority gave an answer that cannot be read") from exc
        return IssuedCertificate(certificate, chain)

    async def revoke(self, serial: int, reason: RevocationReason) -> None:
        """Revoke; revoking twice is no error.

        Raises:
            IssuerUnavailable: No answer in time, or a refusal.
        """
        await self._post("/revoke", {"serial": f"{serial:x}", "reason": reason.value})

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()

    async def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        try:
            # httpx counts each step of its own; the whole call has to end in time as well.
            async with asyncio.timeout(self._deadline_seconds):
                answer = await self._client.post(path, json=body)
        except (httpx.HTTPError, TimeoutError) as exc:
            raise IssuerUnavailable("the certification authority does not answer") from exc
        if not answer.is_success:
            raise IssuerUnavailable(f"the certification authority refused: {_reason(answer)}")
        return answer


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["code"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.status_code}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()

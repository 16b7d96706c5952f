"""A register of clients over one database, the authority that certifies them, and proofs with any fault."""

import base64
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy.ext.asyncio import AsyncEngine

from audit.log import Log
from authn.agencies import WEB, Caller, CallerRegister, Right, client_grant
from authn.assertions import ClientAuthenticator, client_assertion
from authn.columns import ColumnCipher
from certs.clients import ClientCertificates
from domain.errors import CallerRefused
from tests.testkit.agency_pki import AgencyPKI, PrivateKey, der, p256
from tests.testkit.time import FrozenClock

AUDIENCE = "https://rubrica.example.org"
CLIENT = "ayto.avila"
WEB_CALLER = Caller(id=WEB, name="Rúbrica", rights=frozenset({Right.SIGN}), return_urls=("https://web.example.org/",))
PSS = padding.PSS(padding.MGF1(hashes.SHA256()), salt_length=32)


@dataclass
class ProofDesk:
    """Register and authenticator over one database, and the authority of the agencies."""

    engine: AsyncEngine
    folder: Path
    clock: FrozenClock = field(default_factory=FrozenClock)

    def __post_init__(self) -> None:
        self.pki = AgencyPKI(self.folder, self.clock.now())
        certificates = ClientCertificates(self.folder)
        self.register = CallerRegister(
            ColumnCipher({1: bytes(32)}), self.clock, Log(self.clock), certificates, web=WEB_CALLER
        )
        self.authenticator = ClientAuthenticator(
            self.engine, self.register, certificates, self.clock, audience=AUDIENCE
        )

    async def enter(
        self, chain: Sequence[x509.Certificate] = (), client_id: str = CLIENT, public_key: Any = None
    ) -> None:
        """Register by certificate; by default by a new one of the agency."""
        spki = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) if public_key else b""
        async with self.engine.begin() as connection:
            await self.register.register(
                connection,
                client_id=client_id,
                name="Ayuntamiento de Ávila",
                rights=["sign"],
                return_urls=["https://agency.example.org/signed"],
                public_key=spki,
                certificate_chain=[der(each) for each in chain or (() if spki else self.pki.issue(p256()))],
            )

    async def prove(self, token: str) -> str:
        return (await self.authenticator.authenticate(token, "T1")).id

    async def refuse(self, token: str) -> None:
        """It is refused as everything else is, and leaves nothing behind."""
        before = await self.left()
        with pytest.raises(CallerRefused) as refusal:
            await self.prove(token)
        assert refusal.value.public_detail == "the client could not prove who it is"
        assert await self.left() == before

    async def left(self) -> tuple[int, ...]:
        async with self.engine.connect() as connection:
            counts = [
                await connection.scalar(sa.select(sa.func.count()).select_from(table))
                for table in (client_assertion, client_grant)
            ]
        return tuple(count or 0 for count in counts)

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(self.clock.now().timestamp())
        own = {"iss": CLIENT, "sub": CLIENT, "aud": AUDIENCE, "iat": now, "exp": now + 60, "jti": secrets.token_hex(8)}
        return {**own, **changes}

    def token(
        self,
        key: PrivateKey,
        chain: Sequence[x509.Certificate],
        *,
        algorithm: str = "",
        claims: dict[str, Any] | None = None,
        **header: Any,
    ) -> str:
        """What a client sends, with every part to be changed."""
        algorithm = algorithm or ("ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "PS256")
        full = {"alg": algorithm, "kid": CLIENT, "x5c": x5c(chain), **header}
        content = ".".join(
            base64url(json.dumps(part).encode())
            for part in ({name: value for name, value in full.items() if value is not None}, claims or self.claims())
        )
        return f"{content}.{base64url(sign(key, algorithm, content.encode()))}"


def x5c(chain: Sequence[x509.Certificate]) -> list[str]:
    return [base64.b64encode(der(each)).decode() for each in chain]


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(key: PrivateKey, algorithm: str, content: bytes) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.sign(content, ec.ECDSA(hashes.SHA256())))
        size = (key.curve.key_size + 7) // 8
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    return key.sign(content, padding.PKCS1v15() if algorithm == "RS256" else PSS, hashes.SHA256())

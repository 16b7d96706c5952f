"""How a calling system proves who it is: ``private_key_jwt`` (RFC 7523 §3, OpenID Connect Core §9), good once.

It is signed by the client's registered key, or by the key of a certificate that the assertion carries (``x5c``, RFC
7515 §4.1.6). All of it is checked here at every request: a TLS handshake with the edge proves to the edge alone who
holds the key, and the core would have to take the edge's word for it.
"""

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
import structlog
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from authn.agencies import (
    CLIENT_ID,
    TRANSACTION_LIMIT_CHARACTERS,
    CallerRegister,
    Credential,
    RegisteredCertificate,
    RegisteredKey,
    Right,
)
from authn.tables import UTCDateTime, metadata
from certs.clients import CertificateRefused, ClientCertificate, ClientCertificates
from certs.revocation_lists import StatusUnknown
from domain import jws
from domain.clock import Clock
from domain.errors import CallerRefused, DependencyUnavailable, MalformedRequest
from domain.ids import ClientId, Randomness

ASSERTION_LIFE_SECONDS = 300
CLOCK_LEEWAY_SECONDS = 30
"""How far a client's clock may run ahead."""

_TRANSACTION_ID = re.compile(rf"[\x21-\x7e]{{0,{TRANSACTION_LIMIT_CHARACTERS}}}")
_JTI = re.compile(r"[\x21-\x7e]{8,128}")
_HEADERS = {"alg", "kid", "typ"}
_CHAIN = "x5c"
_REFUSAL = "the client could not prove who it is"

log = structlog.get_logger(__name__)

client_assertion = sa.Table(
    "client_assertion",
    metadata,
    sa.Column("jti_sha256", sa.LargeBinary(32), primary_key=True, comment="of client id and jti"),
    sa.Column("expires", UTCDateTime, nullable=False, index=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticatedClient:
    """A client that has just proved who it is; only ``ClientAuthenticator`` makes one."""

    id: ClientId
    name: str
    rights: frozenset[Right]
    return_urls: tuple[str, ...]
    grant: str
    """base64url of 32 random bytes; empty where none was asked for."""

    def __repr__(self) -> str:
        return f"AuthenticatedClient(id={self.id!r})"


class ClientAuthenticator:
    """Checks a client's assertion and gives a grant for it."""

    def __init__(
        self,
        engine: AsyncEngine,
        register: CallerRegister,
        certificates: ClientCertificates,
        clock: Clock,
        *,
        audience: str,
        randomness: Randomness = secrets.token_bytes,
    ) -> None:
        self._engine = engine
        self._register = register
        self._certificates = certificates
        self._clock = clock
        self._audience = audience
        self._randomness = randomness
        # Against this key an unknown client's assertion is verified, so that its refusal takes as long as another's.
        self._nobody = ec.generate_private_key(ec.SECP256R1()).public_key()

    async def authenticate(self, assertion: str, transaction_id: str) -> AuthenticatedClient:
        """Check a compact JWS with ``iss`` = ``sub`` = ``kid`` = client id, once.

        Args:
            assertion: As the client sent it.
            transaction_id: What the grant is to be good for; empty: no grant, only who it is.

        Raises:
            CallerRefused: The client is unknown or blocked, or the assertion is wrong, over or used: one text for all.
            MalformedRequest: The transaction id is too long or has other signs.
            DependencyUnavailable: It holds, but nobody knows whether its certificate is revoked; it was not used up.
        """
        if _TRANSACTION_ID.fullmatch(transaction_id) is None:
            raise MalformedRequest(
                f"a transaction id has at most {TRANSACTION_LIMIT_CHARACTERS} visible ASCII characters"
            )
        if len(assertion) > jws.ASSERTION_LIMIT_CHARACTERS:
            raise CallerRefused(_REFUSAL)
        try:
            claimed = jws.unverified_claims(assertion).get("iss")
            header = jws.unverified_header(assertion)
            client_id = claimed if isinstance(claimed, str) and CLIENT_ID.fullmatch(claimed) else ""
            async with self._engine.connect() as connection:
                known = await self._register.find(connection, client_id)
            claims, shown = await self._verify(assertion, header, None if known is None else known[1])
        except (jws.JWSInvalid, CertificateRefused):
            raise CallerRefused(_REFUSAL) from None
        # A header that we do not know may change what the rest means ("crit", RFC 7515 §4.1.11).
        expected = _HEADERS if shown is None else {*_HEADERS, _CHAIN}
        if known is None or not header.keys() <= expected or header.get("kid") != known[0].id:
            raise CallerRefused(_REFUSAL)
        caller = known[0]
        jti, expires = self._check_claims(claims, caller.id)
        if shown is not None:
            await self._check_status(shown, caller.id)
        async with self._engine.begin() as connection:
            await self._spend(connection, caller.id, jti, expires)
            grant = (
                await self._register.grant(connection, caller.id, transaction_id, self._randomness)
                if transaction_id
                else ""
            )
        return AuthenticatedClient(
            id=caller.id, name=caller.name, rights=caller.rights, return_urls=caller.return_urls, grant=grant
        )

    async def _verify(
        self, assertion: str, header: dict[str, Any], credential: Credential | None
    ) -> tuple[dict[str, Any], ClientCertificate | None]:
        """The claims, and the certificate whose key signed them, where the client is registered by one.

        The same is computed for every client, known or not, and the register's word comes last.
        """
        if _CHAIN not in header:
            claims = jws.verify(assertion, credential.key if isinstance(credential, RegisteredKey) else self._nobody)
            return claims, None
        shown = await self._certificates.check(_chain(header[_CHAIN]), self._clock.now())
        claims = jws.verify(assertion, shown.key)
        if not isinstance(credential, RegisteredCertificate) or not credential.fits(shown):
            raise CertificateRefused("the client is not registered by this certificate")
        return claims, shown

    async def _check_status(self, shown: ClientCertificate, client_id: ClientId) -> None:
        try:
            await self._certificates.check_status(shown, self._clock.now())
        except CertificateRefused:
            log.warning("client certificate revoked", client=client_id)
            raise CallerRefused(_REFUSAL) from None
        except StatusUnknown as error:
            log.warning("client certificate status unknown", client=client_id, reason=str(error))
            raise DependencyUnavailable("nobody knows now whether the client's certificate is revoked") from None

    def _check_claims(self, claims: dict[str, Any], client_id: ClientId) -> tuple[str, datetime]:
        """RFC 7523 §3, narrowed: one audience, ``iat`` and ``jti`` required, a short life."""
        now = self._clock.now().timestamp()
        issued, expires, jti = claims.get("iat"), claims.get("exp"), claims.get("jti")
        if (
            claims.get("iss") != client_id
            or claims.get("sub") != client_id
            or claims.get("aud") not in (self._audience, [self._audience])
            # ``bool`` is an ``int`` to Python, not to JSON.
            or type(issued) is not int
            or type(expires) is not int
            or not isinstance(jti, str)
            or _JTI.fullmatch(jti) is None
            or issued > now + CLOCK_LEEWAY_SECONDS
            or expires <= now
            or not 0 < expires - issued <= ASSERTION_LIFE_SECONDS
        ):
            raise CallerRefused(_REFUSAL)
        return jti, datetime.fromtimestamp(expires, UTC)

    async def _spend(self, connection: AsyncConnection, client_id: ClientId, jti: str, expires: datetime) -> None:
        await connection.execute(sa.delete(client_assertion).where(client_assertion.c.expires <= self._clock.now()))
        used = hashlib.sha256(f"{client_id}\n{jti}".encode()).digest()
        try:
            await connection.execute(sa.insert(client_assertion).values(jti_sha256=used, expires=expires))
        except sa.exc.IntegrityError:
            raise CallerRefused(_REFUSAL) from None


def _chain(value: object) -> list[bytes]:
    """``x5c``: base64, not base64url, of DER (RFC 7515 §4.1.6).

    Raises:
        CertificateRefused: Not a list of that.
    """
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise CertificateRefused("x5c is not a list of certificates")
    try:
        return [base64.b64decode(each, validate=True) for each in value]
    except ValueError:
        raise CertificateRefused("x5c is not in base64") from None

"""The register of callers: which systems may ask for signatures, how they prove who they are, and what they may do.

A client proves itself with ``private_key_jwt`` (RFC 7523 §3, OpenID Connect Core §9), ES256 only. What it gets is a
grant for one transaction, which the edge carries to STAGE: the edge itself can vouch for nobody.
"""

import base64
import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit.log import Event, EventTag, Log
from authn.columns import ColumnCipher
from authn.tables import UTCDateTime, metadata
from domain import jws
from domain.clock import Clock
from domain.errors import AlreadyRegistered, CallerRefused, MalformedRequest, NotFound
from domain.ids import ClientId, Randomness

WEB = ClientId("web")
"""The citizen's own web: asks without a grant, so no one can register under this name."""

GRANT_SIZE_BYTES = 32
GRANT_LIFE = timedelta(hours=24)
ASSERTION_LIFE_SECONDS = 300
CLOCK_LEEWAY_SECONDS = 30
"""How far a client's clock may run ahead."""
ASSERTION_LIMIT_CHARACTERS = 4096
TRANSACTION_LIMIT_CHARACTERS = 128
NAME_LIMIT_CHARACTERS = 80

_CLIENT_ID = re.compile(r"[a-z0-9][a-z0-9.-]{1,63}")
_TRANSACTION_ID = re.compile(rf"[\x21-\x7e]{{0,{TRANSACTION_LIMIT_CHARACTERS}}}")
_JTI = re.compile(r"[\x21-\x7e]{8,128}")
_HEADERS = {"alg", "kid", "typ"}
_REFUSAL = "the client could not prove who it is"

client = sa.Table(
    "client",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(NAME_LIMIT_CHARACTERS), nullable=False),
    sa.Column("public_key", sa.LargeBinary, nullable=False, comment="SubjectPublicKeyInfo, DER, P-256"),
    sa.Column("rights", sa.JSON, nullable=False),
    sa.Column("return_urls", sa.JSON, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("guard", sa.LargeBinary, nullable=False, comment="authenticates the row"),
)

client_assertion = sa.Table(
    "client_assertion",
    metadata,
    sa.Column("jti_sha256", sa.LargeBinary(32), primary_key=True, comment="of client id and jti"),
    sa.Column("expires", UTCDateTime, nullable=False, index=True),
)

client_grant = sa.Table(
    "client_grant",
    metadata,
    sa.Column("grant_sha256", sa.LargeBinary(32), primary_key=True),
    sa.Column("client", sa.ForeignKey("client.id"), nullable=False),
    sa.Column("transaction_id", sa.String(TRANSACTION_LIMIT_CHARACTERS), nullable=False),
    sa.Column("expires", UTCDateTime, nullable=False, index=True),
    sa.Column("guard", sa.LargeBinary, nullable=False, comment="authenticates the row"),
)


class Right(StrEnum):
    """What a caller may ask for."""

    SIGN = "sign"
    """Stage documents."""
    NAME_CITIZEN = "name_citizen"
    """Say which citizen is to approve."""


class ClientState(StrEnum):
    """Whether a client is listened to."""

    ACTIVE = "ACTIVE"
    BLOCKED = "BLOCKED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A caller as our register knows it."""

    id: ClientId
    name: str
    """What citizens are shown."""
    rights: frozenset[Right]
    return_urls: tuple[str, ...]
    """Where its citizens may be sent back to, exactly."""
    transaction_id: str = ""
    """The transaction that its grant is good for; empty for a caller without one."""


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


class CallerRegister:
    """Keeps the callers; rows carry a guard, so that a right or key edited in the database is refused."""

    def __init__(self, columns: ColumnCipher, clock: Clock, log: Log, *, web: Caller, plain_http: bool = False) -> None:
        """Take what the register works with.

        Args:
            columns: Makes the guards.
            clock: Tells when a grant is over.
            log: Takes a leaf for every change.
            web: The built-in client, which needs neither key nor grant.
            plain_http: Whether return URLs on loopback may do without TLS (development).
        """
        self._columns = columns
        self._clock = clock
        self._log = log
        self._web = web
        self._plain_http = plain_http

    async def register(
        self,
        connection: AsyncConnection,
        *,
        client_id: str,
        name: str,
        public_key: bytes,
        rights: Sequence[str],
        return_urls: Sequence[str],
    ) -> Caller:
        """Enter a client in the caller's transaction, with a leaf in the log.

        Args:
            connection: The caller's transaction.
            client_id: 2 to 64 lower-case letters, digits, points, hyphens; not ``web``.
            name: What citizens are shown; at most 80 characters.
            public_key: SubjectPublicKeyInfo, DER, of a P-256 key.
            rights: Names of ``Right``.
            return_urls: Exact HTTPS addresses without query and fragment; at least one.

        Raises:
            MalformedRequest: A field is wrong.
            AlreadyRegistered: The id is taken.
        """
        if _CLIENT_ID.fullmatch(client_id) is None or client_id == WEB:
            raise MalformedRequest(
                "a client id has 2 to 64 lower-case letters, digits, points or hyphens, and is not web"
            )
        if not name.isprintable() or not 0 < len(name.strip()) <= len(name) <= NAME_LIMIT_CHARACTERS:
            raise MalformedRequest(f"a client's name has at most {NAME_LIMIT_CHARACTERS} printable characters")
        spki = checked_key(public_key)
        try:
            granted = frozenset(Right(right) for right in rights)
        except ValueError:
            raise MalformedRequest(f"rights are {', '.join(Right)}") from None
        if not return_urls:
            raise MalformedRequest("a client needs a return URL")
        for url in return_urls:
            self._check_return_url(url)
        row: dict[str, Any] = {
            "id": client_id,
            "name": name,
            "public_key": spki,
            "rights": sorted(granted),
            "return_urls": list(return_urls),
            "state": ClientState.ACTIVE.value,
        }
        taken = sa.select(client.c.id).where(client.c.id == client_id)
        if await connection.scalar(taken) is not None:
            raise AlreadyRegistered("this client id is in the register already")
        try:
            await connection.execute(sa.insert(client).values(**row, guard=self._columns.guard(*_client_facts(row))))
        except sa.exc.IntegrityError:
            raise AlreadyRegistered("this client id is in the register already") from None
        await self._log.append(
            connection,
            Event(
                tag=EventTag.ADMIN,
                facts={
                    "action": "client_registered",
                    "client": client_id,
                    "key_sha256": hashlib.sha256(spki).digest(),
                    "rights": " ".join(sorted(granted)),
                },
            ),
        )
        return _caller(row)

    async def set_state(self, connection: AsyncConnection, client_id: ClientId, state: ClientState) -> None:
        """Block a client, or listen to it again, in the caller's transaction; its grants fall with it.

        Raises:
            NotFound: No such client.
        """
        row = await self._row(connection, client_id)
        if row is None:
            raise NotFound("no such client")
        changed = {**row, "state": state.value}
        await connection.execute(
            sa.update(client)
            .where(client.c.id == client_id)
            .values(state=state.value, guard=self._columns.guard(*_client_facts(changed)))
        )
        await self._log.append(
            connection,
            Event(tag=EventTag.ADMIN, facts={"action": "client_state", "client": client_id, "state": state.value}),
        )

    async def find(
        self, connection: AsyncConnection, client_id: str
    ) -> tuple[Caller, ec.EllipticCurvePublicKey] | None:
        """An active client and its key.

        Raises:
            cryptography.exceptions.InvalidTag: The row was edited behind the core's back.
        """
        row = await self._row(connection, client_id)
        if row is None or row["state"] != ClientState.ACTIVE.value:
            return None
        key = serialization.load_der_public_key(row["public_key"])
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise TypeError("a registered key is of another type")
        return _caller(row), key

    async def grant(
        self, connection: AsyncConnection, client_id: ClientId, transaction_id: str, randomness: Randomness
    ) -> str:
        """Draw a grant for one transaction of a client and store its hash.

        Returns:
            base64url of 32 random bytes.
        """
        grant = base64.urlsafe_b64encode(randomness(GRANT_SIZE_BYTES)).rstrip(b"=").decode()
        row: dict[str, Any] = {
            "grant_sha256": _grant_sha256(grant),
            "client": client_id,
            "transaction_id": transaction_id,
            "expires": self._clock.now().replace(microsecond=0) + GRANT_LIFE,
        }
        await connection.execute(sa.delete(client_grant).where(client_grant.c.expires <= self._clock.now()))
        await connection.execute(sa.insert(client_grant).values(**row, guard=self._columns.guard(*_grant_facts(row))))
        return grant

    async def resolve_grant(self, connection: AsyncConnection, grant: str) -> Caller:
        """Who asks, at STAGE: the client of a grant, or the citizen's own web where there is none.

        A grant is good for the one ``transaction_id`` of the answer: whoever stages compares, and stages it once.

        Raises:
            CallerRefused: Unknown or expired, or the client was blocked since.
            cryptography.exceptions.InvalidTag: A row was edited behind the core's back.
        """
        if not grant:
            return self._web
        found = await connection.execute(
            sa.select(client_grant).where(
                client_grant.c.grant_sha256 == _grant_sha256(grant), client_grant.c.expires > self._clock.now()
            )
        )
        row = found.mappings().one_or_none()
        if row is None:
            raise CallerRefused("the grant is unknown or over")
        self._columns.check(row["guard"], *_grant_facts(row))
        known = await self.find(connection, row["client"])
        if known is None:
            raise CallerRefused("the grant is unknown or over")
        caller, _key = known
        return Caller(
            id=caller.id,
            name=caller.name,
            rights=caller.rights,
            return_urls=caller.return_urls,
            transaction_id=row["transaction_id"],
        )

    async def _row(self, connection: AsyncConnection, client_id: str) -> sa.RowMapping | None:
        row = (await connection.execute(sa.select(client).where(client.c.id == client_id))).mappings().one_or_none()
        if row is not None:
            self._columns.check(row["guard"], *_client_facts(row))
        return row

    def _check_return_url(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            host, _port = parts.hostname, parts.port
        except ValueError:
            raise MalformedRequest("a return URL is not an address") from None
        loopback = self._plain_http and parts.scheme == "http" and host in {"localhost", "127.0.0.1", "::1"}
        # The code and the request's id are put behind it as its query; a part after "#" never reaches a server.
        if not (
            host
            and (parts.scheme == "https" or loopback)
            and parts.username is None
            and not {"?", "#", "\\"} & set(url)
            and url.isascii()
            and url.isprintable()
            and " " not in url
        ):
            raise MalformedRequest("a return URL is an HTTPS address without user, query and fragment")


class ClientAuthenticator:
    """Checks a client's assertion and gives a grant for it."""

    def __init__(
        self,
        engine: AsyncEngine,
        register: CallerRegister,
        clock: Clock,
        *,
        audience: str,
        randomness: Randomness = secrets.token_bytes,
    ) -> None:
        self._engine = engine
        self._register = register
        self._clock = clock
        self._audience = audience
        self._randomness = randomness
        # Against this key an unknown client's assertion is verified, so that its refusal takes as long as another's.
        self._nobody = ec.generate_private_key(ec.SECP256R1()).public_key()

    async def authenticate(self, assertion: str, transaction_id: str) -> AuthenticatedClient:
        """Check a compact ES256 JWS with ``iss`` = ``sub`` = ``kid`` = client id, once.

        Args:
            assertion: As the client sent it.
            transaction_id: What the grant is to be good for; empty: no grant, only who it is.

        Raises:
            CallerRefused: The client is unknown or blocked, or the assertion is wrong, over or used: one text for all.
            MalformedRequest: The transaction id is too long or has other signs.
        """
        if _TRANSACTION_ID.fullmatch(transaction_id) is None:
            raise MalformedRequest(
                f"a transaction id has at most {TRANSACTION_LIMIT_CHARACTERS} visible ASCII characters"
            )
        if len(assertion) > ASSERTION_LIMIT_CHARACTERS:
            raise CallerRefused(_REFUSAL)
        try:
            claimed = jws.unverified_claims(assertion).get("iss")
            header = jws.unverified_header(assertion)
            client_id = claimed if isinstance(claimed, str) and _CLIENT_ID.fullmatch(claimed) else ""
            async with self._engine.connect() as connection:
                known = await self._register.find(connection, client_id)
            claims = jws.verify(assertion, self._nobody if known is None else known[1])
        except jws.JWSInvalid:
            raise CallerRefused(_REFUSAL) from None
        # A header that we do not know may change what the rest means ("crit", RFC 7515 §4.1.11).
        if known is None or not header.keys() <= _HEADERS or header.get("kid") != known[0].id:
            raise CallerRefused(_REFUSAL)
        caller = known[0]
        jti, expires = self._check_claims(claims, caller.id)
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


def checked_key(public_key: bytes) -> bytes:
    """A P-256 public key in our form (SubjectPublicKeyInfo, DER, uncompressed point).

    Raises:
        MalformedRequest: Not one.
    """
    try:
        key = serialization.load_der_public_key(public_key)
    except (ValueError, TypeError):
        raise MalformedRequest("the public key is not a SubjectPublicKeyInfo in DER") from None
    except UnsupportedAlgorithm:
        raise MalformedRequest("the public key must be a P-256 key") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise MalformedRequest("the public key must be a P-256 key")
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _caller(row: Any) -> Caller:
    return Caller(
        id=ClientId(row["id"]),
        name=row["name"],
        rights=frozenset(Right(right) for right in row["rights"]),
        return_urls=tuple(row["return_urls"]),
    )


def _client_facts(row: Any) -> tuple[str, ...]:
    rights, urls = row["rights"], row["return_urls"]
    return (
        "client",
        row["id"],
        row["name"],
        row["public_key"].hex(),
        row["state"],
        str(len(rights)),
        *rights,
        str(len(urls)),
        *urls,
    )


def _grant_facts(row: Any) -> tuple[str, ...]:
    return (
        "client_grant",
        row["grant_sha256"].hex(),
        row["client"],
        row["transaction_id"],
        str(int(row["expires"].timestamp())),
    )


def _grant_sha256(grant: str) -> bytes:
    return hashlib.sha256(grant.encode()).digest()

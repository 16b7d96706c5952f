"""The register of callers: which systems may ask for signatures, by what they prove who they are, and what they may do.

A client is known by a public key, or by a certificate: then by its issuer and its subject, so that a renewed one needs
no new entry. Whoever proves itself (``authn/assertions.py``) gets a grant for one transaction, which the edge carries
to STAGE: the edge itself can vouch for nobody.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import sqlalchemy as sa
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.log import Event, EventTag, Log
from authn.columns import ColumnCipher
from authn.tables import UTCDateTime, metadata
from certs.clients import CertificateRefused, ClientCertificate, ClientCertificates
from certs.revocation_lists import StatusUnknown
from domain.clock import Clock
from domain.errors import AlreadyRegistered, CallerRefused, DependencyUnavailable, MalformedRequest, NotFound
from domain.ids import ClientId, Randomness

WEB = ClientId("web")
"""The citizen's own web: asks without a grant, so no one can register under this name."""

GRANT_SIZE_BYTES = 32
GRANT_LIFE = timedelta(hours=24)
TRANSACTION_LIMIT_CHARACTERS = 128
NAME_LIMIT_CHARACTERS = 80

CLIENT_ID = re.compile(r"[a-z0-9][a-z0-9.-]{1,63}")

client = sa.Table(
    "client",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(NAME_LIMIT_CHARACTERS), nullable=False),
    sa.Column("public_key", sa.LargeBinary, nullable=False, comment="SubjectPublicKeyInfo, DER, P-256; or empty"),
    sa.Column("subject", sa.LargeBinary, nullable=False, comment="of its certificates, Name, DER; or empty"),
    sa.Column("issuer_key_sha256", sa.LargeBinary, nullable=False, comment="of their authority's key; or empty"),
    sa.Column("rights", sa.JSON, nullable=False),
    sa.Column("return_urls", sa.JSON, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("guard", sa.LargeBinary, nullable=False, comment="authenticates the row"),
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


@dataclass(frozen=True, slots=True)
class RegisteredKey:
    """A client proves itself by this key."""

    key: ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class RegisteredCertificate:
    """A client proves itself by the key of any certificate of this authority for this subject."""

    subject: bytes
    """Name, DER; compared byte by byte."""
    issuer_key_sha256: bytes

    def fits(self, shown: ClientCertificate) -> bool:
        """Whether a chain that holds is the client's."""
        return (self.subject, self.issuer_key_sha256) == (shown.subject, shown.issuer_key_sha256)


Credential: TypeAlias = RegisteredKey | RegisteredCertificate
"""By what a client proves itself: the entry decides, never what the client sends."""


@dataclass(frozen=True, slots=True)
class ListedClient:
    """A client as its operator sees it."""

    caller: Caller
    state: ClientState
    credential: Credential


class CallerRegister:
    """Keeps the callers; rows carry a guard, so that a right or key edited in the database is refused."""

    def __init__(
        self,
        columns: ColumnCipher,
        clock: Clock,
        log: Log,
        certificates: ClientCertificates,
        *,
        web: Caller,
        plain_http: bool = False,
    ) -> None:
        """Take what the register works with.

        Args:
            columns: Makes the guards.
            clock: Tells when a grant is over.
            log: Takes a leaf for every change.
            certificates: Checks the certificate that a client is entered with.
            web: The built-in client, which needs neither key nor grant.
            plain_http: Whether return URLs on loopback may do without TLS (development).
        """
        self._columns = columns
        self._clock = clock
        self._log = log
        self._certificates = certificates
        self._web = web
        self._plain_http = plain_http

    async def register(
        self,
        connection: AsyncConnection,
        *,
        client_id: str,
        name: str,
        rights: Sequence[str],
        return_urls: Sequence[str],
        public_key: bytes = b"",
        certificate_chain: Sequence[bytes] = (),
    ) -> Caller:
        """Enter a client in the caller's transaction, with a leaf in the log; by key or by certificate, not both.

        Args:
            connection: The caller's transaction.
            client_id: 2 to 64 lower-case letters, digits, points, hyphens; not ``web``.
            name: What citizens are shown; at most 80 characters.
            rights: Names of ``Right``.
            return_urls: Exact HTTPS addresses without query and fragment; at least one.
            public_key: SubjectPublicKeyInfo, DER, of a P-256 key.
            certificate_chain: The client's certificate, then authorities up to an anchor, DER. Of it issuer and subject
                are kept.

        Raises:
            MalformedRequest: A field is wrong, or the certificate is not good now.
            AlreadyRegistered: The id is taken.
            DependencyUnavailable: Nobody knows whether the certificate is revoked.
        """
        if CLIENT_ID.fullmatch(client_id) is None or client_id == WEB:
            raise MalformedRequest(
                "a client id has 2 to 64 lower-case letters, digits, points or hyphens, and is not web"
            )
        if not name.isprintable() or not 0 < len(name.strip()) <= len(name) <= NAME_LIMIT_CHARACTERS:
            raise MalformedRequest(f"a client's name has at most {NAME_LIMIT_CHARACTERS} printable characters")
        proof = await self._proof(public_key, certificate_chain)
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
            **proof,
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
                    **(
                        {"key_sha256": hashlib.sha256(proof["public_key"]).digest()}
                        if public_key
                        else {
                            "subject_sha256": hashlib.sha256(proof["subject"]).digest(),
                            "issuer_key_sha256": proof["issuer_key_sha256"],
                        }
                    ),
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

    async def find(self, connection: AsyncConnection, client_id: str) -> tuple[Caller, Credential] | None:
        """An active client, and by what it proves itself.

        Raises:
            cryptography.exceptions.InvalidTag: The row was edited behind the core's back.
        """
        row = await self._row(connection, client_id)
        if row is None or row["state"] != ClientState.ACTIVE.value:
            return None
        return _caller(row), _credential(row)

    async def all(self, connection: AsyncConnection) -> list[ListedClient]:
        """Every client, blocked or not, by its id.

        Raises:
            cryptography.exceptions.InvalidTag: A row was edited behind the core's back.
        """
        rows = (await connection.execute(sa.select(client).order_by(client.c.id))).mappings().all()
        for row in rows:
            self._columns.check(row["guard"], *_client_facts(row))
        return [ListedClient(_caller(row), ClientState(row["state"]), _credential(row)) for row in rows]

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
        caller, _credential = known
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

    async def _proof(self, public_key: bytes, certificate_chain: Sequence[bytes]) -> dict[str, bytes]:
        if bool(public_key) == bool(certificate_chain):
            raise MalformedRequest("a client has either a public key or a certificate")
        if public_key:
            return {"public_key": checked_key(public_key), "subject": b"", "issuer_key_sha256": b""}
        now = self._clock.now()
        try:
            shown = await self._certificates.check(certificate_chain, now)
            await self._certificates.check_status(shown, now)
        except CertificateRefused as error:
            raise MalformedRequest(f"the certificate is not accepted: {error}") from None
        except StatusUnknown as error:
            raise DependencyUnavailable(str(error)) from None
        return {"public_key": b"", "subject": shown.subject, "issuer_key_sha256": shown.issuer_key_sha256}

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


def _credential(row: Any) -> Credential:
    if not row["public_key"]:
        return RegisteredCertificate(row["subject"], row["issuer_key_sha256"])
    key = serialization.load_der_public_key(row["public_key"])
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise TypeError("a registered key is of another type")
    return RegisteredKey(key)


def _client_facts(row: Any) -> tuple[str, ...]:
    rights, urls = row["rights"], row["return_urls"]
    return (
        "client",
        row["id"],
        row["name"],
        row["public_key"].hex(),
        row["subject"].hex(),
        row["issuer_key_sha256"].hex(),
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

"""Step 1: what an edge stages for approval. Nothing about the citizen is told here."""

import base64
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from authn.agencies import Caller
from domain import canonical
from domain.algorithms import KeyType, SignatureAlgorithm
from domain.clock import Clock
from domain.digests import Digest, DigestAlgorithm
from domain.errors import AlgorithmNotAllowed, IdempotencyConflict, MalformedRequest, NotFound, RequestExpired
from domain.ids import ClientId, Randomness, RequestId, new_id
from domain.items import Item, Packaging, Purpose, Reference, SignatureFormat, encode_list, list_sha256
from signer import tables
from signer.tbs import xades

REQUEST_LIFE = timedelta(hours=1)
PKCE_SIZE_BYTES = 32
FIELDS_OF_FORMAT: Mapping[SignatureFormat, frozenset[str]] = {
    SignatureFormat.PADES: frozenset({"commitment_type"}),
    SignatureFormat.XADES: frozenset({"commitment_type", "mime_type", "signature_id"}),
}
"""Signature fields that the core knows how to build from; anything else is refused."""

COMMITMENT_TYPES = {"proof_of_origin", "proof_of_approval", "proof_of_creation"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedRequest:
    """A list of items that waits for a citizen's approval."""

    id: RequestId
    client_id: ClientId
    client_name: str
    items: tuple[Item, ...]
    pkce_challenge: bytes
    return_url: str
    citizen_index: bytes | None
    transaction_id: str
    """What the client's grant is good for; empty for the citizen's own web."""
    client_nonce: str
    expires: datetime

    @property
    def key_type(self) -> KeyType:
        """The one key type that all items need."""
        return self.items[0].key_type

    @property
    def asks_certificate(self) -> bool:
        """Whether item 0 is "a certificate, if the citizen has no valid one"."""
        return self.items[0].purpose is Purpose.CERTIFICATE

    def list_sha256(self) -> bytes:
        """SHA-256(HL)."""
        return list_sha256(self.items)


@dataclass(frozen=True, slots=True)
class StagingLimits:
    """Sizes and addresses that staging accepts."""

    items: int = 100
    edge_addresses: tuple[str, ...] = ()
    """Where approvals may return to: the edges' own addresses."""


class Requests:
    """Repository of staged requests."""

    def __init__(
        self,
        engine: AsyncEngine,
        clock: Clock,
        limits: StagingLimits,
        randomness: Randomness = secrets.token_bytes,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._limits = limits
        self._randomness = randomness

    async def require_newest(self, connection: AsyncConnection, staged: StagedRequest) -> None:
        """Let only the last request of a grant be approved: whoever staged another one gave this one up.

        Raises:
            RequestExpired: There is a newer one.
        """
        newer = await connection.execute(
            sa.select(tables.request.c.id)
            .where(
                tables.request.c.client_id == staged.client_id,
                tables.request.c.transaction_id == staged.transaction_id,
                tables.request.c.transaction_id != "",
                tables.request.c.expires > staged.expires,
            )
            .limit(1)
        )
        if newer.first() is not None:
            raise RequestExpired("a newer request took the place of this one; open the link again")

    async def stage(
        self,
        caller: Caller,
        items: Sequence[Item],
        *,
        idempotency_key: str,
        pkce_challenge: bytes,
        return_url: str,
        citizen_index: bytes | None,
        client_nonce: str,
    ) -> StagedRequest:
        """Keep a list for one hour; the same key with the same content gives the same request.

        Raises:
            MalformedRequest: Shape or limits.
            AlgorithmNotAllowed: Something that is not offered today.
            IdempotencyConflict: The key came before with another content.
        """
        self._check(items, pkce_challenge, return_url)
        if not idempotency_key:
            raise MalformedRequest("an idempotency key is needed")
        content = canonical.sha256(
            caller.id, encode_list(items), pkce_challenge, return_url, citizen_index, client_nonce
        )
        now = self._clock.now()
        row = {
            "id": new_id(self._randomness),
            "client_id": caller.id,
            "client_name": caller.name,
            "items": [_item_to_json(item) for item in items],
            "pkce_challenge": pkce_challenge,
            "return_url": return_url,
            "citizen_index": citizen_index,
            "transaction_id": caller.transaction_id,
            "client_nonce": client_nonce,
            "idempotency_key": idempotency_key,
            "content_sha256": content,
            "created": now,
            "expires": now + REQUEST_LIFE,
        }
        async with self._engine.begin() as connection:
            known = await connection.execute(
                sa.select(tables.request).where(
                    tables.request.c.client_id == caller.id, tables.request.c.idempotency_key == idempotency_key
                )
            )
            before = known.mappings().first()
            if before is None:
                await connection.execute(sa.insert(tables.request).values(**row))
                return staged_from(row)
        if before["content_sha256"] != content:
            raise IdempotencyConflict("this idempotency key was used for another request")
        return staged_from(before)

    async def get(self, connection: AsyncConnection, request_id: str) -> StagedRequest:
        """A request that is still alive.

        Raises:
            NotFound: No such request.
            RequestExpired: Its hour is over.
        """
        found = await connection.execute(sa.select(tables.request).where(tables.request.c.id == request_id))
        row = found.mappings().first()
        if row is None:
            raise NotFound("there is no such request")
        staged = staged_from(row)
        if staged.expires <= self._clock.now():
            raise RequestExpired("the request has expired; open the document again")
        return staged

    async def read(self, request_id: str) -> StagedRequest:
        """``get`` in a transaction of its own."""
        async with self._engine.connect() as connection:
            return await self.get(connection, request_id)

    async def get_even_expired(self, connection: AsyncConnection, request_id: str) -> StagedRequest:
        """A request whose approval was given in time; its SAD has an end of its own."""
        found = await connection.execute(sa.select(tables.request).where(tables.request.c.id == request_id))
        row = found.mappings().first()
        if row is None:
            raise NotFound("there is no such request")
        return staged_from(row)

    def _check(self, items: Sequence[Item], pkce_challenge: bytes, return_url: str) -> None:
        if len(pkce_challenge) != PKCE_SIZE_BYTES:
            raise MalformedRequest("the PKCE challenge is a SHA-256 value")
        if not any(return_url.startswith(address) for address in self._limits.edge_addresses):
            raise MalformedRequest("the return address is not one of this service's")
        documents = [item for item in items if item.purpose is Purpose.SIGN]
        if not documents or len(documents) > self._limits.items:
            raise MalformedRequest(f"a request has from 1 to {self._limits.items} documents")
        if any(item.purpose is Purpose.CERTIFICATE for item in items[1:]):
            raise MalformedRequest("only item 0 may ask for a certificate")
        for item in documents:
            _check_document(item)
        try:
            key_types = {item.key_type for item in items}
        except ValueError:
            raise AlgorithmNotAllowed("the key type is not offered") from None
        if len(key_types) != 1:
            raise MalformedRequest("all items of a request use one key type")


def _check_document(item: Item) -> None:
    SignatureAlgorithm.parse(item.algorithm)
    try:
        signature_format, packaging = SignatureFormat(item.format), Packaging(item.packaging)
    except ValueError:
        raise AlgorithmNotAllowed("the format or packaging is not offered") from None
    if not item.title.strip():
        raise MalformedRequest("every document needs a title")
    if not set(item.fields) <= FIELDS_OF_FORMAT[signature_format]:
        raise MalformedRequest("a signature field is not known for this format")
    if signature_format is SignatureFormat.XADES:
        xades.check_item(item)
    elif packaging is not Packaging.ENVELOPED:
        raise AlgorithmNotAllowed("the signature of a PDF stands within it")
    elif item.references or len(item.digests) != 1 or item.digests[0].algorithm is not DigestAlgorithm.SHA256:
        raise MalformedRequest("a PDF has one SHA-256 digest")
    if item.fields.get("commitment_type", "proof_of_origin") not in COMMITMENT_TYPES:
        raise MalformedRequest("the commitment type is not known")


def _item_to_json(item: Item) -> dict[str, Any]:
    return {
        "purpose": item.purpose.value,
        "format": item.format,
        "packaging": item.packaging,
        "algorithm": item.algorithm,
        "digests": [_digest_to_json(digest) for digest in item.digests],
        "references": [
            {
                "uri": reference.uri,
                "type": reference.type,
                "transforms": list(reference.transforms),
                "digest": _digest_to_json(reference.digest),
            }
            for reference in item.references
        ],
        "title": item.title,
        "fields": dict(item.fields),
    }


def _item_from_json(stored: Mapping[str, Any]) -> Item:
    return Item(
        purpose=Purpose(stored["purpose"]),
        format=stored["format"],
        packaging=stored["packaging"],
        algorithm=stored["algorithm"],
        digests=tuple(_digest_from_json(digest) for digest in stored["digests"]),
        references=tuple(
            Reference(
                uri=reference["uri"],
                type=reference["type"],
                transforms=tuple(reference["transforms"]),
                digest=_digest_from_json(reference["digest"]),
            )
            for reference in stored["references"]
        ),
        title=stored["title"],
        fields=stored["fields"],
    )


def _digest_to_json(digest: Digest) -> list[str]:
    return [digest.algorithm.value, base64.b64encode(digest.value).decode()]


def _digest_from_json(stored: Sequence[str]) -> Digest:
    name, value = stored
    return Digest(DigestAlgorithm(name), base64.b64decode(value))


def staged_from(row: Mapping[str, Any] | sa.RowMapping) -> StagedRequest:
    """A request from its row."""
    return StagedRequest(
        id=row["id"],
        client_id=row["client_id"],
        client_name=row["client_name"],
        items=tuple(_item_from_json(stored) for stored in row["items"]),
        pkce_challenge=row["pkce_challenge"],
        return_url=row["return_url"],
        citizen_index=row["citizen_index"],
        transaction_id=row["transaction_id"],
        client_nonce=row["client_nonce"],
        expires=row["expires"],
    )

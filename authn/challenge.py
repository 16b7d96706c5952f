"""Challenges: a fresh nonce and today's SAP key (EN 419 241-1: signature activation protocol), to seal one secret to.

A nonce carries its own end and a tag by a key that the HSM derives for this SAP key, so nothing is stored when one is
given out; it is stored when it is spent, in the commit that reserves the attempt.
"""

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit.log import Event, EventTag, Log
from audit.types import UTCDateTime
from authn.envelope import Envelope, EnvelopeContext, OpenedEnvelope, open_message
from authn.tables import metadata
from domain import jws
from domain.algorithms import KeyType
from domain.clock import Clock, to_epoch_seconds
from domain.errors import FactorMismatch, MalformedRequest, RequestExpired, RowEdited
from domain.ids import Randomness, new_id
from hsm.errors import HSMRefused
from hsm.keys import MACKey, SigningKey, WrappingKey
from hsm.vault import Vault

CHALLENGE_LIFE = timedelta(seconds=120)
SAP_LIFE = timedelta(days=1)
SAP_KEPT = timedelta(days=1)
"""How long after its last day a SAP key still opens what was sealed in its last minutes; then it is erased."""

RANDOM_SIZE_BYTES = 16
TAG_SIZE_BYTES = 16
NONCE_SIZE_BYTES = 8 + RANDOM_SIZE_BYTES + TAG_SIZE_BYTES

sap_key = sa.Table(
    "sap_key",
    metadata,
    sa.Column("id", sa.String(26), primary_key=True),
    sa.Column("wrapped", sa.LargeBinary, nullable=False),
    sa.Column("kek_version", sa.Integer, nullable=False),
    sa.Column("spki", sa.LargeBinary, nullable=False),
    sa.Column("mac_version", sa.Integer, nullable=False),
    sa.Column("created", UTCDateTime, nullable=False),
    sa.Column("guard_version", sa.Integer, nullable=False),
    sa.Column("guard", sa.LargeBinary(32), nullable=False),  # by the HSM: TOK speaks for no other key
)
spent_nonce = sa.Table(
    "spent_nonce",
    metadata,
    sa.Column("nonce", sa.LargeBinary(NONCE_SIZE_BYTES), primary_key=True),
    sa.Column("expires", UTCDateTime, nullable=False, index=True),
)


@dataclass(frozen=True, slots=True)
class Challenge:
    """What the page needs to seal one secret."""

    nonce: bytes
    expires: datetime
    sap_id: str
    sap_public_key: bytes
    """Uncompressed point, 65 bytes."""
    statement: str
    """JWS by TOK: this SAP key is the core's, from when to when."""


@dataclass(frozen=True, slots=True, repr=False)
class _SAPKey:
    id: str
    wrapped: bytes
    kek_version: int
    point: bytes
    nonce_key: bytes
    created: datetime
    statement: str


class Challenges:
    """Gives out challenges and opens what was sealed to them."""

    def __init__(
        self, engine: AsyncEngine, vault: Vault, clock: Clock, log: Log, randomness: Randomness = secrets.token_bytes
    ) -> None:
        self._engine = engine
        self._vault = vault
        self._clock = clock
        self._log = log
        self._randomness = randomness
        self._known: dict[str, _SAPKey] = {}
        self._lock = asyncio.Lock()

    async def mint(self) -> Challenge:
        """A challenge that lives 120 s."""
        today = await self._todays_key()
        expires = self._clock.now() + CHALLENGE_LIFE
        body = to_epoch_seconds(expires).to_bytes(8, "big") + self._randomness(RANDOM_SIZE_BYTES)
        return Challenge(body + _tag(today.nonce_key, body), expires, today.id, today.point, today.statement)

    async def open(self, envelope: Envelope, context: EnvelopeContext) -> OpenedEnvelope:
        """Open a sealed message; one HSM call.

        Raises:
            RequestExpired: The challenge is over: take a fresh one and seal again.
            MalformedRequest: Not sealed to a challenge of ours, or for something else.
        """
        key = await self._key(envelope.sap_id)
        body, tag = envelope.nonce[:-TAG_SIZE_BYTES], envelope.nonce[-TAG_SIZE_BYTES:]
        if len(envelope.nonce) != NONCE_SIZE_BYTES or not hmac.compare_digest(tag, _tag(key.nonce_key, body)):
            raise MalformedRequest("the challenge is not one of ours")
        if to_epoch_seconds(self._clock.now()) >= int.from_bytes(body[:8], "big"):
            raise RequestExpired("the challenge has expired; take a fresh one")
        try:
            dh = await self._vault.agree(key.wrapped, envelope.enc, kek_version=key.kek_version)
            return open_message(dh, envelope, key.point, context)
        except (MalformedRequest, ValueError, HSMRefused):
            facts = {"reason": "envelope", "purpose": context.purpose.value, "cid": context.challenge_id}
            async with self._engine.begin() as connection:
                # Spent, so that one challenge makes one leaf.
                await self.spend(connection, envelope)
                await self._log.append(connection, Event(tag=EventTag.REFUSED, facts=facts))
            raise MalformedRequest("the sealed message does not belong to this step") from None

    async def spend(self, connection: AsyncConnection, envelope: Envelope) -> None:
        """Use the nonce up, within the commit that reserves the attempt.

        Raises:
            FactorMismatch: Used before.
        """
        expires = self._clock.now() + CHALLENGE_LIFE
        taken = await connection.execute(sa.select(spent_nonce.c.nonce).where(spent_nonce.c.nonce == envelope.nonce))
        if taken.first() is not None:
            raise FactorMismatch("this sealed message was used before")
        await connection.execute(sa.insert(spent_nonce).values(nonce=envelope.nonce, expires=expires))

    async def give_back(self, connection: AsyncConnection, envelope: Envelope) -> None:
        """The attempt could not be tested: the same envelope may come again."""
        await connection.execute(sa.delete(spent_nonce).where(spent_nonce.c.nonce == envelope.nonce))

    async def erase_old(self) -> None:
        """Erase SAP keys a day after their last day, and nonces that could no longer be used anyway."""
        now = self._clock.now()
        async with self._engine.begin() as connection:
            await connection.execute(sa.delete(sap_key).where(sap_key.c.created < now - SAP_LIFE - SAP_KEPT))
            await connection.execute(sa.delete(spent_nonce).where(spent_nonce.c.expires < now - CHALLENGE_LIFE))
        self._known = {key.id: key for key in self._known.values() if key.created >= now - SAP_LIFE - SAP_KEPT}

    async def _todays_key(self) -> _SAPKey:
        async with self._lock:
            earliest = self._clock.now() - SAP_LIFE
            newest = max(self._known.values(), key=lambda key: key.created, default=None)
            if newest is not None and newest.created > earliest:
                return newest
            async with self._engine.begin() as connection:
                found = await connection.execute(
                    sa.select(sap_key).where(sap_key.c.created > earliest).order_by(sap_key.c.created.desc()).limit(1)
                )
                row: Mapping[str, Any] | None = found.mappings().first()  # type: ignore[assignment]
            if row is None:
                pair = await self._vault.generate(WrappingKey.SAP, KeyType.P256)
                row = {
                    "id": new_id(self._randomness),
                    "wrapped": pair.wrapped,
                    "kek_version": self._vault.current_version(WrappingKey.SAP),
                    "spki": pair.spki,
                    "mac_version": self._vault.current_version(MACKey.CAPSULE),
                    "created": self._clock.now(),
                    "guard_version": self._vault.current_version(MACKey.ROW),
                }
                row["guard"] = await self._guard(row)
                async with self._engine.begin() as connection:
                    await connection.execute(sa.insert(sap_key).values(**row))
            return await self._remember(row)

    async def _key(self, sap_id: str) -> _SAPKey:
        if sap_id in self._known:
            return self._known[sap_id]
        async with self._lock, self._engine.begin() as connection:
            found = await connection.execute(sa.select(sap_key).where(sap_key.c.id == sap_id))
            row = found.mappings().first()
        if row is None:
            raise RequestExpired("the challenge has expired; take a fresh one")
        return await self._remember(dict(row))

    async def _guard(self, row: Mapping[str, Any]) -> bytes:
        facts = (row["id"], row["wrapped"], row["kek_version"], row["spki"], row["mac_version"])
        created = to_epoch_seconds(row["created"])
        return await self._vault.mac(MACKey.ROW, "sap_key", *facts, created, version=row["guard_version"])

    async def _remember(self, row: Mapping[str, Any]) -> _SAPKey:
        if not hmac.compare_digest(await self._guard(row), row["guard"]):
            raise RowEdited("a row of the core's database was changed behind its back; ask the operator")
        created: datetime = row["created"]
        public_key = load_der_public_key(row["spki"])
        point = public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        sap_id: str = row["id"]
        claims = {
            "sap_id": sap_id,
            "key": base64.urlsafe_b64encode(point).rstrip(b"=").decode(),
            "nbf": to_epoch_seconds(created),
            "exp": to_epoch_seconds(created + SAP_LIFE + SAP_KEPT),
        }
        key = _SAPKey(
            id=sap_id,
            wrapped=row["wrapped"],
            kek_version=row["kek_version"],
            point=point,
            nonce_key=await self._vault.mac(
                MACKey.CAPSULE,
                "challenge",
                sap_id,
                version=row["mac_version"],
            ),
            created=created,
            statement=await sign_jws(self._vault, {"typ": "sap+jwt"}, claims),
        )
        self._known[sap_id] = key
        return key


async def sign_jws(vault: Vault, header: dict[str, str], claims: dict[str, object]) -> str:
    """A compact JWS by the newest TOK key."""
    version = vault.current_version(SigningKey.TOKENS)
    signed = jws.signing_input({**header, "kid": f"{SigningKey.TOKENS}_{version}"}, claims)
    return jws.assemble(signed, await vault.sign_with(SigningKey.TOKENS, hashlib.sha256(signed).digest()))


def _tag(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, body, "sha256")[:TAG_SIZE_BYTES]

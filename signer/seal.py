"""The organisation's seal on receipts and letters: its certificate, obtained once, and its signature."""

import asyncio
import hashlib
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from audit.log import Event, EventTag, Log
from certs.anchors import TrustAnchors
from certs.csr import assemble_csr, csr_to_be_signed
from certs.issuer import Issuer, OrganisationSubject
from certs.profiles import check_issued
from domain import canonical
from domain.algorithms import KeyType
from domain.clock import Clock
from domain.digests import Digest
from hsm.keys import SigningKey
from hsm.vault import Vault
from signer import tables
from signer.tbs.cms import signed_attributes


@dataclass(frozen=True, slots=True)
class SealedDigest:
    """The seal's signature of one document."""

    to_be_signed: bytes
    """CMS signedAttrs, DER SET OF (RFC 5652 §5.4)."""
    signature: bytes
    """ECDSA as DER."""
    chain: tuple[bytes, ...]
    """The seal's certificate first, DER."""


class Seal:
    """Signs by SEAL; the certificate is asked for at first need and kept in the core's database."""

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        vault: Vault,
        issuer: Issuer,
        anchors: TrustAnchors,
        clock: Clock,
        log: Log,
        subject: OrganisationSubject,
    ) -> None:
        self._engine = engine
        self._vault = vault
        self._issuer = issuer
        self._anchors = anchors
        self._clock = clock
        self._log = log
        self._subject = subject
        self._asking = asyncio.Lock()

    async def sign(self, digest: Digest) -> SealedDigest:
        """Seal a prepared PDF by the digest over its ByteRange.

        Raises:
            IssuerUnavailable: There is no certificate yet and none can be had, or it is over.
            HSMError: The vault does not answer.
        """
        chain = await self.chain()
        to_be_signed = signed_attributes(digest, chain[0], {})
        signature = await self._vault.sign_with(SigningKey.SEAL, hashlib.sha256(to_be_signed).digest())
        return SealedDigest(to_be_signed, signature, chain)

    async def chain(self) -> tuple[bytes, ...]:
        """The seal's certificate and its issuer's, asked for once: the same key always gets the same certificate.

        Raises:
            IssuerUnavailable: As ``sign``.
        """
        spki = await self._vault.public_key(SigningKey.SEAL)
        # Organisation and key together: settings with another name ask for another certificate.
        name = canonical.sha256(spki, self._subject.organisation, self._subject.organisation_id)
        async with self._asking:
            return await self._stored(name) or await self._obtain(name, spki)

    async def _stored(self, name: bytes) -> tuple[bytes, ...] | None:
        table = tables.seal_certificate
        async with self._engine.connect() as connection:
            row = (await connection.execute(sa.select(table).where(table.c.id == name))).mappings().first()
        if row is None or row["not_after"] <= self._clock.now():
            return None
        return (row["certificate"], *(bytes.fromhex(der) for der in row["chain"]))

    async def _obtain(self, name: bytes, spki: bytes) -> tuple[bytes, ...]:
        to_be_signed = csr_to_be_signed(self._subject, spki)
        signature = await self._vault.sign_with(SigningKey.SEAL, hashlib.sha256(to_be_signed).digest())
        csr = assemble_csr(to_be_signed, signature, KeyType.P256)
        issued = await self._issuer.issue(csr, self._subject, idempotency_key=name.hex())
        certificate = check_issued(issued, spki, self._subject, self._clock.now(), self._anchors.load())
        row: dict[str, Any] = {
            "id": name,
            "certificate": issued.certificate,
            "chain": [der.hex() for der in issued.chain],
            "not_after": certificate.not_valid_after_utc,
        }
        table = tables.seal_certificate
        # Another core may have been faster: the issuer gave both the same certificate, so its row says the same.
        with suppress(sa.exc.IntegrityError):
            async with self._engine.begin() as connection:
                replaced = await connection.execute(sa.delete(table).where(table.c.id == name))
                await connection.execute(sa.insert(table).values(**row))
                if not replaced.rowcount:
                    facts: dict[str, str | int | bytes | None] = {
                        "kind": "seal",
                        "spki": hashlib.sha256(spki).digest(),
                    }
                    await self._log.append(connection, Event(tag=EventTag.CERT_ISSUE, facts=facts))
        return (issued.certificate, *issued.chain)

"""The port to a certification authority: the development PKI today, an external CA later."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias

from domain.errors import IssuerUnavailable


class RevocationReason(StrEnum):
    """RFC 5280 §5.3.1, those that apply to citizens."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"


@dataclass(frozen=True, slots=True, kw_only=True)
class CitizenSubject:
    """Identity data as the register holds it; becomes the subject by EN 319 412-2."""

    nif: str
    given_name: str
    first_surname: str
    second_surname: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganisationSubject:
    """The organisation that seals receipts and letters; becomes the subject by EN 319 412-3."""

    organisation: str
    """Its registered name; the common name too."""
    organisation_id: str
    """organizationIdentifier by EN 319 412-1 §5.1.4, for example ``VATES-Q2826000H``."""


Subject: TypeAlias = CitizenSubject | OrganisationSubject
"""Whom a certificate is for."""


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """What an issuer gives back; not yet checked."""

    certificate: bytes
    """DER."""
    chain: tuple[bytes, ...]
    """Issuing CA first, up to but without the root, DER."""


class Issuer(Protocol):
    """A certification authority that certifies citizens' keys and the organisation's seal."""

    async def issue(self, csr: bytes, subject: Subject, *, idempotency_key: str) -> IssuedCertificate:
        """Certify the key of ``csr`` (PKCS#10, DER) for ``subject``; the same key gives the same certificate again.

        Raises:
            IssuerUnavailable: No answer, or a refusal.
        """
        ...

    async def revoke(self, serial: int, reason: RevocationReason) -> None:
        """Revoke; revoking twice is no error.

        Raises:
            IssuerUnavailable: No answer, or a refusal.
        """
        ...


class NoIssuer:
    """Where no certification authority is configured: certificates that exist go on signing."""

    async def issue(self, csr: bytes, subject: Subject, *, idempotency_key: str) -> IssuedCertificate:
        """Refuse.

        Raises:
            IssuerUnavailable: Always.
        """
        del csr, subject, idempotency_key
        raise IssuerUnavailable("no certification authority is configured")

    async def revoke(self, serial: int, reason: RevocationReason) -> None:
        """Refuse; the revocation holds here and is told to the authority once there is one.

        Raises:
            IssuerUnavailable: Always.
        """
        del serial, reason
        raise IssuerUnavailable("no certification authority is configured")

"""Typed client of a citizen's own area, for the edge; errors as in ``authn.client``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import grpc
from cryptography.hazmat.primitives.asymmetric import ec

from authn.client import QUICK_SECONDS, call, moment, token_key
from authn.proto import authn_pb2, authn_pb2_grpc
from domain.assurance import LoA, RegistrationLevel


@dataclass(frozen=True, slots=True, kw_only=True)
class EnteredArea:
    """A login whose token was taken."""

    key: bytes = field(repr=False)
    """Names the login from now on."""
    expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateShown:
    """One certificate."""

    serial: str
    """Hexadecimal."""
    state: str
    """``ACTIVE``, ``SUSPENDED`` or ``REVOKED``."""
    not_after: datetime | None
    """Absent where it was never accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UseShown:
    """One approval with which the citizen's key was used."""

    time: datetime
    agency: str
    documents: int
    titles: Sequence[str] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaShown:
    """What a citizen may see of themselves."""

    name: str = field(repr=False)
    masked_nif: str = field(repr=False)
    level: RegistrationLevel
    loa: LoA
    authenticated: datetime
    password: str
    """``none``, ``active`` or ``blocked``."""
    blocked_until: datetime | None
    certificates: Sequence[CertificateShown]
    uses: Sequence[UseShown] = field(repr=False)


class AreaClient:
    """Names a citizen by a token of the core, and then by the key that the core gave for it; never by anything else."""

    def __init__(self, channel: "grpc.aio.Channel") -> None:
        self._stub = authn_pb2_grpc.AreaStub(channel)  # type: ignore[no-untyped-call]

    async def token_key(self) -> ec.EllipticCurvePublicKey:
        """The key with which identity tokens are checked."""
        return await token_key(self._stub)

    async def enter(self, token: str, nonce: str) -> EnteredArea:
        """Give a token away, once, for the key of its login.

        Raises:
            RequestExpired: It is of no use, or no longer.
        """
        request = authn_pb2.EnterAreaRequest(token=token, nonce=nonce)
        answer = await call(self._stub.EnterArea, request, deadline_seconds=QUICK_SECONDS)
        return EnteredArea(key=answer.key, expires=moment(answer.expires))

    async def show(self, key: bytes) -> AreaShown:
        """What the citizen of that login may see.

        Raises:
            RequestExpired: There is no such login, or it has ended.
        """
        request = authn_pb2.ShowAreaRequest(key=key)
        answer = await call(self._stub.ShowArea, request, deadline_seconds=QUICK_SECONDS)
        return AreaShown(
            name=answer.name,
            masked_nif=answer.masked_nif,
            level=RegistrationLevel(answer.level),
            loa=LoA(answer.loa),
            authenticated=moment(answer.authenticated),
            password=answer.password,
            blocked_until=_moment_or_none(answer.blocked_until),
            certificates=[
                CertificateShown(serial=one.serial, state=one.state, not_after=_moment_or_none(one.not_after))
                for one in answer.certificates
            ],
            uses=[
                UseShown(time=moment(use.time), agency=use.agency, documents=use.documents, titles=tuple(use.titles))
                for use in answer.uses
            ],
        )

    async def leave(self, key: bytes) -> None:
        """End the login; nothing happens where there is none."""
        await call(self._stub.LeaveArea, authn_pb2.LeaveAreaRequest(key=key), deadline_seconds=QUICK_SECONDS)


def _moment_or_none(epoch_seconds: int) -> datetime | None:
    return moment(epoch_seconds) if epoch_seconds else None

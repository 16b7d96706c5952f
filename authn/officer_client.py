"""The officers' side: their key, what they sign with it, and the typed client that carries it to the core."""

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import grpc
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from authn.client import QUICK_SECONDS, call, moment
from authn.proto import authn_pb2, authn_pb2_grpc
from domain.clock import Clock, to_epoch_seconds
from domain.errors import MalformedRequest
from domain.statements import NONCE_SIZE_BYTES, OfficerAction, officer_statement

REGISTER_FIELDS = (
    *("nif", "given_name", "first_surname", "second_surname", "phone", "email"),
    *("level", "proof", "language", "conditions"),
)
RENEW_FIELDS = ("nif", "phone", "proof", "language")
"""The fields of each request that are signed: all but the statements."""

PRINTING_SECONDS = 60.0
"""Deadline of calls that make papers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfficerKey:
    """An officer's P-256 key."""

    officer_id: str
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def draw(cls, officer_id: str) -> Self:
        """A new one."""
        return cls(officer_id=officer_id, key=ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what ``write`` wrote; the file is named for the officer.

        Raises:
            MalformedRequest: Not a P-256 key in PEM, or others may read it.
            OSError: It cannot be read.
        """
        if path.stat().st_mode & 0o077:
            raise MalformedRequest(f"{path} must be closed to others (chmod 600)")
        try:
            key = load_pem_private_key(path.read_bytes(), None)
        except (ValueError, TypeError):
            raise MalformedRequest(f"{path} holds no private key in PEM") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise MalformedRequest(f"{path} holds no P-256 key")
        return cls(officer_id=path.stem, key=key)

    def write(self, folder: Path) -> Path:
        """Put it into ``folder`` as ``<officer id>.pem``, for this user alone.

        Raises:
            FileExistsError: There is one already.
        """
        path = folder / f"{self.officer_id}.pem"
        pem = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
        return path

    @property
    def public_key(self) -> bytes:
        """SubjectPublicKeyInfo, DER."""
        return self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, action: OfficerAction, fields: Mapping[str, str], clock: Clock) -> Any:
        """The protobuf statement over one request, good once and for two minutes."""
        issued, nonce = to_epoch_seconds(clock.now()), secrets.token_bytes(NONCE_SIZE_BYTES)
        statement = officer_statement(self.officer_id, action, issued, nonce, fields)
        signature = self.key.sign(statement, ec.ECDSA(hashes.SHA256()))
        return authn_pb2.OfficerStatement(officer_id=self.officer_id, issued=issued, nonce=nonce, signature=signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnPaper:
    """What an officer hands over."""

    activation_code: str = field(repr=False)
    receipt: bytes = field(repr=False)
    """PDF."""
    acceptance: bytes = field(default=b"", repr=False)
    """PDF; empty where nothing is to be accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedOfficer:
    """One line of the list of officers."""

    officer_id: str
    role: str
    state: str
    added: datetime
    actions_last_hour: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedDocument:
    """What the core knows of a paper."""

    kind: str
    sha256: bytes
    made: datetime


class OfficersClient:
    """What operator and officers ask."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock) -> None:
        self._stub = authn_pb2_grpc.OfficersStub(channel)  # type: ignore[no-untyped-call]
        self._clock = clock

    async def add(self, officer: OfficerKey, *, role: str, nif: str) -> None:
        """Enter an officer by the public half of their key.

        Raises:
            AlreadyRegistered: The id was given before.
            MalformedRequest: A field is not what it should be.
        """
        request = authn_pb2.AddOfficerRequest(
            officer_id=officer.officer_id, role=role, nif=nif, public_key=officer.public_key
        )
        await call(self._stub.AddOfficer, request, deadline_seconds=QUICK_SECONDS)

    async def end(self, officer_id: str) -> None:
        """Let nothing that this officer signs hold any more."""
        request = authn_pb2.EndOfficerRequest(officer_id=officer_id)
        await call(self._stub.EndOfficer, request, deadline_seconds=QUICK_SECONDS)

    async def all(self) -> list[ListedOfficer]:
        """Every officer."""
        answer = await call(self._stub.ListOfficers, authn_pb2.ListOfficersRequest(), deadline_seconds=QUICK_SECONDS)
        return [
            ListedOfficer(
                officer_id=one.officer_id,
                role=one.role,
                state=one.state,
                added=moment(one.added),
                actions_last_hour=one.actions_last_hour,
            )
            for one in answer.officers
        ]

    async def register(self, officer: OfficerKey, fields: Mapping[str, str]) -> OnPaper:
        """Enter a citizen.

        Args:
            officer: A registrar.
            fields: Each of ``REGISTER_FIELDS``.

        Raises:
            CallerRefused, NotPermitted, RateLimited: The officer may not.
            AlreadyRegistered, MalformedRequest: What was typed does not do.
            DependencyUnavailable: The papers cannot be made now; nothing was entered.
        """
        statement = officer.sign(OfficerAction.REGISTER, fields, self._clock)
        request = authn_pb2.RegisterRequest(**fields, statement=statement)
        answer = await call(self._stub.Register, request, deadline_seconds=PRINTING_SECONDS)
        return OnPaper(activation_code=answer.activation_code, receipt=answer.receipt, acceptance=answer.acceptance)

    async def renew(
        self, officer: OfficerKey, fields: Mapping[str, str], *, supervisor: OfficerKey | None = None
    ) -> OnPaper:
        """Give a new activation code, and with a supervisor a new phone.

        Args:
            officer: A registrar.
            fields: Each of ``RENEW_FIELDS``.
            supervisor: Signs the same; needed where ``phone`` is not empty.

        Raises:
            NotFound: Nobody with this NIF is registered.
            CallerRefused, NotPermitted, RateLimited: The officers may not.
        """
        statement = officer.sign(OfficerAction.RENEW, fields, self._clock)
        request = authn_pb2.RenewCodeRequest(statement=statement, **dict(fields))  # type: ignore[arg-type]
        if supervisor is not None:
            request.countersignature.CopyFrom(supervisor.sign(OfficerAction.RENEW, fields, self._clock))
        answer = await call(self._stub.RenewCode, request, deadline_seconds=PRINTING_SECONDS)
        return OnPaper(activation_code=answer.activation_code, receipt=answer.receipt)


class PapersClient:
    """What anybody may ask through the edge."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = authn_pb2_grpc.PapersStub(channel)  # type: ignore[no-untyped-call]

    async def verify(self, csv: str) -> VerifiedDocument:
        """What is known of a paper.

        Raises:
            NotFound: No paper of ours has this CSV.
        """
        request = authn_pb2.VerifyDocumentRequest(csv=csv)
        answer = await call(self._stub.VerifyDocument, request, deadline_seconds=QUICK_SECONDS)
        return VerifiedDocument(kind=answer.kind, sha256=answer.sha256, made=moment(answer.made))

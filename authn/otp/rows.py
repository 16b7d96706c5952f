"""The rows of one-time codes, and what the words in them mean."""

from datetime import timedelta
from enum import StrEnum

import sqlalchemy as sa

from audit.types import UTCDateTime
from authn.tables import metadata

OTP_LIFE = timedelta(minutes=5)
OTP_TRIES = 3
RESENDS = 2

otp_challenge = sa.Table(
    "otp_challenge",
    metadata,
    sa.Column("id", sa.String(26), primary_key=True),
    sa.Column("purpose", sa.String(24), nullable=False),
    sa.Column("request_id", sa.String(26)),
    sa.Column("citizen_id", sa.String(32), index=True),  # empty where there is no such citizen
    sa.Column("real", sa.Boolean, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("content", sa.String(8), nullable=False),
    sa.Column("reference", sa.String(6), nullable=False),
    sa.Column("expires", UTCDateTime, nullable=False),
    sa.Column("left", sa.Integer, nullable=False),
    sa.Column("capsule", sa.LargeBinary),  # absent once consumed
    sa.Column("capsule_version", sa.Integer, nullable=False),
    sa.Column("state", sa.String(8), nullable=False),
    sa.Column("envelope_sha256", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("completed_by_sha256", sa.LargeBinary(32)),
    sa.Column("answer", sa.LargeBinary),
    sa.Column("resends_left", sa.Integer, nullable=False),
    sa.Column("resend_from", UTCDateTime, nullable=False),
    sa.Column("block_told", sa.Boolean, nullable=False, default=False),  # of the block that ends with it
)


class OTPPurpose(StrEnum):
    """What the code opens the way to."""

    SIGN = "sign"
    ACTIVATION = "activation"
    PASSWORD_CHANGE = "password-change"
    PIN = "pin"


class CapsuleContent(StrEnum):
    """What lies in the capsule."""

    KEY = "key"
    """B1, the HSM-wrapped signing key."""
    SECRET = "secret"
    """V for a change of password, a random value for an activation, the authentication record for a PIN."""
    REASON = "reason"
    """Nothing of use: the citizen proved both factors but cannot sign, and may be told why."""


class ChallengeState(StrEnum):
    """Life of a challenge."""

    PENDING = "PENDING"
    CONSUMED = "CONSUMED"
    DEAD = "DEAD"

"""Tables of the signing core."""

import sqlalchemy as sa

from audit.types import UTCDateTime

metadata = sa.MetaData()

request = sa.Table(
    "request",
    metadata,
    sa.Column("id", sa.String(26), primary_key=True),
    sa.Column("client_id", sa.String(64), nullable=False),
    sa.Column("client_name", sa.String(120), nullable=False),
    sa.Column("items", sa.JSON, nullable=False),
    sa.Column("pkce_challenge", sa.LargeBinary(32), nullable=False),
    sa.Column("return_url", sa.String(2000), nullable=False),
    sa.Column("citizen_index", sa.LargeBinary(32)),  # blind index of the NIF that an agency named
    sa.Column("transaction_id", sa.String(128), nullable=False),  # what the client's grant is good for
    sa.Column("client_nonce", sa.String(200), nullable=False),
    sa.Column("idempotency_key", sa.String(80), nullable=False),
    sa.Column("content_sha256", sa.LargeBinary(32), nullable=False),
    sa.Column("created", UTCDateTime, nullable=False),
    sa.Column("expires", UTCDateTime, nullable=False),
    sa.UniqueConstraint("client_id", "idempotency_key"),
    sa.Index("request_by_grant", "client_id", "transaction_id"),
)
credential = sa.Table(
    "credential",
    metadata,
    sa.Column("id", sa.String(26), primary_key=True),
    sa.Column("citizen_id", sa.String(32), nullable=False, index=True),
    sa.Column("pid", sa.LargeBinary(32), nullable=False),
    sa.Column("key_type", sa.String(8), nullable=False),
    sa.Column("state", sa.String(9), nullable=False),
    sa.Column("sealed_key", sa.LargeBinary),  # B2; erased with the credential's end
    sa.Column("kek_version", sa.Integer, nullable=False),
    sa.Column("spki", sa.LargeBinary, nullable=False, unique=True),  # no two signers share a key
    sa.Column("csr", sa.LargeBinary),
    sa.Column("certificate", sa.LargeBinary),
    sa.Column("chain", sa.JSON),  # base64 of DER, issuing CA first
    sa.Column("serial", sa.String(40)),
    sa.Column("not_after", UTCDateTime),
    sa.Column("revocation_reason", sa.String(24)),
    sa.Column("revocation_told", sa.Boolean, nullable=False, default=False),  # the issuer knows
    sa.Column("created", UTCDateTime, nullable=False),
)
# What BEGIN made for a challenge; becomes an approval and, with item 0, a credential once the code was right.
pending_approval = sa.Table(
    "pending_approval",
    metadata,
    sa.Column("cid", sa.String(26), primary_key=True),
    sa.Column("citizen_id", sa.String(32)),
    sa.Column("credential_id", sa.String(26), nullable=False),
    sa.Column("key_type", sa.String(8), nullable=False),
    sa.Column("kek_version", sa.Integer, nullable=False),
    sa.Column("new_sealed_key", sa.LargeBinary),
    sa.Column("new_spki", sa.LargeBinary),
    sa.Column("is_new", sa.Boolean, nullable=False),
    sa.Column("refusal", sa.String(40)),  # code of the reason told after both factors were right
    sa.Column("expires", UTCDateTime, nullable=False),
)
approval = sa.Table(
    "approval",
    metadata,
    sa.Column("cid", sa.String(26), primary_key=True),
    sa.Column("request_id", sa.String(26), nullable=False, unique=True),  # one approval each
    sa.Column("citizen_id", sa.String(32), nullable=False, index=True),
    sa.Column("pid", sa.LargeBinary(32), nullable=False),
    sa.Column("credential_id", sa.String(26), nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("cs_sha256", sa.LargeBinary(32), nullable=False),
    sa.Column("otp_expires", UTCDateTime, nullable=False),
    sa.Column("state", sa.String(6), nullable=False),
    sa.Column("parked", sa.LargeBinary),  # B1 under the code, then under the SAD
    sa.Column("capsule_version", sa.Integer, nullable=False),
    sa.Column("kek_version", sa.Integer, nullable=False),
    sa.Column("code_sha256", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("code_expires", UTCDateTime, nullable=False),
    sa.Column("sid", sa.LargeBinary(32), unique=True),
    sa.Column("sad_expires", UTCDateTime),
    sa.Column("approved", UTCDateTime, nullable=False),
    sa.Column("result_token", sa.Text),
    sa.Column("receipt", sa.Text),
)
authorisation = sa.Table(
    "authorisation",
    metadata,
    sa.Column("cid", sa.String(26), primary_key=True),
    sa.Column("item", sa.Integer, primary_key=True),
    sa.Column("state", sa.String(10), nullable=False),
    sa.Column("epoch", sa.Integer),
    sa.Column("attempt", sa.Integer, nullable=False, default=0),
    sa.Column("signing_time", UTCDateTime),  # of the first attempt, so that a further one signs the same bytes
    sa.Column("to_be_signed", sa.LargeBinary),
    sa.Column("signed_properties", sa.LargeBinary),  # XAdES
    sa.Column("signature", sa.LargeBinary),
    sa.Column("signed", UTCDateTime),
    sa.Column("intent_id", sa.String(26)),
    sa.Column("complete_id", sa.String(26)),
)
core_epoch = sa.Table(
    "core_epoch",
    metadata,
    sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("instance", sa.String(64), nullable=False),
    sa.Column("lease_until", UTCDateTime, nullable=False),
    sa.Column("fenced", sa.Boolean, nullable=False, default=False),
)
seal_certificate = sa.Table(
    "seal_certificate",
    metadata,
    sa.Column("id", sa.LargeBinary(32), primary_key=True),  # digest of key and organisation
    sa.Column("certificate", sa.LargeBinary, nullable=False),
    sa.Column("chain", sa.JSON, nullable=False),
    sa.Column("not_after", UTCDateTime, nullable=False),
)

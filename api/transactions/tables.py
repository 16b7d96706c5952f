"""Tables of the edge. Times are whole seconds since 1970; what ends in ``_sealed`` is opaque to the database."""

import sqlalchemy as sa

metadata = sa.MetaData()

transactions = sa.Table(
    "transactions",
    metadata,
    sa.Column("transaction_id", sa.String(26), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("state", sa.String(12), nullable=False),
    sa.Column("client_id", sa.String(200), nullable=False),
    sa.Column("client_name", sa.String(400), nullable=False),
    sa.Column("link_sha256", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("link_sealed", sa.LargeBinary, nullable=False),
    sa.Column("level", sa.String(8), nullable=False),
    sa.Column("format", sa.String(16), nullable=False),
    sa.Column("packaging", sa.String(16), nullable=False),
    sa.Column("algorithm", sa.String(16), nullable=False),
    sa.Column("citizen_nif_sealed", sa.LargeBinary, nullable=False),
    sa.Column("grant_sealed", sa.LargeBinary, nullable=False),
    sa.Column("granted", sa.BigInteger, nullable=False),
    sa.Column("return_url", sa.Text, nullable=False),
    sa.Column("client_nonce", sa.String(200), nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.BigInteger, nullable=False, index=True),
    sa.Column("request_id", sa.String(64)),
    sa.Column("result_token", sa.Text, nullable=False, default=""),
    sa.Column("receipt", sa.Text, nullable=False, default=""),
    sa.Column("failure_code", sa.String(40), nullable=False, default=""),
    # Whoever works on a transaction holds it until then, under a name of its own; a dead worker's hold runs out.
    sa.Column("claimed_by", sa.String(26), nullable=False, default=""),
    sa.Column("claimed_until", sa.BigInteger, nullable=False, default=0),
    sa.Column("next_try", sa.BigInteger, nullable=False, default=0),
    sa.Column("tries", sa.Integer, nullable=False, default=0),
    sa.Index("transactions_by_state", "state", "next_try"),
)

documents = sa.Table(
    "documents",
    metadata,
    sa.Column("transaction_id", sa.ForeignKey(transactions.c.transaction_id), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("title", sa.String(120), nullable=False),
    sa.Column("state", sa.String(12), nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False, default=0),
    sa.Column("sha256", sa.LargeBinary(32)),
    sa.Column("media_type", sa.String(130), nullable=False, default=""),
    sa.Column("original_id", sa.String(26)),
    sa.Column("prepared_id", sa.String(26)),
    sa.Column("signed_id", sa.String(26)),
    sa.Column("digest_algorithm", sa.String(16)),
    sa.Column("digest", sa.LargeBinary(64)),
    sa.Column("prepare_state", sa.LargeBinary),
    sa.Column("to_be_signed", sa.LargeBinary),
    sa.Column("signature", sa.LargeBinary),
    sa.Column("signed_properties", sa.LargeBinary),
    sa.Column("chain", sa.JSON),
    sa.Column("level", sa.String(8)),
    sa.Column("failure_code", sa.String(40), nullable=False, default=""),
    sa.Column("failure_detail", sa.Text, nullable=False, default=""),
    sa.Column("next_try", sa.BigInteger, nullable=False, default=0),
    sa.Column("tries", sa.Integer, nullable=False, default=0),
    sa.Index("documents_by_state", "state", "next_try"),
)

stagings = sa.Table(
    "stagings",
    metadata,
    sa.Column("request_id", sa.String(64), primary_key=True),
    sa.Column("transaction_id", sa.ForeignKey(transactions.c.transaction_id), nullable=False, index=True),
    sa.Column("state", sa.String(12), nullable=False),
    sa.Column("cookie_sha256", sa.LargeBinary(32), nullable=False),
    sa.Column("expires", sa.BigInteger, nullable=False),
    sa.Column("verifier_sealed", sa.LargeBinary, nullable=False),
    sa.Column("r_sealed", sa.LargeBinary),
    sa.Column("code_sealed", sa.LargeBinary),
    sa.Column("sad_sealed", sa.LargeBinary),
    sa.Column("sad_expires", sa.BigInteger),
)

idempotency = sa.Table(
    "idempotency",
    metadata,
    sa.Column("scope", sa.String(240), primary_key=True),
    sa.Column("key_sha256", sa.LargeBinary(32), primary_key=True),
    sa.Column("body_sha256", sa.LargeBinary(32), nullable=False),
    sa.Column("transaction_id", sa.ForeignKey(transactions.c.transaction_id), nullable=False, index=True),
)

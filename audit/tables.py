"""The tree's own rows: which leaf stands where, how far the log has come, and what was signed of it. They only grow."""

import sqlalchemy as sa

from audit.log import metadata, only_grows
from audit.types import UTCDateTime

SHARD_LENGTH = 32

log_leaf = sa.Table(
    "log_leaf",
    metadata,
    sa.Column("shard", sa.String(SHARD_LENGTH), primary_key=True),
    sa.Column("idx", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("position", sa.ForeignKey("log_pending.position"), nullable=False, unique=True),
    sa.Column("hash", sa.LargeBinary(32), nullable=False, comment="leaf hash, RFC 9162 §2.1.1"),
)

log_head = sa.Table(
    "log_head",
    metadata,
    sa.Column("shard", sa.String(SHARD_LENGTH), primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False, comment="leaves that have an index"),
    sa.Column("position", sa.BigInteger, nullable=False, comment="of the last of them"),
    sa.Column("published", sa.BigInteger, nullable=False, comment="leaves of the tree that may be signed"),
    sa.Column("root", sa.LargeBinary(32), nullable=False, comment="of that tree"),
    sa.Column("fence", sa.Integer, nullable=False, comment="whoever has an older one may do nothing"),
    sa.Column("holder", sa.String(64), nullable=False, comment="name of the core whose sequencer works"),
    sa.Column("seen", UTCDateTime, nullable=False),
)
"""The one row of the log that changes."""

log_checkpoint = sa.Table(
    "log_checkpoint",
    metadata,
    sa.Column("shard", sa.String(SHARD_LENGTH), primary_key=True),
    sa.Column("size", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("root", sa.LargeBinary(32), nullable=False),
    sa.Column("time", UTCDateTime, nullable=False),
    sa.Column("note", sa.LargeBinary, nullable=False),
)

only_grows(log_leaf)
only_grows(log_checkpoint)

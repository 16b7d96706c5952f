"""What the tables of authn share; each module's own table stands in that module, on this ``metadata``."""

import sqlalchemy as sa

from audit.types import UTCDateTime

__all__ = ["UTCDateTime", "metadata"]

metadata = sa.MetaData()

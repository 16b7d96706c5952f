"""Tables of authn that several modules share; each module's own table stands in that module, on this ``metadata``."""

import sqlalchemy as sa

metadata = sa.MetaData()

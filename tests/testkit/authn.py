"""What tests of authn begin with: a database with its tables, a cipher, a person."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

import audit.log
from authn.registration.person import NewCitizen
from authn.tables import metadata
from domain.assurance import RegistrationLevel
from rubrica.database import make_engine


@asynccontextmanager
async def database(folder: Path) -> AsyncIterator[AsyncEngine]:
    """An engine over a new SQLite file (or the one there) with the tables of authn and the log."""
    engine = make_engine(f"sqlite+aiosqlite:///{folder / 'core.db'}")
    try:
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
            await connection.run_sync(audit.log.metadata.create_all)
        yield engine
    finally:
        await engine.dispose()


def a_person(
    *,
    nif: str = "12345678Z",
    given_name: str = "María",
    first_surname: str = "Núñez",
    second_surname: str = "Ibáñez",
    phone: str = "+34612345678",
    email: str = "maria@example.org",
    level: RegistrationLevel = RegistrationLevel.ADVANCED,
) -> NewCitizen:
    """Somebody to register."""
    return NewCitizen(
        nif=nif,
        given_name=given_name,
        first_surname=first_surname,
        second_surname=second_surname,
        phone=phone,
        email=email,
        level=level,
    )


def bytes_on_disk(folder: Path) -> bytes:
    """Everything that a thief of the folder would read, for canary tests."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())

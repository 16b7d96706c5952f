"""Officers for tests: keys, what they type, and the register as they fill it."""

import secrets
import string

from sqlalchemy.ext.asyncio import AsyncEngine

from authn.officer_client import OfficerKey
from authn.registration.register import Registered, Registration
from domain.statements import CONDITIONS_VERSION


def an_officer(officer_id: str = "") -> OfficerKey:
    """A key under a new id."""
    letters = "".join(secrets.choice(string.ascii_lowercase) for _ in range(12))
    return OfficerKey.draw(officer_id or f"officer-{letters}")


def typed_by_officer(**changes: str) -> dict[str, str]:
    """Every field of a registration."""
    return {
        "nif": "12345678Z",
        "given_name": "María",
        "first_surname": "Núñez",
        "second_surname": "Ibáñez",
        "phone": "+34612345678",
        "email": "maria@example.org",
        "level": "advanced",
        "proof": "document:office-12",
        "language": "es",
        "conditions": CONDITIONS_VERSION,
        **changes,
    }


async def enter(engine: AsyncEngine, registration: Registration, **typed: str) -> Registered:
    """Prepare and store in one go, as the desk does around its papers."""
    prepared = await registration.prepare(**typed)
    async with engine.begin() as connection:
        return await registration.store(connection, prepared)

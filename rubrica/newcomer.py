"""Citizens who do not exist, entered by an officer as at a desk: for ``rubrica demo`` and ``rubrica up``."""

import secrets
import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from authn.officer_client import OfficerKey, OfficersClient, OnPaper
from domain.assurance import RegistrationLevel
from domain.clock import SystemClock
from domain.statements import CONDITIONS_VERSION

if TYPE_CHECKING:
    import grpc

_NIF_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
"""Real Decreto 1553/2005 art. 11: the letter is the number modulo 23."""


@dataclass(frozen=True, slots=True)
class Citizen:
    """Somebody who does not exist."""

    nif: str = field(repr=False)
    phone: str = field(repr=False)
    email: str = field(repr=False)
    password: str = field(repr=False)

    @classmethod
    def draw(cls) -> "Citizen":
        """A new one with a valid NIF and a valid mobile number."""
        number = secrets.randbelow(10**8)
        return cls(
            nif=f"{number:08d}{_NIF_LETTERS[number % 23]}",
            phone=f"+346{secrets.randbelow(10**8):08d}",
            email=f"ana.{secrets.token_hex(4)}@example.org",
            password=secrets.token_urlsafe(18),
        )


def _new_officer_id() -> str:
    # Letters only: an id with a long number in it could be somebody's.
    return "demo-" + "".join(secrets.choice(string.ascii_lowercase) for _ in range(16))


async def register(
    channel: "grpc.aio.Channel", citizen: Citizen, level: RegistrationLevel = RegistrationLevel.ADVANCED
) -> OnPaper:
    """Enter a citizen as at a desk, by an officer who is there for this one registration."""
    officers, officer = OfficersClient(channel, SystemClock()), OfficerKey.draw(_new_officer_id())
    await officers.add(officer, role="registrar", nif=Citizen.draw().nif)
    fields = {
        "nif": citizen.nif,
        "given_name": "Ana",
        "first_surname": "Ejemplo",
        "second_surname": "Demostración",
        "phone": citizen.phone,
        "email": citizen.email,
        "level": level.value,
        "proof": "demonstration",
        "language": "es",
        "conditions": CONDITIONS_VERSION,
    }
    on_paper = await officers.register(officer, fields)
    await officers.end(officer.officer_id)
    return on_paper
